//! Further texts by which people know a code: what the delegate of Harness, Ansible and the libraries under it print, beside the one
//! that a failure itself carries.

/// A text, and the codes that stand behind it.
const TEXTS: &[(&str, &[&str])] = &[
    (
        "Failure: Invalid keytab file path. Cannot proceed with Ticket Granting Ticket(TGT) generation",
        &["kerberos.keytab_unreadable", "kerberos.keytab_not_permitted"],
    ),
    (
        "Failure: could not generate Ticket Granting Ticket(TGT).",
        &[
            "kerberos.clock_skew",
            "kerberos.kdc_unreachable",
            "kerberos.keytab_rejected",
            "kerberos.no_kdc",
            "kerberos.password_rejected",
            "kerberos.principal_unknown",
        ],
    ),
    ("Please check if provided Principal is correct.", &["kerberos.principal_invalid", "kerberos.principal_unknown"]),
    ("Please check if provided password is correct.", &["kerberos.password_rejected"]),
    ("WinRm credentials validation failed.", &["auth.rejected"]),
    ("Domain or Username/Password is not valid", &["auth.rejected"]),
    ("Following delegate(s) doesn't have Capability to connect", &["no_agent"]),
    ("ntlm: the specified credentials were rejected by the server", &["auth.rejected"]),
    ("basic: the specified credentials were rejected by the server", &["auth.rejected"]),
    (
        "SSLError [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",
        &["tls.expired", "tls.hostname", "tls.untrusted"],
    ),
    ("SSLError [SSL: UNSUPPORTED_PROTOCOL] unsupported protocol", &["tls.protocol"]),
    ("Name or service not known", &["resolve.failed"]),
    ("Temporary failure in name resolution", &["resolve.failed", "resolve.timeout"]),
    ("Connection refused", &["connect.refused"]),
    ("Connection timed out", &["connect.timeout"]),
    ("No route to host", &["connect.unreachable"]),
];

/// The texts of a code.
pub(crate) fn of(code: &str) -> impl Iterator<Item = &'static str> {
    TEXTS.iter().filter(move |(_, codes)| codes.contains(&code)).map(|(text, _)| *text)
}

/// All codes that have one.
pub(crate) fn codes() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().flat_map(|(_, codes)| codes.iter().copied())
}
