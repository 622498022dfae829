//! Under which principal an identity logs in, and under which a service is asked for.

use std::net::IpAddr;

use krb5::Principal;

use super::identity::Service;
use crate::config::Configuration;
use crate::error::{Error, catalogue};
use crate::keytab::{Keytab, parse_principal};

/// NT-ENTERPRISE (RFC 6806 5): the name is a whole user principal name.
const ENTERPRISE: i32 = 10;
/// NT-SRV-HST. With NT-PRINCIPAL MIT's KDC does not refer to other realms.
const SERVICE_HOST: i32 = 3;

/// The principals to log in as, in this order; the later ones when the KDC does not know the earlier ones.
///
/// `user` and `user@REALM` are ordinary names. `user@suffix` is a user principal name when a realm is given that is not the suffix, or
/// when nobody knows a realm of that name; it may also be one when the suffix is the realm, because the part before it need not be the
/// logon name: so that comes second.
pub(super) fn of_user(text: &str, realm: Option<&str>, config: &Configuration) -> Result<Vec<Principal>, Error> {
    if text.is_empty() || text.contains('\\') {
        return Err(catalogue::principal_invalid(text, "It is empty, or written as DOMAIN\\user."));
    }
    let given = realm.filter(|realm| !realm.is_empty()).map(|realm| right_case(realm, config)).transpose()?;
    let Some((name, suffix)) = text.rsplit_once('@') else {
        let realm = given.or_else(|| config.default_realm().map(str::to_owned));
        let realm = realm.ok_or_else(|| catalogue::realm_unknown(text))?;
        return Ok(vec![plain(text, &realm)?]);
    };
    if name.is_empty() || suffix.is_empty() {
        return Err(catalogue::principal_invalid(text, "There is nothing before or after the @."));
    }
    let enterprise = |realm: &str| Principal::new(ENTERPRISE, [text], realm);
    if name.contains('@') {
        // Only a user principal name has another @ in it.
        let realm = given.or_else(|| config.default_realm().map(str::to_owned));
        return Ok(vec![enterprise(&realm.ok_or_else(|| catalogue::realm_unknown(text))?)]);
    }
    match given {
        Some(realm) if !realm.eq_ignore_ascii_case(suffix) => Ok(vec![enterprise(&realm)]),
        Some(realm) => both(text, name, &realm),
        None => {
            let other = config.default_realm().filter(|default| !default.eq_ignore_ascii_case(suffix));
            match other {
                Some(default) if !config.defines(suffix) => Ok(vec![enterprise(default)]),
                // DNS may be asked for any realm, so that only the asking shows whether there is one.
                other => {
                    let mut names = both(text, name, &right_case(suffix, config)?)?;
                    names.extend(other.filter(|_| names.len() > 1).map(enterprise));
                    Ok(names)
                }
            }
        }
    }
}

fn both(text: &str, name: &str, realm: &str) -> Result<Vec<Principal>, Error> {
    let plain = plain(name, realm)?;
    if plain.components.len() > 1 {
        return Ok(vec![plain]);
    }
    Ok(vec![plain, Principal::new(ENTERPRISE, [text], realm)])
}

fn plain(name: &str, realm: &str) -> Result<Principal, Error> {
    parse_principal(name, Some(realm)).map_err(|error| catalogue::principal_invalid(name, &error.to_string()))
}

fn right_case(realm: &str, config: &Configuration) -> Result<String, Error> {
    config.realm(realm).map_err(|error| catalogue::principal_invalid(realm, &error.to_string()))
}

/// The principal of a keytab that is meant: the one of that name, else the only one that differs in nothing but case (of the
/// name, as Active Directory does not tell them apart, or of the realm), else, when nobody is named, the only one there is. The
/// realm comes in its right case.
pub(super) fn of_keytab(
    text: &str,
    realm: Option<&str>,
    keytab: &Keytab,
    config: &Configuration,
) -> Result<Principal, Error> {
    let found = held(text, realm, keytab)?;
    let realm = right_case(&found.realm, config)?;
    Ok(Principal::new(found.name_type, found.components, realm))
}

fn held(text: &str, realm: Option<&str>, keytab: &Keytab) -> Result<Principal, Error> {
    let held = keytab.principals();
    let none = || catalogue::keytab_principal(text, &held);
    let name =
        |principal: &str| keytab.entries().iter().find(|entry| entry.principal == principal).map(|entry| entry.name());
    let realm = realm.filter(|realm| !realm.is_empty());
    let wanted = match realm {
        Some(realm) if !text.contains('@') && !text.is_empty() => format!("{text}@{realm}"),
        _ => text.to_owned(),
    };
    if let Some(found) = name(&wanted) {
        return Ok(found);
    }
    let lower = wanted.to_lowercase();
    let mut like = held.iter().filter(|principal| {
        let principal = principal.to_lowercase();
        if lower.is_empty() {
            return realm.is_none_or(|realm| principal.ends_with(&format!("@{}", realm.to_lowercase())));
        }
        principal == lower
            || (!lower.contains('@') && principal.rsplit_once('@').is_some_and(|(name, _)| name == lower))
    });
    match (like.next(), like.next()) {
        (Some(only), None) => name(only).ok_or_else(none),
        _ => Err(none()),
    }
}

/// The principal of a service. With no realm that anybody knows, the empty one: the KDC says where the host lives.
pub(super) fn of_service(service: &Service, config: &Configuration) -> Result<Principal, Error> {
    let host = service.host.trim_end_matches('.').to_lowercase();
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err(catalogue::ip_address(&host));
    }
    let bad = |text: &str| {
        text.is_empty()
            || text.len() > 255
            || text.contains(|c: char| c.is_whitespace() || c.is_control() || "/@\\".contains(c))
    };
    if bad(&host) || bad(&service.service) {
        return Err(catalogue::service_invalid(&service.to_string()));
    }
    let realm = match service.realm.as_deref().filter(|realm| !realm.is_empty()) {
        Some(realm) => right_case(realm, config)?,
        None => config.host_realm(&host).unwrap_or_default(),
    };
    Ok(Principal::new(SERVICE_HOST, [service.service.as_str(), &host], realm))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Configuration {
        Configuration::parse(text, Path::new("krb5.conf")).unwrap()
    }

    fn shown(names: Result<Vec<Principal>, Error>) -> Vec<String> {
        names.unwrap().iter().map(|name| format!("{} {name}", name.name_type)).collect()
    }

    const CORP: &str = "[libdefaults]\n default_realm = CORP.EXAMPLE\n dns_lookup_kdc = false\n\
                        [realms]\n CORP.EXAMPLE = {\n kdc = dc1\n }\n EMEA.EXAMPLE = {\n kdc = dc2\n }\n\
                        [domain_realm]\n .emea.example = EMEA.EXAMPLE\n";

    #[test]
    fn users_by_logon_name_and_by_user_principal_name() {
        let corp = config(CORP);
        let of = |text, realm| shown(of_user(text, realm, &corp));
        assert_eq!(of("alice", None), ["1 alice@CORP.EXAMPLE"]);
        assert_eq!(of("alice", Some("emea.example")), ["1 alice@EMEA.EXAMPLE"]);
        assert_eq!(of("HTTP/web1@CORP.EXAMPLE", None), ["1 HTTP/web1@CORP.EXAMPLE"]);
        assert_eq!(of("alice@corp.example", None), ["1 alice@CORP.EXAMPLE", "10 alice@corp.example@CORP.EXAMPLE"]);
        assert_eq!(
            of("alice@emea.example", None),
            ["1 alice@EMEA.EXAMPLE", "10 alice@emea.example@EMEA.EXAMPLE", "10 alice@emea.example@CORP.EXAMPLE"]
        );
        // A suffix that is no realm, or not the one that is given.
        assert_eq!(of("alice@mail.example", None), ["10 alice@mail.example@CORP.EXAMPLE"]);
        assert_eq!(of("alice@mail.example", Some("EMEA.EXAMPLE")), ["10 alice@mail.example@EMEA.EXAMPLE"]);
        assert_eq!(of("a@b@mail.example", None), ["10 a@b@mail.example@CORP.EXAMPLE"]);
        assert_eq!(of("alice@CORP.EXAMPLE", Some("corp.example")).len(), 2);
        // Without a default realm the suffix is all there is.
        let bare = config("[libdefaults]\n dns_lookup_kdc = true\n");
        assert_eq!(shown(of_user("alice@x.example", None, &bare)).len(), 2);
        assert_eq!(of_user("alice", None, &bare).unwrap_err().code(), "kerberos.realm_unknown");
        for bad in ["", "@", "alice@", "@CORP.EXAMPLE", "CORP\\alice", "a//b"] {
            assert_eq!(of_user(bad, None, &corp).unwrap_err().code(), "kerberos.principal_invalid", "{bad}");
        }
    }

    #[test]
    fn services_by_the_name_of_their_host() {
        let corp = config(CORP);
        let of = |service: &str, host: &str| of_service(&Service::new(service, host), &corp);
        assert_eq!(of("HTTP", "Web1.EMEA.example.").unwrap().to_string(), "HTTP/web1.emea.example@EMEA.EXAMPLE");
        // The KDC says where it lives.
        assert_eq!(of("WSMAN", "web1.corp.example").unwrap().to_string(), "WSMAN/web1.corp.example@");
        let given = Service { realm: Some("corp.example".to_owned()), ..Service::new("HTTP", "web1") };
        assert_eq!(of_service(&given, &corp).unwrap().to_string(), "HTTP/web1@CORP.EXAMPLE");
        for address in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]", "::ffff:192.0.2.1"] {
            assert_eq!(of("HTTP", address).unwrap_err().code(), "kerberos.ip_address", "{address}");
        }
        for (service, host) in [("HTTP", ""), ("", "web1"), ("HTTP", "a/b"), ("HTTP", "a b"), ("H@", "web1")] {
            assert_eq!(of(service, host).unwrap_err().code(), "kerberos.service_invalid", "{service} {host}");
        }
    }
}
