//! Settings of the OpenID Connect issuer: where AWS finds it, and where else than to AWS its tokens may go.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use lictor_settings::{Form, Reader};

/// The control plane as OpenID Connect issuer, for secret managers that AWS is to trust without stored credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Oidc {
    /// URL of the issuer, as AWS knows it; without it no tokens are issued. Under it, an ingress must publish
    /// `/.well-known/openid-configuration` and `/.well-known/jwks.json` of `http_listen`, and nothing else of that. Example:
    /// `https://lictor.corp.example`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub issuer: Option<IssuerUrl>,
    /// Endpoints other than AWS's own that secret managers with OpenID Connect may name, such as interface endpoints of a VPC: to these
    /// alone go tokens, and calls of the control plane itself. Example: `https://vpce-1.sts.eu-central-1.vpce.amazonaws.com`.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub endpoints: Vec<Endpoint>,
}

/// The URL of an issuer: `https`, a DNS name, no port, perhaps a path.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuerUrl {
    text: String,
    /// Where in the text the path begins.
    path: usize,
}

/// A URL that requests go to in place of AWS's own.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Oidc {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let issuer = reader.optional("oidc.issuer", ISSUER_FORM, IssuerUrl::parse);
        let endpoints = reader.list("oidc.endpoints", MAX_ENDPOINTS, ENDPOINT_FORM, Endpoint::parse);
        Self { issuer, endpoints }
    }
}

impl IssuerUrl {
    /// Reads one, with the limits that AWS has for identity providers.
    ///
    /// # Errors
    /// In words, behind the name of the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest =
            text.strip_prefix("https://").ok_or("must begin with https://, as AWS wants it of identity providers")?;
        if text.len() > MAX_ISSUER {
            return Err(format!("has more than {MAX_ISSUER} characters, the most that AWS takes"));
        }
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if host.contains(':') {
            return Err("has a port, which AWS does not take: an identity provider is asked on port 443".into());
        }
        let lower = !host.bytes().any(|b| b.is_ascii_uppercase());
        if !crate::validate::is_host(host) || host.parse::<IpAddr>().is_ok() || host.ends_with('.') || !lower {
            return Err("must have a DNS name in lower case behind https://".into());
        }
        let segment = |segment: &str| {
            !segment.is_empty()
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
                && segment.bytes().any(|b| b != b'.')
        };
        if !path.is_empty() && !path[1..].split('/').all(segment) {
            return Err(
                "must have a path of letters, digits, `-`, `_`, `.` and `~` or none, no slash at its end, and no query"
                    .into(),
            );
        }
        Ok(Self { text: text.to_owned(), path: text.len() - path.len() })
    }

    /// The whole of it, as it stands in tokens.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path, without a slash at its end; empty when there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.path..).unwrap_or_default()
    }
}

impl Endpoint {
    /// Reads one.
    ///
    /// # Errors
    /// In words, behind the name of the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        let normal = normal(text);
        let secure = normal.strip_prefix("https://");
        let authority = secure.or_else(|| normal.strip_prefix("http://"));
        let (host, port) = authority.and_then(split_port).ok_or_else(|| ENDPOINT_WORDS.to_owned())?;
        let valid = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
            None => crate::validate::is_host(host) && host.parse::<Ipv6Addr>().is_err(),
        };
        if !valid || port.is_some_and(|port| port.parse::<u16>().ok().filter(|port| *port > 0).is_none()) {
            return Err(ENDPOINT_WORDS.into());
        }
        if secure.is_none() && !is_loopback(host) {
            return Err("must be https, except on this machine".into());
        }
        Ok(Self(normal))
    }

    /// Whether a secret manager names just this one. Case and a slash at the end do not count.
    #[must_use]
    pub fn is(&self, named: &str) -> bool {
        self.0 == normal(named)
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn normal(text: &str) -> String {
    text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase()
}

/// Host and port of an authority.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    match rest {
        "" => Some((host, None)),
        _ => Some((host, Some(rest.strip_prefix(':')?))),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What IAM takes as the URL of an identity provider.
const MAX_ISSUER: usize = 255;
const MAX_ENDPOINTS: usize = 32;
const ISSUER_FORM: Form = Form::Written {
    pattern: "^https://[0-9a-z._-]+(/[0-9A-Za-z._~-]+)*$",
    words: "`https://host`, `https://host/path`",
    example: "https://lictor.corp.example",
};
const ENDPOINT_FORM: Form = Form::Written {
    pattern: "^[Hh][Tt][Tt][Pp][Ss]?://[0-9A-Za-z._:\\[\\]-]+/?$",
    words: "`https://host`, `https://host:port`",
    example: "https://vpce-1.sts.eu-central-1.vpce.amazonaws.com",
};
const ENDPOINT_WORDS: &str = "must be https://host or https://host:port";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_what_aws_takes_as_an_identity_provider() {
        for (text, path) in [
            ("https://lictor.corp.example", ""),
            ("https://lictor.corp.example/oidc", "/oidc"),
            ("https://a/b/c~d._-", "/b/c~d._-"),
        ] {
            let issuer = IssuerUrl::parse(text).unwrap();
            assert_eq!((issuer.as_str(), issuer.path()), (text, path));
        }
        for text in [
            "",
            "https://",
            "https:///oidc",
            "http://lictor.corp.example",
            "HTTPS://lictor.corp.example",
            "https://lictor.corp.example/",
            "https://lictor.corp.example/oidc/",
            "https://lictor.corp.example:443",
            "https://lictor.corp.example.",
            "https://Lictor.corp.example",
            "https://10.0.0.1",
            "https://[::1]",
            "https://user@lictor.corp.example",
            "https://lictor.corp.example?x=1",
            "https://lictor.corp.example/a?x=1",
            "https://lictor.corp.example/a#b",
            "https://lictor.corp.example//a",
            "https://lictor.corp.example/../a",
            "https://lictor.corp.example/./a",
            "https://lictor.corp.example/%61",
            "https://lictor.corp.example/{a}",
            "https://lictor.corp.example/a b",
            "https://lictor.corp.example/ä",
        ] {
            assert!(IssuerUrl::parse(text).is_err(), "{text}");
        }
        let long = |length: usize| format!("https://a/{}", "x".repeat(length - "https://a/".len()));
        assert!(IssuerUrl::parse(&long(MAX_ISSUER)).is_ok());
        assert!(IssuerUrl::parse(&long(MAX_ISSUER + 1)).is_err());
    }

    #[test]
    fn an_endpoint_is_one_authority_and_is_compared_as_a_whole() {
        for text in [
            "https://kms.example",
            "https://KMS.example:8443/",
            "http://127.0.0.1:5000",
            "http://localhost:1",
            "http://[::1]:5000",
        ] {
            assert!(Endpoint::parse(text).unwrap().is(text), "{text}");
        }
        for text in [
            "",
            "kms.example",
            "ftp://kms.example",
            "http://kms.example",
            "http://127.0.0.1.kms.example",
            "https://kms.example/path",
            "https://kms.example//",
            "https://kms.example:0",
            "https://kms.example:65536",
            "https://kms.example:",
            "https://user@kms.example",
            "https://kms.example?x",
            "https://[::1",
            "https://::1",
            "https://[kms.example]",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
        let endpoint = Endpoint::parse("https://kms.example").unwrap();
        assert!(endpoint.is("https://KMS.example/"));
        for other in [
            "https://kms.example:8443",
            "https://kms.example.evil.example",
            "http://kms.example",
            "https://kms.example/x",
        ] {
            assert!(!endpoint.is(other), "{other}");
        }
    }
}
