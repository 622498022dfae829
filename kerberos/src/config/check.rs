//! What a profile means for a client, what in it is a mistake, and what probably means something else than its author thinks.
//!
//! A mistake is what makes a setting that clients need unusable. Everything else that is odd is a warning: real files are full
//! of settings for other programs and of what newer versions know.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use krb5::config::{parse_duration, parse_enctype_list};

use super::profile::{Node, Place, Profile, Remarks, Value, relations, subsection};

/// One KDC as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kdc {
    /// A name or an address; of IPv6 without brackets.
    pub host: String,
    /// The port, 88 unless another one is written.
    pub port: u16,
    /// Written as `tcp/host`: never asked over UDP.
    pub tcp_only: bool,
}

impl Kdc {
    /// As `host:port`.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The KDCs of each realm that `[realms]` has an entry for, those that cannot be asked left out.
pub(super) type Kdcs = BTreeMap<String, Vec<Kdc>>;

/// Looks at everything, writes names of realms in the case that `[realms]` has, and the KDCs in a form that the `krb5` crate reads.
pub(super) fn check(profile: &mut Profile, remarks: &mut Remarks) -> Kdcs {
    for section in &profile.root {
        check_section(section, remarks);
    }
    let libdefaults = profile.section("libdefaults");
    check_libdefaults(libdefaults, remarks);
    let dns = relations(libdefaults, "dns_lookup_kdc")
        .chain(relations(libdefaults, "dns_fallback"))
        .next()
        .is_none_or(|(value, _)| boolean(value) != Some(false));
    let realms: Vec<String> = profile.section("realms").iter().map(|node| node.name.clone()).collect();
    let mut kdcs = Kdcs::new();
    for section in &mut profile.root {
        let Value::Section(nodes) = &mut section.value else { continue };
        match section.name.as_str() {
            "libdefaults" => {
                for node in nodes.iter_mut().filter(|node| node.name == "default_realm") {
                    check_realm_value(node, &realms, remarks);
                }
            }
            "realms" => {
                for node in nodes {
                    if let Some(found) = check_realm(node, dns, remarks) {
                        kdcs.insert(node.name.clone(), found);
                    }
                }
            }
            "domain_realm" => {
                for node in nodes {
                    check_domain(node, remarks);
                    check_realm_value(node, &realms, remarks);
                }
            }
            _ => {}
        }
    }
    check_twins(profile.section("realms"), remarks);
    check_default_realm(profile.section("libdefaults"), &kdcs, dns, remarks);
    kdcs
}

/// A yes or a no in the words that MIT's library has for them.
pub(super) fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "y" | "yes" | "true" | "t" | "1" | "on" => Some(true),
        "n" | "no" | "false" | "nil" | "f" | "0" | "off" => Some(false),
        _ => None,
    }
}

/// The one of `known` that is `name` in another case; `Err` when there are several.
pub(super) fn in_other_case<'a>(name: &str, known: &'a [String]) -> Result<Option<&'a str>, Vec<String>> {
    if let Some(same) = known.iter().find(|known| *known == name) {
        return Ok(Some(same));
    }
    let mut alike = known.iter().filter(|known| known.eq_ignore_ascii_case(name));
    match (alike.next(), alike.next()) {
        (first, None) => Ok(first.map(String::as_str)),
        _ => Err(known.iter().filter(|known| known.eq_ignore_ascii_case(name)).cloned().collect()),
    }
}

/// Whether this can be the name of a realm at all.
pub(super) fn is_realm(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || "/@:{}".contains(c))
}

fn check_section(section: &Node, remarks: &mut Remarks) {
    if !SECTIONS.contains(&section.name.as_str()) {
        let hint = suggestion(&section.name, SECTIONS);
        remarks.warning(&section.place, format!("the section [{}] is not known{hint}", section.name));
    }
}

fn check_libdefaults(nodes: &[Node], remarks: &mut Remarks) {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for node in nodes {
        // A subsection holds settings of one realm or program.
        let Value::Relation(value) = &node.value else { continue };
        let name = node.name.as_str();
        if !LIBDEFAULTS.contains(&name) && !name.starts_with("pkinit_") {
            let hint = suggestion(name, LIBDEFAULTS);
            remarks.warning(&node.place, format!("[libdefaults] {name} is not known{hint}"));
        }
        if seen.insert(name, &node.place).is_some() {
            remarks.warning(&node.place, format!("[libdefaults] {name} was set before; the first value counts"));
            continue;
        }
        check_libdefault(name, value, &node.place, remarks);
    }
}

fn check_libdefault(name: &str, value: &str, place: &Place, remarks: &mut Remarks) {
    let at = format!("[libdefaults] {name} = {value:?}");
    match name {
        "ticket_lifetime" | "renew_lifetime" => match parse_duration(value) {
            Some(seconds) if seconds >= 0 => {}
            _ => remarks.mistake(place, format!("{at} is no duration, such as 10h, 1d2h30m or 36000")),
        },
        "udp_preference_limit" if value.parse::<i32>().is_err() => {
            remarks.mistake(place, format!("{at} is no number"));
        }
        "clockskew" | "kdc_timeout" | "max_retries" | "kdc_timesync"
            if value.parse::<i32>().is_err() && parse_duration(value).is_none() =>
        {
            remarks.warning(place, format!("{at} is no number and does not count"));
        }
        "default_tkt_enctypes" | "default_tgs_enctypes" | "permitted_enctypes" => {
            let known = parse_enctype_list(value);
            if known.is_empty() {
                remarks.mistake(place, format!("{at} names no known encryption type"));
            } else if !known.iter().any(|enctype| (17..=20).contains(enctype)) {
                remarks
                    .mistake(place, format!("{at} leaves no AES encryption type, and none of the others is supported"));
            }
        }
        "dns_canonicalize_hostname" if value.eq_ignore_ascii_case("fallback") => {}
        _ if BOOLEANS.contains(&name) && boolean(value).is_none() => {
            remarks.warning(place, format!("{at} is neither true nor false and is taken for false"));
        }
        _ => {}
    }
}

/// The value of `default_realm` or of a relation of `[domain_realm]`: a realm.
fn check_realm_value(node: &mut Node, realms: &[String], remarks: &mut Remarks) {
    let place = &node.place;
    let Value::Relation(value) = &mut node.value else {
        return remarks.mistake(place, format!("{} is a realm, not a section", node.name));
    };
    if !is_realm(value) {
        return remarks.mistake(place, format!("{value:?} is no name of a realm{}", comment_hint(value)));
    }
    match in_other_case(value, realms) {
        Ok(Some(known)) if known == value => {}
        Ok(Some(known)) => {
            remarks.warning(
                place,
                format!("the realm {value} is taken for {known}, which [realms] has; realms are case-sensitive"),
            );
            *value = known.to_owned();
        }
        Ok(None) => {
            if value.chars().any(|character| character.is_ascii_lowercase()) {
                let upper = value.to_ascii_uppercase();
                remarks.warning(
                    place,
                    format!("realms are case-sensitive, and those of Active Directory upper case: {upper}?"),
                );
            }
        }
        Err(alike) => {
            remarks.mistake(
                place,
                format!("{value} can be any of the realms {}; write it as one of them", alike.join(", ")),
            );
        }
    }
}

fn check_domain(node: &Node, remarks: &mut Remarks) {
    let name = &node.name;
    if name.chars().any(|character| character.is_ascii_uppercase()) {
        let lower = name.to_ascii_lowercase();
        remarks.warning(
            &node.place,
            format!("[domain_realm] {name} matches nothing, because hosts are lower case; write {lower}"),
        );
    }
}

/// The KDCs of a realm; nothing when this is no realm.
fn check_realm(node: &mut Node, dns: bool, remarks: &mut Remarks) -> Option<Vec<Kdc>> {
    let place = node.place.clone();
    let realm = node.name.clone();
    let Value::Section(children) = &mut node.value else {
        remarks.mistake(
            &place,
            format!("[realms] {realm} must be a section: `{realm} = {{`, then its relations, then `}}`"),
        );
        return None;
    };
    if !is_realm(&realm) {
        remarks.mistake(&place, format!("[realms] {realm:?} is no name of a realm"));
    }
    let mut kdcs = Vec::new();
    let mut listed = false;
    for child in children.iter_mut() {
        let at = format!("[realms] {realm} {}", child.name);
        let Value::Relation(value) = &mut child.value else {
            if !REALM_SECTIONS.contains(&child.name.as_str()) {
                remarks.warning(&child.place, format!("{at} is not known as a section"));
            }
            continue;
        };
        match child.name.as_str() {
            "kdc" => {
                listed = true;
                match server(&at, value, 88, &child.place, remarks) {
                    Server::Usable(kdc) => {
                        // The crate would take `tcp` for the name of the host, and knows no port before a blank.
                        if value.contains([' ', '\t', '/']) {
                            *value = kdc.address();
                        }
                        kdcs.push(kdc);
                    }
                    Server::Unusable | Server::Wrong => {}
                }
            }
            "admin_server" | "kpasswd_server" | "primary_kdc" | "master_kdc" => {
                server(&at, value, 88, &child.place, remarks);
            }
            name if REALM.contains(&name) || name.starts_with("pkinit_") || name.starts_with("iprop_") => {}
            name => {
                let hint = suggestion(name, REALM);
                remarks.warning(&child.place, format!("{at} is not known{hint}"));
            }
        }
    }
    if kdcs.is_empty() && listed {
        remarks.warning(&place, format!("no KDC of the realm {realm} can be asked"));
    } else if !kdcs.is_empty() {
        // The crate would take `http/host` for the name of a host.
        children.retain(
            |child| !matches!(&child.value, Value::Relation(value) if child.name == "kdc" && is_unusable(value)),
        );
    } else if !dns {
        remarks.warning(
            &place,
            format!("the realm {realm} has no kdc, and dns_lookup_kdc is off: nothing finds its KDCs"),
        );
    }
    Some(kdcs)
}

enum Server {
    Usable(Kdc),
    /// Right, but nothing we can talk to.
    Unusable,
    Wrong,
}

/// `host`, `host:port` or `[address]:port`, as MIT's library reads it: up to the first blank.
fn server(at: &str, value: &str, port: u16, place: &Place, remarks: &mut Remarks) -> Server {
    if is_unusable(value) {
        let text = format!("{at} = {value:?} is not supported (a KDC over HTTPS or a local socket) and left out");
        remarks.warning(place, text);
        return Server::Unusable;
    }
    let (transport, entry) = match value.split_once('/') {
        Some((transport @ ("tcp" | "udp"), rest)) => {
            let text = format!(
                "{at} = {value:?}: MIT's tools do not know `{transport}/`; they need udp_preference_limit = 1 for TCP"
            );
            remarks.warning(place, text);
            (Some(transport), rest)
        }
        _ => (None, value),
    };
    let entry = match entry.split_once([' ', '\t']) {
        Some((first, rest)) => {
            remarks.warning(place, format!("{at}: {:?} has no effect{}", rest.trim(), comment_hint(value)));
            first
        }
        None => entry,
    };
    match host_and_port(entry) {
        Ok((host, found)) => {
            Server::Usable(Kdc { host, port: found.unwrap_or(port), tcp_only: transport == Some("tcp") })
        }
        Err(why) => {
            remarks.mistake(place, format!("{at} = {value:?} is no host: {why}"));
            Server::Wrong
        }
    }
}

/// A KDC behind a proxy for HTTPS, or on a local socket, in the words of MIT's library and of Heimdal.
fn is_unusable(value: &str) -> bool {
    ["https://", "http://", "http/", "/"].iter().any(|begin| value.starts_with(begin))
}

fn host_and_port(entry: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = if let Some(rest) = entry.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("a `]` is missing")?;
        host.parse::<Ipv6Addr>().map_err(|_| "what stands in brackets is no IPv6 address")?;
        match after {
            "" => (host, None),
            after => (host, Some(after.strip_prefix(':').ok_or("what follows the `]` is no port")?)),
        }
    } else if entry.parse::<Ipv6Addr>().is_ok() {
        return Err("an IPv6 address stands in brackets: [address]:port");
    } else {
        match entry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (entry, None),
        }
    };
    if host.is_empty() {
        return Err("the name is missing");
    }
    if host.contains(',') {
        return Err("each host has a relation of its own");
    }
    if host.len() > 255 {
        return Err("the name is too long");
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || !byte.is_ascii();
    if host.parse::<IpAddr>().is_err() && !host.bytes().all(known) {
        return Err("names of hosts hold letters, digits, dots and dashes");
    }
    if host.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("this is only a number");
    }
    let port = match port {
        None => None,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(text.parse().ok().filter(|port| *port != 0).ok_or("the port is not between 1 and 65535")?)
        }
        Some(_) => return Err("the port is no number"),
    };
    Ok((host.to_owned(), port))
}

/// Realms that differ in nothing but case: a lower-case name can then mean any of them.
fn check_twins(realms: &[Node], remarks: &mut Remarks) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for node in realms {
        if let Some(first) = seen.insert(node.name.to_ascii_uppercase(), &node.name)
            && first != node.name
        {
            remarks.warning(&node.place, format!("the realms {first} and {} differ in nothing but case", node.name));
        }
    }
}

fn check_default_realm(libdefaults: &[Node], kdcs: &Kdcs, dns: bool, remarks: &mut Remarks) {
    if let Some((realm, place)) = relations(libdefaults, "default_realm").next()
        && !dns
        && !kdcs.contains_key(realm)
    {
        let text = format!("the realm {realm} is not in [realms], and dns_lookup_kdc is off: nothing finds its KDCs");
        remarks.warning(place, text);
    }
}

fn comment_hint(value: &str) -> &'static str {
    if value.contains([' ', '\t']) && value.contains(['#', ';']) {
        "; a comment must stand on a line of its own"
    } else {
        ""
    }
}

/// `; did you mean …?` when a known name is near.
fn suggestion(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|candidate| (distance(name, candidate), candidate)).min();
    match nearest {
        Some((distance, candidate)) if distance <= 2 && name.len() >= 3 => format!("; did you mean {candidate}?"),
        _ => String::new(),
    }
}

/// How many letters have to be changed, added or removed, as far as that matters.
fn distance(left: &str, right: &str) -> usize {
    if left.len().abs_diff(right.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, byte) in left.bytes().enumerate() {
        let mut diagonal = index;
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
        for (column, other) in right.bytes().enumerate() {
            let above = row[column + 1];
            let changed = diagonal + usize::from(!byte.eq_ignore_ascii_case(&other));
            row[column + 1] = changed.min(above + 1).min(row[column] + 1);
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// Sections of MIT's client and server, and of Heimdal.
const SECTIONS: &[&str] = &[
    "appdefaults",
    "capaths",
    "dbdefaults",
    "dbmodules",
    "domain_realm",
    "gssapi",
    "hdb",
    "kadmin",
    "kcm",
    "kdc",
    "kdcdefaults",
    "libdefaults",
    "logging",
    "login",
    "otp",
    "password_quality",
    "plugins",
    "realms",
];

/// What `[libdefaults]` holds, with MIT's library of old and new versions and Heimdal's. `pkinit_` has many more.
const LIBDEFAULTS: &[&str] = &[
    "allow_des3",
    "allow_rc4",
    "allow_weak_crypto",
    "ap_req_checksum_type",
    "canonicalize",
    "ccache_type",
    "check_pac",
    "clockskew",
    "client_aware_channel_bindings",
    "date_format",
    "default_cc_name",
    "default_cc_type",
    "default_ccache_name",
    "default_client_keytab_name",
    "default_etypes",
    "default_keytab_modify_name",
    "default_keytab_name",
    "default_rcache_name",
    "default_realm",
    "default_tgs_enctypes",
    "default_tkt_enctypes",
    "disable_encrypted_timestamp",
    "dns_canonicalize_hostname",
    "dns_fallback",
    "dns_lookup_kdc",
    "dns_lookup_realm",
    "dns_proxy",
    "dns_uri_lookup",
    "enable_file_cache_iteration",
    "enforce_ok_as_delegate",
    "err_fmt",
    "extra_addresses",
    "fcache_strict_checking",
    "fcc-mit-ticketflags",
    "fcc_mit_ticketflags",
    "forward",
    "forwardable",
    "http_proxy",
    "ignore_acceptor_hostname",
    "k5login_authoritative",
    "k5login_directory",
    "kcm_mach_service",
    "kcm_socket",
    "kdc_default_options",
    "kdc_req_checksum_type",
    "kdc_timeout",
    "kdc_timesync",
    "max_retries",
    "max_skew",
    "noaddresses",
    "no-addresses",
    "permitted_enctypes",
    "plugin_base_dir",
    "preferred_preauth_types",
    "proxiable",
    "qualify_shortname",
    "rdns",
    "realm_try_domains",
    "renew_lifetime",
    "renewable",
    "report_ccselect_no_match",
    "request_timeout",
    "safe_checksum_type",
    "scan_interfaces",
    "spake_preauth_groups",
    "spake_preauth_indicator",
    "spake_preauth_kdc_challenge",
    "srv_lookup",
    "srv_try_txt",
    "supported_enctypes",
    "ticket_lifetime",
    "time_format",
    "transited_realms_reject",
    "udp_preference_limit",
    "use_fallback",
    "verify_ap_req_nofail",
    "warn_pwexpire",
];

const BOOLEANS: &[&str] = &[
    "allow_des3",
    "allow_rc4",
    "allow_weak_crypto",
    "canonicalize",
    "client_aware_channel_bindings",
    "dns_canonicalize_hostname",
    "dns_fallback",
    "dns_lookup_kdc",
    "dns_lookup_realm",
    "dns_uri_lookup",
    "enforce_ok_as_delegate",
    "forwardable",
    "ignore_acceptor_hostname",
    "k5login_authoritative",
    "noaddresses",
    "proxiable",
    "rdns",
    "verify_ap_req_nofail",
];

/// What a realm holds, for clients and for servers.
const REALM: &[&str] = &[
    "acl_file",
    "admin_keytab",
    "admin_server",
    "auth_to_local",
    "database_module",
    "database_name",
    "default_domain",
    "default_principal_expiration",
    "default_principal_flags",
    "dict_file",
    "disable_encrypted_timestamp",
    "disable_pac",
    "encrypted_challenge_indicator",
    "host_based_services",
    "http_anchors",
    "kadmind_listen",
    "kadmind_port",
    "kdc",
    "kdc_listen",
    "kdc_ports",
    "kdc_tcp_listen",
    "kdc_tcp_ports",
    "key_stash_file",
    "kpasswd_listen",
    "kpasswd_port",
    "kpasswd_server",
    "krb524_server",
    "master_kdc",
    "master_key_name",
    "master_key_type",
    "max_life",
    "max_renewable_life",
    "no_host_referral",
    "primary_kdc",
    "reject_bad_transit",
    "restrict_anonymous_to_tgt",
    "sitename",
    "spake_preauth_indicator",
    "supported_enctypes",
    "tgs_require_subkey",
    "v4_realm",
];

const REALM_SECTIONS: &[&str] = &["auth_to_local_names", "v4_instance_convert", "v4_name_convert"];

/// The KDCs that stand in a tree already checked, for a realm that has none that can be asked.
pub(super) fn lists_kdcs(profile: &Profile, realm: &str) -> bool {
    relations(subsection(profile.section("realms"), realm), "kdc").next().is_some()
}
