//! From what was told to rows. Pure: no host is asked here, and the time comes from outside.

use std::net::IpAddr;

use lictor_winrm::connection::TlsInfo;
use lictor_winrm::target::{Endpoint, Scheme};
use lictor_winrm::wsman::{CbtHardeningLevel, CertificateMapping, Config, Listener, Setting};

use super::answer::{Answer, Log, MOST_RULES, Told};
use super::checks::{self, Check};
use super::filters::{self, Scope};
use super::script::Script;
use super::{Row, Verdict, access};

/// All that is known of a host.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// Where it was talked to.
    pub(super) endpoint: &'a Endpoint,
    /// The TLS session, if there was one.
    pub(super) tls: Option<&'a TlsInfo>,
    pub(super) config: Result<&'a Config, String>,
    pub(super) listeners: Result<&'a [Listener], String>,
    pub(super) mappings: Result<&'a [CertificateMapping], String>,
    pub(super) script: &'a Script,
    /// Now, in seconds since 1970.
    pub(super) now_unix: i64,
}

/// What one check found.
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) found: String,
    /// A group policy sets it, so that the fix is there.
    pub(super) by_policy: bool,
}

impl Finding {
    pub(super) fn pass(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Pass, found: found.into(), by_policy: false }
    }

    pub(super) fn fail(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, found: found.into(), by_policy: false }
    }

    pub(super) fn unknown(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, found: found.into(), by_policy: false }
    }

    fn policy<T>(self, setting: &Setting<T>) -> Self {
        Self { by_policy: self.by_policy || setting.by_policy, ..self }
    }
}

/// A check as a function of the evidence. What could not be asked for comes back as an error.
type Judge = fn(&Evidence<'_>) -> Result<Finding, String>;

/// Every check, in the order of the rows. The last six need the script.
pub(super) const JUDGES: &[(Check, Judge)] = &[
    (checks::HTTPS_ONLY, https_only),
    (checks::CERTIFICATE_TRUSTED, certificate_trusted),
    (checks::CERTIFICATE_EXPIRY, certificate_expiry),
    (checks::CERTIFICATE_BOUND, certificate_bound),
    (checks::LISTENING_ADDRESSES, listening_addresses),
    (checks::IPV4_FILTER, |evidence| Ok(filter(evidence.config.clone()?.service.ipv4_filter.as_ref(), filters::ipv4))),
    (checks::IPV6_FILTER, |evidence| Ok(filter(evidence.config.clone()?.service.ipv6_filter.as_ref(), filters::ipv6))),
    (checks::COMPATIBILITY_LISTENERS, |evidence| {
        let service = &evidence.config.clone()?.service;
        Ok(off(&[
            ("EnableCompatibilityHttpListener", service.compatibility_http_listener.as_ref()),
            ("EnableCompatibilityHttpsListener", service.compatibility_https_listener.as_ref()),
        ]))
    }),
    (checks::BASIC, |evidence| Ok(off(&[("Basic", evidence.config.clone()?.service.auth.basic.as_ref())]))),
    (checks::ALLOW_UNENCRYPTED, |evidence| {
        Ok(off(&[("AllowUnencrypted", evidence.config.clone()?.service.allow_unencrypted.as_ref())]))
    }),
    (checks::CREDSSP, |evidence| Ok(off(&[("CredSSP", evidence.config.clone()?.service.auth.credssp.as_ref())]))),
    (checks::AUTHENTICATION, authentication),
    (checks::CHANNEL_BINDINGS, channel_bindings),
    (checks::CERTIFICATE_MAPPINGS, certificate_mappings),
    (checks::ROOT_SDDL, root_sddl),
    (checks::FIREWALL_SCOPE, firewall_scope),
    (checks::SCRIPT_BLOCK_LOGGING, script_block_logging),
    (checks::LOG_SECURITY, |evidence| Ok(log(told(answer(evidence)?.security_log.as_ref())?, 20))),
    (checks::LOG_WINRM, |evidence| Ok(log(told(answer(evidence)?.winrm_log.as_ref())?, 1))),
    (checks::LOG_POWERSHELL, |evidence| Ok(log(told(answer(evidence)?.powershell_log.as_ref())?, 15))),
    (checks::SESSION_CONFIGURATIONS, session_configurations),
];

/// Every row, in the order of the checks.
pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Row> {
    let row = |(check, judge): &(Check, Judge)| {
        let Finding { verdict, found, by_policy } = judge(evidence).unwrap_or_else(Finding::unknown);
        let fix = match by_policy {
            true => format!("A group policy sets it, so change it there. {}", check.fix),
            false => check.fix.to_owned(),
        };
        Row { check: check.name, verdict, found: clip(&found), wanted: check.wanted.to_owned(), fix }
    };
    JUDGES.iter().map(row).collect()
}

fn https_only(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let plain = evidence.endpoint.scheme() == Scheme::Http;
    let listeners = match &evidence.listeners {
        Ok(listeners) => *listeners,
        // Somebody answered at it.
        Err(_) if plain => return Ok(Finding::fail(format!("HTTP is served at port {}", evidence.endpoint.port()))),
        Err(why) => return Err(why.clone()),
    };
    let of = |transport: &'static str| {
        move |listener: &&Listener| {
            listener.enabled != Some(false)
                && listener.transport.as_ref().is_none_or(|found| found.eq_ignore_ascii_case(transport))
        }
    };
    let certain = |listener: &&Listener| listener.enabled == Some(true) && listener.transport.is_some();
    let http: Vec<&Listener> = listeners.iter().filter(of("HTTP")).collect();
    let https: Vec<&Listener> = listeners.iter().filter(of("HTTPS")).collect();
    let by_policy = http.iter().any(|listener| is_policy(listener.source.as_deref()));
    if let Some(listener) = http.iter().find(|listener| certain(listener)) {
        let found = format!("HTTP is enabled: {}", places(std::slice::from_ref(listener)));
        return Ok(Finding { by_policy, ..Finding::fail(found) });
    }
    if plain {
        let found = format!("HTTP is served at port {}, though no listener says so", evidence.endpoint.port());
        return Ok(Finding::fail(found));
    }
    if !http.is_empty() {
        return Ok(Finding::unknown("the host does not say of every listener whether it is for HTTP and enabled"));
    }
    match https.is_empty() {
        true => Ok(Finding::fail("no HTTPS listener is enabled")),
        false => Ok(Finding::pass(format!("HTTPS alone: {}", places(&https)))),
    }
}

fn places(listeners: &[&Listener]) -> String {
    let place = |listener: &&Listener| {
        let address = listener.address.as_deref().unwrap_or("?");
        match listener.port {
            Some(port) => format!("{address} port {port}"),
            None => address.to_owned(),
        }
    };
    listed(listeners.iter().map(place))
}

fn certificate_trusted(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let tls = tls(evidence)?;
    let certificate = format!("certificate of {}, issued by {}", tls.subject, tls.issuer);
    Ok(match &tls.unchecked {
        _ if tls.self_issued => Finding::fail(format!("{certificate}: self-signed")),
        Some(verdict) if !tls.trusted => Finding::fail(format!("{certificate}: {verdict}")),
        Some(_) => Finding::unknown(format!(
            "{certificate}: its issuer is trusted, but its name was not compared, because the check was to be skipped"
        )),
        None => Finding::pass(format!("{certificate}, trusted and for {}", evidence.endpoint.host())),
    })
}

fn certificate_expiry(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let tls = tls(evidence)?;
    let days = tls.not_after_unix.saturating_sub(evidence.now_unix).div_euclid(24 * 60 * 60);
    Ok(match days {
        ..0 => Finding::fail(format!("it ended at {}", tls.not_after)),
        0..LEAST_DAYS => Finding::fail(format!("it ends in {days} days, at {}", tls.not_after)),
        _ => Finding::pass(format!("valid until {}, {days} days", tls.not_after)),
    })
}

/// Days that a certificate should still be valid for.
const LEAST_DAYS: i64 = 14;

fn certificate_bound(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let tls = tls(evidence)?;
    let listeners = evidence.listeners.clone()?;
    let thumbprints: Vec<String> = listeners
        .iter()
        .filter(|listener| listener.enabled != Some(false))
        .filter_map(|listener| listener.certificate_thumbprint.as_ref())
        .map(|text| text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_uppercase())
        .filter(|thumbprint| !thumbprint.is_empty())
        .collect();
    Ok(match thumbprints.is_empty() {
        true => Finding::unknown("no listener names its certificate"),
        false if thumbprints.contains(&tls.thumbprint) => Finding::pass(format!("thumbprint {}", tls.thumbprint)),
        false => {
            Finding::fail(format!("clients get {}, listeners have {}", tls.thumbprint, listed(thumbprints.into_iter())))
        }
    })
}

fn tls<'a>(evidence: &Evidence<'a>) -> Result<&'a TlsInfo, String> {
    evidence.tls.ok_or_else(|| "the connection came over http, so that no certificate was seen".to_owned())
}

fn listening_addresses(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let listeners: Vec<&Listener> =
        evidence.listeners.clone()?.iter().filter(|listener| listener.enabled != Some(false)).collect();
    let by_policy = listeners.iter().any(|listener| is_policy(listener.source.as_deref()));
    // What it is made for counts, whether it listens at this moment or not.
    let mut addresses = listeners.iter().flat_map(|listener| listener.listening_on.iter().chain(&listener.address));
    if let Some(loopback) = addresses.find(|address| is_loopback(address)) {
        return Ok(Finding { by_policy, ..Finding::fail(format!("listens at the loopback, {loopback}")) });
    }
    if listeners.is_empty() {
        return Ok(Finding::unknown("the host names no enabled listener, though one answers"));
    }
    if listeners.iter().any(|listener| listener.address.is_none()) {
        return Ok(Finding::unknown("the host does not say of every listener where it listens"));
    }
    let all = listeners.iter().any(|listener| listener.address.as_deref() == Some("*"));
    let at = listed(listeners.iter().flat_map(|listener| listener.listening_on.iter().cloned()));
    if !all {
        return Ok(Finding::pass(format!("{}; now {at}", places(&listeners))));
    }
    // The filters are what decides then.
    let service = &evidence.config.clone()?.service;
    let (Some(ipv4), Some(ipv6)) = (&service.ipv4_filter, &service.ipv6_filter) else {
        return Ok(Finding::unknown("a listener is for every address, and the host does not tell its filters"));
    };
    Ok(match (filters::ipv4(&ipv4.value), filters::ipv6(&ipv6.value)) {
        (Scope::All, _) | (_, Scope::All) => {
            Finding { by_policy, ..Finding::fail(format!("a listener is for every address; now {at}")) }
        }
        (Scope::Unreadable, _) | (_, Scope::Unreadable) => {
            Finding::unknown("a listener is for every address, and its filters cannot be read")
        }
        _ => Finding::pass(format!("every address that the filters let through; now {at}")),
    })
}

/// An address may carry the number of its network card, and that of a listener what it is.
fn is_loopback(address: &str) -> bool {
    let address = address.split('%').next().unwrap_or_default().trim();
    let address = match address.split_at_checked(3) {
        Some((kind, address)) if kind.eq_ignore_ascii_case("IP:") => address.trim(),
        _ => address,
    };
    address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

fn filter(setting: Option<&Setting<String>>, scope: fn(&str) -> Scope) -> Finding {
    let Some(setting) = setting else { return Finding::unknown("the host does not tell it") };
    let finding = match scope(&setting.value) {
        Scope::All => Finding::fail(format!("{}: every address", setting.value)),
        Scope::Some(_) => Finding::pass(setting.value.clone()),
        Scope::None => Finding::pass("no address"),
        Scope::Unreadable => Finding::unknown(format!("cannot be read: {}", setting.value)),
    };
    finding.policy(setting)
}

/// Switches that should be off.
fn off(switches: &[(&str, Option<&Setting<bool>>)]) -> Finding {
    let on: Vec<_> = switches.iter().filter(|(_, setting)| setting.is_some_and(|setting| setting.value)).collect();
    if !on.is_empty() {
        let by_policy = on.iter().any(|(_, setting)| setting.is_some_and(|setting| setting.by_policy));
        let found = format!("on: {}", listed(on.iter().map(|(name, _)| (*name).to_owned())));
        return Finding { by_policy, ..Finding::fail(found) };
    }
    if switches.iter().any(|(_, setting)| setting.is_none()) {
        return Finding::unknown("the host does not tell it");
    }
    Finding::pass("off")
}

fn authentication(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let auth = &evidence.config.clone()?.service.auth;
    let is = |setting: &Option<Setting<bool>>| setting.as_ref().map(|setting| setting.value);
    let kinds = [
        ("Kerberos", is(&auth.kerberos)),
        ("Negotiate", is(&auth.negotiate)),
        ("Certificate", is(&auth.certificate)),
        ("Basic", is(&auth.basic)),
        ("CredSSP", is(&auth.credssp)),
    ];
    let on = listed(kinds.iter().filter(|(_, on)| *on == Some(true)).map(|(name, _)| (*name).to_owned()));
    let good = [is(&auth.kerberos), is(&auth.negotiate)];
    Ok(match is(&auth.certificate) {
        Some(true) => {
            let by_policy = auth.certificate.as_ref().is_some_and(|setting| setting.by_policy);
            Finding { by_policy, ..Finding::fail(format!("on: {on}")) }
        }
        _ if good == [Some(false), Some(false)] => Finding::fail("neither Kerberos nor Negotiate is on"),
        Some(false) if good.contains(&Some(true)) => Finding::pass(format!("on: {on}")),
        _ => Finding::unknown("the host does not tell all of it"),
    })
}

fn channel_bindings(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let Some(level) = &evidence.config.clone()?.service.auth.cbt_hardening_level else {
        return Ok(Finding::unknown("the host does not tell it"));
    };
    let finding = match level.value {
        CbtHardeningLevel::Strict => Finding::pass("Strict"),
        CbtHardeningLevel::Relaxed => {
            Finding::fail("Relaxed: who sends none is served too, so that a logon can be relayed from elsewhere")
        }
        CbtHardeningLevel::None => Finding::fail("None: they are not looked at"),
    };
    Ok(finding.policy(level))
}

fn certificate_mappings(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let mappings = evidence.mappings.clone()?;
    let enabled: Vec<_> = mappings.iter().filter(|mapping| mapping.enabled != Some(false)).collect();
    if let Some(wide) = enabled.iter().find(|mapping| mapping.subject.as_deref() == Some("*")) {
        let user = wide.user_name.as_deref().unwrap_or("an account");
        return Ok(Finding::fail(format!("every certificate of an issuer stands for {user}")));
    }
    if enabled.iter().any(|mapping| mapping.subject.is_none()) {
        return Ok(Finding::unknown("the host does not say of every mapping whom it is for"));
    }
    if enabled.is_empty() {
        return Ok(Finding::pass("none"));
    }
    let pair = |mapping: &&CertificateMapping| {
        let (subject, user) = (mapping.subject.as_deref(), mapping.user_name.as_deref());
        format!("{} for {}", subject.unwrap_or("?"), user.unwrap_or("?"))
    };
    Ok(Finding::pass(listed(enabled.iter().map(pair))))
}

fn root_sddl(evidence: &Evidence<'_>) -> Result<Finding, String> {
    match &evidence.config.clone()?.service.root_sddl {
        None => Ok(Finding::unknown("the host does not tell it")),
        Some(sddl) => Ok(access::judge(&sddl.value).policy(sddl)),
    }
}

/// The script's answer, or why there is none.
fn answer<'a>(evidence: &Evidence<'a>) -> Result<&'a Answer, String> {
    match evidence.script {
        Script::Answered(answer) => Ok(answer),
        Script::Failed(why) => Err(why.clone()),
        Script::LeftOut => Err("only the script can tell, and it was left out".to_owned()),
    }
}

fn told<T>(item: Result<&T, &String>) -> Told<T>
where
    T: Clone,
{
    item.cloned().map_err(Clone::clone)
}

fn firewall_scope(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let firewall = told(answer(evidence)?.firewall.as_ref())?;
    let open = |profile: &&super::answer::Profile| {
        profile.enabled == Some(false) || profile.inbound.eq_ignore_ascii_case("Allow")
    };
    if let Some(profile) = firewall.profiles.iter().find(open) {
        let how = if profile.enabled == Some(false) { "is off" } else { "lets in what no rule forbids" };
        return Ok(Finding::fail(format!("the firewall of the profile {} {how}", profile.name)));
    }
    let any = |address: &String| ANYBODY.iter().any(|any| address.eq_ignore_ascii_case(any));
    let wide: Vec<_> = firewall.rules.iter().filter(|rule| rule.remote.iter().any(any)).collect();
    if !wide.is_empty() {
        let found = listed(wide.iter().map(|rule| format!("{} ({})", rule.name, rule.profile)));
        return Ok(Finding::fail(format!("open to every address: {found}")));
    }
    let closed = |profile: &super::answer::Profile| {
        profile.enabled == Some(true) && profile.inbound.eq_ignore_ascii_case("Block")
    };
    let sure = !firewall.profiles.is_empty() && firewall.profiles.iter().all(closed);
    if !sure || firewall.rules.iter().any(|rule| rule.remote.is_empty()) || firewall.rules.len() >= MOST_RULES {
        return Ok(Finding::unknown("the host does not tell all of it"));
    }
    if firewall.rules.is_empty() {
        let found =
            "no rule of Windows Firewall opens the port, and yet it answers: something else filters, or nothing does";
        return Ok(Finding::unknown(found));
    }
    Ok(Finding::pass(listed(
        firewall.rules.iter().map(|rule| format!("{} for {}", rule.name, listed(rule.remote.iter().cloned()))),
    )))
}

/// How rules write every address.
const ANYBODY: &[&str] = &["Any", "*", "0.0.0.0/0", "0.0.0.0/0.0.0.0", "0.0.0.0-255.255.255.255", "::/0", "Internet"];

fn script_block_logging(evidence: &Evidence<'_>) -> Result<Finding, String> {
    Ok(match answer(evidence)?.script_block_logging.clone()? {
        Some(true) => Finding::pass("on"),
        Some(false) => Finding { by_policy: true, ..Finding::fail("off") },
        // Windows then logs only what looks suspicious to it.
        None => Finding::fail("no policy turns it on"),
    })
}

fn log(log: Log, least_mib: u64) -> Finding {
    const MIB: u64 = 1024 * 1024;
    match log {
        Log { enabled: Some(false), .. } => Finding::fail("it is off"),
        Log { bytes: Some(bytes), .. } if bytes < least_mib * MIB => {
            Finding::fail(format!("it holds {} KiB at most", bytes / 1024))
        }
        Log { enabled: Some(true), bytes: Some(bytes) } => Finding::pass(format!("on, {} MiB", bytes / MIB)),
        Log { .. } => Finding::unknown("the host does not tell all of it"),
    }
}

fn session_configurations(evidence: &Evidence<'_>) -> Result<Finding, String> {
    let configurations = told(answer(evidence)?.session_configurations.as_ref())?;
    let mut judged = Vec::new();
    for configuration in configurations.iter().filter(|configuration| configuration.enabled != Some(false)) {
        let finding = match configuration.sddl.as_str() {
            "" => Finding::unknown("the host does not tell who may use it"),
            sddl => access::judge(sddl),
        };
        judged.push((configuration.name.clone(), finding));
    }
    for verdict in [Verdict::Fail, Verdict::Unknown] {
        let of: Vec<_> = judged.iter().filter(|(_, finding)| finding.verdict == verdict).collect();
        if !of.is_empty() {
            let found = listed(of.iter().map(|(name, finding)| format!("{name}: {}", finding.found)));
            return Ok(Finding { verdict, found, by_policy: false });
        }
    }
    match judged.is_empty() {
        true => Ok(Finding::pass("none can be used")),
        false => {
            Ok(Finding::pass(listed(judged.into_iter().map(|(name, finding)| format!("{name}: {}", finding.found)))))
        }
    }
}

fn is_policy(source: Option<&str>) -> bool {
    source.is_some_and(|source| source.eq_ignore_ascii_case("GPO"))
}

/// The first few of a list.
pub(super) fn listed(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let all: Vec<String> = items.collect();
    let mut text = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN {
        text.push_str(&format!(" and {} more", all.len() - SHOWN));
    }
    text
}

/// A text for people: bounded, on one line.
fn clip(text: &str) -> String {
    const MOST: usize = 1000;
    let text = text.replace(char::is_control, "\u{fffd}");
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests;
