//! What a host tells of its own safety: configuration and listeners, security descriptors, the answer of the script.

use lictor_doctor::posture::answer::{self, MAX_OUTPUT};
use lictor_doctor::posture::sddl::{self, Entry};
use lictor_winrm::soap::{Writer, uri};
use lictor_winrm::wsman::{Response, parse};

/// Any bytes inside a `cfg:Config`, inside a `cfg:Listener`, and as the value of settings.
///
/// - What is told is short, on one line and steers no terminal; lists are bounded.
/// - A value comes back as it was written, but for white space and control characters; a boolean or a number of another
///   form is unknown, never false or zero.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = format!("<c:Config xmlns:c=\"{}\">{text}</c:Config>", uri::CONFIG);
    if let Ok(Response::Configured(config)) = parse(envelope(&config).as_bytes(), None) {
        let client = &config.client;
        let service = &config.service;
        let texts = [
            &client.url_prefix,
            &client.trusted_hosts,
            &service.root_sddl,
            &service.ipv4_filter,
            &service.ipv6_filter,
            &service.certificate_thumbprint,
        ];
        texts.into_iter().flatten().for_each(|setting| told(&setting.value));
    }
    let listed = format!(
        "<n:EnumerateResponse xmlns:n=\"{}\"><w:Items><c:Listener xmlns:c=\"{}\">{text}</c:Listener></w:Items></n:EnumerateResponse>",
        uri::ENUMERATION,
        uri::CONFIG
    );
    if let Ok(Response::Listed(listed)) = parse(envelope(&listed).as_bytes(), None) {
        for listener in &listed.listeners {
            let texts = [
                &listener.source,
                &listener.address,
                &listener.transport,
                &listener.hostname,
                &listener.url_prefix,
                &listener.certificate_thumbprint,
            ];
            texts.into_iter().flatten().chain(&listener.listening_on).for_each(|text| told(text));
            assert!(listener.listening_on.len() <= 1024, "{} addresses", listener.listening_on.len());
        }
    }
    value(text);
}

fn told(text: &str) {
    assert!(text.len() <= 3 * 64 * 1024, "a value of {} bytes", text.len());
    assert!(!text.contains(char::is_control), "a control character in {text:?}");
}

/// One text as the value of three settings.
fn value(text: &str) {
    let mut writer = Writer::with_capacity(text.len() * 3);
    writer.plain(format_args!("<c:Config xmlns:c=\"{}\"><c:Service>", uri::CONFIG));
    for name in ["IPv4Filter", "AllowUnencrypted", "MaxConnections"] {
        writer.plain(format_args!("<c:{name}>"));
        if writer.value("a value", text).is_err() {
            return;
        }
        writer.plain(format_args!("</c:{name}>"));
    }
    writer.markup("</c:Service></c:Config>");
    let Ok(body) = String::from_utf8(writer.finish()) else { return };
    let Ok(Response::Configured(config)) = parse(envelope(&body).as_bytes(), None) else { return };
    // Longer ones are unknown.
    if text.len() > 64 * 1024 {
        return;
    }
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let service = &config.service;
    let expected = words.replace(char::is_control, "\u{fffd}");
    assert_eq!(service.ipv4_filter.as_ref().map(|setting| setting.value.as_str()), Some(expected.as_str()));
    let truth = match words.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    };
    assert_eq!(service.allow_unencrypted.as_ref().map(|setting| setting.value), truth, "{text:?}");
    let number = words.parse::<u64>().ok();
    assert_eq!(service.max_connections.as_ref().map(|setting| setting.value), number, "{text:?}");
}

/// Any text as a security descriptor.
///
/// - Entries and names are bounded.
/// - White space around it changes nothing; cut off within its last entry it is refused.
/// - One more entry is one more entry, of just that trustee.
pub fn sddl(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(read) = sddl::parse(text) else { return };
    let entries = read.access.iter().flatten().chain(read.audited.iter().flatten());
    let count = entries.clone().count();
    assert!(count <= text.len() / 8, "{count} entries in {} bytes", text.len());
    for entry in entries {
        named(entry);
    }
    assert_eq!(sddl::parse(&format!(" \r\n{text}\t ")).as_ref(), Ok(&read));
    if let Some(without_end) = text.trim_end().strip_suffix(')') {
        assert!(sddl::parse(without_end).is_err(), "half an entry was taken");
    }
    if let (Some(access), None) = (&read.access, &read.audited)
        && text.trim_end().ends_with(')')
        && text.len() < 100_000
        && access.len() < 1000
    {
        // Only a list ends like this, and there is no other one.
        let more = sddl::parse(&format!("{}(A;;GX;;;RM)", text.trim_end()));
        let longer = more.ok().and_then(|more| more.access).unwrap_or_default();
        assert_eq!(longer.len(), access.len() + 1);
        assert_eq!(longer.last().map(|entry| entry.trustee.as_str()), Some("S-1-5-32-580"));
    }
}

fn named(entry: &Entry) {
    let shown = entry.trustee.to_string();
    assert!(
        !shown.is_empty() && shown.len() < 300 && shown.is_ascii() && !shown.contains(char::is_control),
        "{shown:?}"
    );
    assert!(entry.rights().is_empty() == (entry.mask == 0));
}

/// Any bytes as the script's standard output.
///
/// - Nothing larger than the bound is taken; texts are short, on one line, and steer no terminal; lists are bounded.
/// - Lines of others before and after it change nothing.
pub fn posture_script(data: &[u8]) {
    let Ok(answer) = answer::parse(data) else { return };
    assert!(data.len() <= MAX_OUTPUT);
    let short = |text: &str| {
        assert!(text.chars().count() <= 400 && !text.contains(char::is_control), "{text:?}");
    };
    for why in [
        answer.firewall.as_ref().err(),
        answer.script_block_logging.as_ref().err(),
        answer.security_log.as_ref().err(),
        answer.winrm_log.as_ref().err(),
        answer.powershell_log.as_ref().err(),
        answer.session_configurations.as_ref().err(),
    ] {
        why.into_iter().for_each(|why| short(why));
    }
    if let Ok(firewall) = &answer.firewall {
        assert!(firewall.rules.len() <= 500 && firewall.profiles.len() <= 500);
        for rule in &firewall.rules {
            [&rule.name, &rule.profile].into_iter().chain(&rule.remote).for_each(|text| short(text));
        }
    }
    for configuration in answer.session_configurations.iter().flatten() {
        short(&configuration.name);
        assert!(!configuration.sddl.contains(char::is_control));
    }
    if !data.contains(&0) && data.len() < MAX_OUTPUT / 2 {
        let noisy = [b"hello\r\n".as_slice(), data, b"\r\nbye\r\n"].concat();
        assert_eq!(answer::parse(&noisy), Ok(answer));
    }
}

fn envelope(body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"{}\" xmlns:w=\"{}\"><s:Header/><s:Body>{body}</s:Body></s:Envelope>",
        uri::SOAP,
        uri::WSMAN
    )
}
