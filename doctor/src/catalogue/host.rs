//! What the looks at the host itself can find: port, TLS, certificate, HTTP, kinds of authentication, the logon, the shell.

use super::Entry;
use crate::check::Check;

/// An entry and its name here; all of them stand in [`ALL`].
macro_rules! entries {
    ($($name:ident = $check:ident $code:literal, $legacy:expr, $cause:literal, $remedy:literal;)*) => {
        $(pub(crate) const $name: Entry =
            Entry { code: $code, stage: Check::$check.as_str(), cause: $cause, remedy: $remedy, legacy: $legacy };)*

        /// All of them, by what is looked at.
        pub(super) const ALL: &[Entry] = &[$($name),*];
    };
}

const UNREACHABLE: Option<&str> = Some("Cannot reach remote host");
const TLS: Option<&str> =
    Some("Error in SSL negotiation. Check if server certificate is correct. You may try with skipCertChecks");
const HTTP: Option<&str> = Some("Cannot establish HTTP/S connection to host");
const AUTH: Option<&str> =
    Some("Authorization Error: Invalid credentials. Check AuthenticationScheme, username and password");
const REJECTED: Option<&str> = Some("the specified credentials were rejected by the server");
const DENIED: Option<&str> = Some("Access is denied.");

entries! {
    // The port. These come as suspects beside a connection that was refused or not answered.
    ONLY_HTTP = Connect "connect.suspect_only_http", UNREACHABLE,
        "The host has an HTTP listener only: 5985 listens there, and the port that was asked for does not.",
        "Make an HTTPS listener on the host, as docs/windows-host.md shows, or use --scheme http with negotiate, ntlm or \
         kerberos, which seal their messages.";
    ONLY_HTTPS = Connect "connect.suspect_only_https", UNREACHABLE,
        "The host has an HTTPS listener only: 5986 listens there, and the port that was asked for does not.",
        "Use --scheme https.";
    NOT_ENABLED = Connect "connect.suspect_not_enabled", UNREACHABLE,
        "WinRM is not set up on the host, its service is stopped, or its listener has another port: the host is up, and \
         neither 5985 nor 5986 listens.",
        "Run `winrm quickconfig` on the host, and look with `winrm enumerate winrm/config/Listener` where it listens.";
    FIREWALL = Connect "connect.suspect_firewall", UNREACHABLE,
        "A firewall drops the packets, the host is down, or its address is wrong: neither this port nor the usual ones \
         answers at all.",
        "Look at the rules of Windows Firewall (Windows Remote Management), at firewalls and network policies between, and \
         whether the host runs.";

    // TLS.
    PLAIN_HTTP = Tls "tls.plain_http", TLS,
        "The port speaks plain HTTP: it is that of an HTTP listener.",
        "Use port 5986, or --scheme http with 5985.";
    NO_TLS = Tls "tls.other_protocol", TLS,
        "What listens on this port speaks neither TLS nor HTTP.",
        "Check host and port; WinRM over https is on 5986.";
    TLS_SILENT = Tls "tls.silent", TLS,
        "The port takes connections and then says nothing: it does not speak TLS, something between swallows the handshake, \
         or the host is overloaded.",
        "Check that the port is that of an https listener (5986), and devices between that inspect TLS.";
    TLS_REFUSED = Tls "tls.refused", TLS,
        "The host ends every TLS handshake. On Windows that is so when the listener's certificate was deleted, has no \
         private key, or was bound to another port, or when no cipher suite is in common.",
        "Compare CertificateThumbprint of `winrm enumerate winrm/config/Listener` with the certificates in LocalMachine\\My \
         and with `netsh http show sslcert`; look for Schannel events in the System log.";
    TLS_TOO_OLD = Tls "tls.too_old", TLS,
        "The host takes no TLS 1.2, as Windows Server 2008 R2 and Windows 7 do until it is switched on. Server 2008 \
         cannot do it at all: a fault of its TLS 1.2 patch keeps clients out.",
        "On Server 2008 R2 and Windows 7 set Enabled = 1 and DisabledByDefault = 0 (DWORD) under HKLM\\SYSTEM\\\
         CurrentControlSet\\Control\\SecurityProviders\\SCHANNEL\\Protocols\\TLS 1.2\\Server, and restart the host. On \
         Server 2008 use http with negotiate, ntlm or kerberos.";

    // The certificate.
    EXPIRED = Certificate "certificate.expired", TLS,
        "The certificate of the host, or of one of its authorities, has run out, or the clock here is wrong.",
        "Renew the certificate and set the listener's CertificateThumbprint to the new one; check the clock of this machine.";
    NOT_YET_VALID = Certificate "certificate.not_yet_valid", TLS,
        "The certificate begins in the future: the clock of this machine is behind, or that of the authority was ahead.",
        "Set the clocks, or wait until it begins.";
    EXPIRES_SOON = Certificate "certificate.expires_soon", None,
        "The certificate runs out within 30 days. Nothing renews that of a listener by itself unless the domain is told to.",
        "Renew it in time, and set the listener's CertificateThumbprint to the new one.";
    NAME = Certificate "certificate.name", TLS,
        "The certificate is for other names than the one by which the host is addressed, or the name leads to another host.",
        "Use one of the names that it is for, or have it issued again with this name among its subject alternative names.";
    SELF_SIGNED = Certificate "certificate.self_signed", TLS,
        "The certificate was issued by itself, as ConfigureRemotingForAnsible.ps1 and New-SelfSignedCertificate make it; \
         nobody trusted vouches for it.",
        "Have an authority such as AD CS issue one, or give exactly this certificate as the trusted one (--ca).";
    UNTRUSTED = Certificate "certificate.untrusted_issuer", TLS,
        "No authority that this machine trusts has issued the certificate. The authority of the domain is unknown here, the \
         host does not send the authorities between, or a device between shows a certificate of its own.",
        "Export the certificate of the issuing authority as PEM and give it (--ca); in a container the trust of the machine \
         around it does not count.";
    CA_MISMATCH = Certificate "certificate.ca_mismatch", TLS,
        "The certificate was issued by none of the authorities that were given.",
        "Give the certificate of the authority that the message names as issuer, with those between, in one PEM file (--ca).";
    CA_UNUSABLE = Certificate "certificate.ca_unusable", TLS,
        "The authorities that were given hold no certificate in PEM form; Windows exports DER unless it is told Base-64.",
        "Give PEM blocks `BEGIN CERTIFICATE`: openssl x509 -inform der -in ca.cer -out ca.pem.";
    PURPOSE = Certificate "certificate.purpose", TLS,
        "The certificate may not be used by servers: its extended key usage lacks serverAuth (1.3.6.1.5.5.7.3.1).",
        "Bind a certificate made from a template for servers, such as Web Server or Computer of AD CS.";
    WEAK_KEY = Certificate "certificate.weak_key", TLS,
        "The key of the certificate is too short: RSA below 2048 bits, or an elliptic curve below 224.",
        "Have it issued again with RSA 2048 or longer, or with P-256.";
    WEAK_SIGNATURE = Certificate "certificate.weak_signature", TLS,
        "The certificate was signed with SHA-1 or MD5, which can be forged and are refused by newer clients.",
        "Have it issued again with SHA-256; an authority that still signs with SHA-1 has to be told.";
    NOT_ACCEPTED = Certificate "certificate.not_accepted", TLS,
        "The check of the certificate failed for a reason of its own.",
        "See the message for what the TLS library says.";
    NO_CERTIFICATE = Certificate "certificate.none", TLS,
        "The handshake in which the certificate was to be looked at failed.",
        "Try again; look at the step for TLS.";

    // HTTP.
    HTTP_ON_TLS = Http "http.tls_expected", HTTP,
        "The port speaks TLS: it is that of an HTTPS listener.",
        "Use --scheme https, or port 5985.";
    OTHER_PROTOCOL = Http "http.other_protocol", HTTP,
        "What listens on this port speaks no HTTP.",
        "Check host and port; WinRM is on 5985 (http) and 5986 (https).";
    HTTP_SILENT = Http "http.silent", HTTP,
        "The port takes connections and does not answer a request: the host is overloaded, or a device between takes the \
         connection in its place.",
        "Look at the host's load, and at firewalls and load balancers between.";
    HTTP_CLOSED = Http "http.closed", HTTP,
        "The connection was closed before there was an answer: a firewall between does so, a listener with an address \
         filter, or a port of something else.",
        "Check host and port, IPv4Filter and IPv6Filter of the WinRM service, and firewalls between.";
    OTHER_SERVER = Http "http.other_server", HTTP,
        "Another web server than HTTP.sys answers here, of IIS or of another maker; WinRM may or may not be behind it.",
        "Check host and port. On the host itself, `netsh http show servicestate` says who holds the port.";
    PROXY = Http "http.proxy", HTTP,
        "A proxy or gateway answers, not the host. NTLM and Kerberos belong to one connection, and most proxies share theirs.",
        "Reach the host without it: check the route, transparent proxies and load balancers between.";
    REDIRECT = Http "http.redirect", HTTP,
        "The request is sent elsewhere, as web servers and gateways do that want https. WinRM does not do so, and redirects \
         are not followed.",
        "Address what it leads to, if that is the host, or check host and port.";
    HTTP_SYS_UNAVAILABLE = Http "http.sys_unavailable", HTTP,
        "HTTP.sys answers 503: the host is starting or overloaded.",
        "Try again later; check the host's load and the service Windows Remote Management.";
    HOST_CLOCK = Http "http.clock_skew", Some("Clock skew too great"),
        "The clock of the host differs from the one here by more than 5 minutes, as its answer says. Kerberos does not \
         forgive that, and NTLM not much more; certificates can seem to have run out.",
        "Set both clocks from one time source: `w32tm /resync` on the host, NTP here.";

    // What is offered.
    WRONG_PATH = Offered "offered.wrong_path", HTTP,
        "HTTP.sys answers, and nothing is registered under this path: the WinRM service is stopped, or its URLPrefix is \
         another one than the path that was asked for.",
        "Start the service Windows Remote Management; compare the path (/wsman) with URLPrefix in `winrm enumerate \
         winrm/config/Listener`.";
    BASIC_MISSING = Offered "offered.basic_missing", AUTH,
        "Basic is switched off on the host, as it is by default. It would work for local accounts only.",
        "Use negotiate, ntlm or kerberos. To have Basic all the same, over https only: Set-Item -Path \
         WSMan:\\localhost\\Service\\Auth\\Basic -Value $true.";
    NEGOTIATE_MISSING = Offered "offered.negotiate_missing", AUTH,
        "Negotiate is switched off on the host, and with it NTLM.",
        "Use a kind that is offered, or switch it on: Set-Item -Path WSMan:\\localhost\\Service\\Auth\\Negotiate -Value $true.";
    KERBEROS_MISSING = Offered "offered.kerberos_missing", AUTH,
        "Neither Negotiate nor Kerberos is offered: they are switched off on the host.",
        "Use a kind that is offered, or switch it on: Set-Item -Path WSMan:\\localhost\\Service\\Auth\\Kerberos -Value $true.";
    BASIC_OVER_HTTP = Offered "offered.basic_over_http", None,
        "The host offers Basic over plain http. Who uses it shows the password to everybody on the way.",
        "Switch Basic or AllowUnencrypted off on the host: Set-Item -Path WSMan:\\localhost\\Service\\Auth\\Basic -Value $false.";
    FORBIDDEN = Offered "offered.forbidden", HTTP,
        "The request is forbidden before anybody looks at who sends it: by IPv4Filter or IPv6Filter of the WinRM service, by \
         a listener that asks for a client certificate, or by a gateway between.",
        "Check the filters in `winrm get winrm/config/service` and gateways between.";
    OFFERED_UNAVAILABLE = Offered "offered.unavailable", HTTP,
        "HTTP.sys answers 503 for the service: WinRM is starting, stopping or overloaded.",
        "Try again later; check the service Windows Remote Management and the host's load.";
    OFFERED_NOTHING = Offered "offered.unexpected", HTTP,
        "A WinRM service answers an empty request without a credential with 401 and a list of what it offers. This is not one, \
         or something between answers.",
        "Check host, port and path, and proxies between.";

    // The logon: what a bare 401 may mean.
    SUSPECT_PASSWORD = Authenticate "auth.suspect_password", AUTH,
        "The password or the user name is wrong, or the password was changed.",
        "Have the owner log on elsewhere with exactly this password, once: each attempt counts towards a lockout. Look for \
         event 4625 on the host: status 0xC000006A is a wrong password, 0xC0000064 an unknown user.";
    SUSPECT_DOMAIN_MISSING = Authenticate "auth.suspect_domain_missing", AUTH,
        "The user name has no domain, so the host looks for an account of its own; one of the domain is not meant.",
        "Write DOMAIN\\user or user@REALM, or .\\user if a local account is meant.";
    SUSPECT_DOMAIN_WRONG = Authenticate "auth.suspect_domain_wrong", AUTH,
        "The domain in the user name is not the account's, is not trusted by the host's domain, or its controllers cannot be \
         reached from the host.",
        "Check the domain's short name; look for events 4625 (0xC0000064) and 5719 on the host.";
    SUSPECT_BASIC_LOCAL_ONLY = Authenticate "auth.suspect_basic_local_only", AUTH,
        "Basic takes local accounts only, and this user name is one of a domain.",
        "Use negotiate or kerberos for accounts of a domain.";
    SUSPECT_LOCAL_ACCOUNT = Authenticate "auth.suspect_local_account_policy", REJECTED,
        "A local account may not log on over the network: by \"Deny access to this computer from the network\" (often set for \
         local accounts), or UAC takes its rights away and what is left may not use WinRM.",
        "Use an account of the domain, or set LocalAccountTokenFilterPolicy = 1 and look at that user right; event 4625 with \
         0xC000015B says that the logon type is not granted.";
    SUSPECT_RIGHTS = Authenticate "auth.suspect_rights", REJECTED,
        "The account may not use WinRM: it is in neither Administrators nor Remote Management Users of the host, and RootSDDL \
         gives it no Read and Execute. Windows may say that with a bare 401.",
        "Add it to Remote Management Users, or give it Read and Execute with `winrm configSDDL default`.";
    SUSPECT_LOCKED = Authenticate "auth.suspect_locked", AUTH,
        "The account is locked, disabled or expired, must change its password, or may not log on at this hour or from here.",
        "Look at the account (Get-ADUser -Properties LockedOut, Enabled, AccountExpirationDate, PasswordExpired), and for \
         event 4625: 0xC0000234 locked, 0xC0000072 disabled, 0xC0000193 expired, 0xC0000224 must change.";
    SUSPECT_CHANNEL_BINDING = Authenticate "auth.suspect_channel_binding", REJECTED,
        "The logon is bound to a TLS session that is not the host's own: a proxy or load balancer ends TLS and opens another \
         one. Or the host demands the binding (CbtHardeningLevel Strict), and none was sent.",
        "Compare the certificate above with the listener's CertificateThumbprint. If TLS ends before the host, use \
         --send-cbt false; else leave it on.";
    SUSPECT_CLOCK = Authenticate "auth.suspect_clock", Some("Clock skew too great"),
        "The clocks of the host and of this machine differ too much.",
        "Set both from one time source: `w32tm /resync` on the host, NTP here.";
    SUSPECT_NTLM_BLOCKED = Authenticate "auth.suspect_ntlm_blocked", REJECTED,
        "The host or the domain refuses NTLM (\"Restrict NTLM\", a LAN Manager level that both sides do not share), or the account is \
         one of Protected Users, which NTLM never lets in.",
        "Use --auth kerberos with user@REALM; look at the log Microsoft-Windows-NTLM/Operational, events 4003 and 8004.";
    SUSPECT_PROXY = Authenticate "auth.suspect_proxy", REJECTED,
        "Something between takes requests apart: NTLM and Kerberos belong to one connection, and a proxy that shares \
         connections, or strips header fields, breaks them.",
        "Reach the host without it.";
    SUSPECT_SPN_ACCOUNT = Authenticate "auth.suspect_spn_account", REJECTED,
        "The service principal name belongs to another account than the one that answers, or two accounts hold it, so the \
         host cannot open the ticket.",
        "Look with `setspn -Q HTTP/HOST` and `setspn -X`; ask for another name with --spn-service WSMAN or HOST, or --spn-host.";

    // The shell: what fault 5 may mean.
    SUSPECT_NOT_MEMBER = OpenShell "access.suspect_not_member", DENIED,
        "The account is in neither Administrators nor Remote Management Users of the host.",
        "Add it to one of the two: net localgroup \"Remote Management Users\" ACCOUNT /add.";
    SUSPECT_EXECUTE = OpenShell "access.suspect_execute_right", DENIED,
        "RootSDDL of the WinRM service gives the account Read and not Execute.",
        "Give it both, Read and Execute, with `winrm configSDDL default`.";
    SUSPECT_TOKEN_FILTER = OpenShell "access.suspect_token_filter", DENIED,
        "UAC takes the rights of an administrator away from local accounts that come over the network, but for the built-in \
         Administrator.",
        "Use an account of the domain, or set LocalAccountTokenFilterPolicy = 1 (DWORD) under \
         HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Policies\\System.";

    // PowerShell.
    PROFILE_NOISE = Profile "profile.noise", None,
        "A profile script of PowerShell writes something: it gets into the output of every script.",
        "Run scripts without it (no_profile, --no-powershell-profile, useNoProfile), or let the profile be silent when the \
         session is not interactive.";
    PROFILE_SLOW = Profile "profile.slow", None,
        "A profile script of PowerShell takes long, before every script.",
        "Run scripts without it: no_profile, --no-powershell-profile, useNoProfile.";
    PROFILE_BREAKS = Profile "profile.breaks", None,
        "With the profile scripts of PowerShell a script does not run: a profile ends the session or fails.",
        "Run scripts without it (no_profile, --no-powershell-profile, useNoProfile), and correct $PROFILE on the host.";
    LANGUAGE_MODE = Profile "profile.language_mode", None,
        "PowerShell runs in a language mode with limits (AppLocker, WDAC, JEA): most scripts cannot be run there, nor what \
         carries them.",
        "Run commands with --shell cmd, or have the rules allow the account's scripts.";
    NO_POWERSHELL = Profile "profile.no_powershell", None,
        "powershell.exe does not run a script of one line: it is missing, forbidden by rules, or broken.",
        "Run powershell.exe on the host by hand; commands with --shell cmd need none.";
}
