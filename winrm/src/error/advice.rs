//! The one table from what happened to a stable code, the likely cause, the remedy, and the text that users of older
//! tools know.

use std::borrow::Cow;

use crate::error::{ErrorKind, Refusal};
use crate::fault::{Class, Fault};

/// What to tell about a failure.
pub(super) struct Advice<'a> {
    pub(super) cause: Cow<'a, str>,
    pub(super) remedy: Cow<'a, str>,
    pub(super) legacy: Option<&'static str>,
}

/// The stable code. Codes are never renamed.
pub(super) fn code(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ResolveFailed { .. } => "resolve.failed",
        ErrorKind::ResolveTimeout { .. } => "resolve.timeout",
        ErrorKind::AddressForbidden { .. } => "resolve.forbidden",
        ErrorKind::ConnectRefused { .. } => "connect.refused",
        ErrorKind::ConnectTimeout { .. } => "connect.timeout",
        ErrorKind::ConnectUnreachable { .. } => "connect.unreachable",
        ErrorKind::ConnectFailed { .. } => "connect.failed",
        ErrorKind::TlsUntrusted { .. } => "tls.untrusted",
        ErrorKind::TlsHostname { .. } => "tls.hostname",
        ErrorKind::TlsExpired { .. } => "tls.expired",
        ErrorKind::TlsProtocol { .. } => "tls.protocol",
        ErrorKind::TlsTimeout { .. } => "tls.timeout",
        ErrorKind::TlsSettings { .. } => "tls.settings",
        ErrorKind::TlsOther { .. } => "tls.failed",
        ErrorKind::HttpStatus { status: 400 } => "http.bad_request",
        ErrorKind::HttpStatus { status: 403 } => "http.forbidden",
        ErrorKind::HttpStatus { status: 404 } => "http.not_found",
        ErrorKind::HttpStatus { status: 503 } => "http.unavailable",
        ErrorKind::HttpStatus { .. } => "http.status",
        ErrorKind::HttpUnexpected { .. } => "http.unexpected",
        ErrorKind::HttpProtocol { .. } => "http.protocol",
        ErrorKind::ConnectionClosed => "connection.closed",
        ErrorKind::ConnectionUnusable => "connection.unusable",
        ErrorKind::AuthRejected { .. } => "auth.rejected",
        ErrorKind::AuthRejectedBefore { .. } => "auth.rejected_before",
        ErrorKind::AuthUnavailable { .. } => "auth.unavailable",
        ErrorKind::BasicOverHttp => "auth.basic_over_http",
        ErrorKind::EncryptionImpossible { .. } => "auth.encryption_impossible",
        ErrorKind::AuthHandshake { .. } => "auth.handshake",
        ErrorKind::CredentialUnusable { .. } => "auth.credential_unusable",
        ErrorKind::Ticket(error) => error.code,
        ErrorKind::TicketRefused { refusal, .. } => match refusal {
            Refusal::ClockSkew { .. } => "auth.ticket_clock_skew",
            Refusal::WrongKey => "auth.ticket_wrong_key",
            Refusal::Expired | Refusal::NotYetValid => "auth.ticket_not_valid",
            Refusal::Replayed => "auth.ticket_replayed",
            Refusal::OtherMechanism => "auth.ticket_other_mechanism",
            Refusal::Unsaid | Refusal::Other { .. } => "auth.ticket_refused",
        },
        ErrorKind::TicketTooLarge { .. } => "auth.ticket_too_large",
        ErrorKind::AuthLost => "auth.lost",
        ErrorKind::SealPlainAnswer { .. } => "seal.plain_answer",
        ErrorKind::SealMalformed { .. } => "seal.malformed",
        ErrorKind::SealTruncated => "seal.truncated",
        ErrorKind::SealDecrypt => "seal.decrypt",
        ErrorKind::SealEncrypt => "seal.encrypt",
        ErrorKind::SealLength { .. } => "seal.length",
        ErrorKind::SoapMalformed { .. } => "soap.malformed",
        ErrorKind::AnswerTooLarge { .. } => "soap.too_large",
        ErrorKind::WrongRelatesTo { .. } => "soap.wrong_relates_to",
        ErrorKind::RequestUnsendable { .. } => "request.unsendable",
        ErrorKind::Fault(fault) => fault.stable_code(),
        ErrorKind::ReadTimeout { .. } => "timeout.read",
        ErrorKind::DeadlinePassed => "timeout.deadline",
        ErrorKind::PoolTimeout { .. } => "pool.timeout",
        ErrorKind::PoolClosed => "pool.closed",
        ErrorKind::SessionInDoubt => "pool.session_in_doubt",
        ErrorKind::NotNoted => "pool.not_noted",
    }
}

const LEGACY_UNREACHABLE: &str = "Cannot reach remote host";
const LEGACY_TLS: &str =
    "Error in SSL negotiation. Check if server certificate is correct. You may try with skipCertChecks";
const LEGACY_AUTH: &str = "Authorization Error: Invalid credentials. Check AuthenticationScheme, username and password";
const LEGACY_TICKET: &str = "kerberos: the specified credentials were rejected by the server";
const LEGACY_HTTP: &str = "Cannot establish HTTP/S connection to host";
const LEGACY_USER: &str = "Username or domain cannot be null";

/// The table.
pub(super) fn advice(kind: &ErrorKind) -> Advice<'_> {
    let row = |cause: &'static str, remedy: &'static str, legacy: Option<&'static str>| Advice {
        cause: cause.into(),
        remedy: remedy.into(),
        legacy,
    };
    match kind {
        ErrorKind::ResolveFailed { .. } => row(
            "The name is unknown to the name servers that are asked here.",
            "Check the spelling, and the name servers and search domains of the machine that connects.",
            Some(LEGACY_UNREACHABLE),
        ),
        ErrorKind::ResolveTimeout { .. } => row(
            "The name servers that are asked here do not answer.",
            "Check the name servers and the network of the machine that connects.",
            Some(LEGACY_UNREACHABLE),
        ),
        ErrorKind::AddressForbidden { .. } => row(
            "The rules of the machine that connects do not permit any address of this host.",
            "Check what the name resolves to there, and the address blocks in the rules.",
            None,
        ),
        ErrorKind::ConnectRefused { .. } => row(
            "The host is up, but nothing listens on this port, or a firewall answers in its place.",
            "Run `winrm quickconfig` on the host, check the port (5985 for http, 5986 for https), and that an https listener exists.",
            Some(LEGACY_UNREACHABLE),
        ),
        ErrorKind::ConnectTimeout { .. } => row(
            "The host is down, or a firewall drops the packets.",
            "Check that the host runs and that its firewall and those between let this port through.",
            Some(LEGACY_UNREACHABLE),
        ),
        ErrorKind::ConnectUnreachable { .. } => row(
            "There is no route to the host.",
            "Check the routes and network policies of the machine that connects, or choose one in the right network.",
            Some(LEGACY_UNREACHABLE),
        ),
        ErrorKind::ConnectFailed { .. } => row(
            "The connection could not be set up.",
            "See the message for the operating system's reason.",
            Some(LEGACY_UNREACHABLE),
        ),
        ErrorKind::TlsUntrusted { .. } => row(
            "The certificate is self-signed, or its authority is not among the trusted ones.",
            "Give the authority's certificate (ca_pem, --ca), or install a certificate of a trusted authority on the host. \
             Skipping the check is for trials only.",
            Some(LEGACY_TLS),
        ),
        ErrorKind::TlsHostname { .. } => row(
            "The certificate was issued for another name, or the host is addressed by an address that it does not hold.",
            "Use a name that the certificate holds, or have it issued again with this name.",
            Some(LEGACY_TLS),
        ),
        ErrorKind::TlsExpired { .. } => row(
            "The certificate has run out or is not valid yet, or a clock is wrong.",
            "Renew the host's certificate; check the clocks of both machines.",
            Some(LEGACY_TLS),
        ),
        ErrorKind::TlsProtocol { .. } => row(
            "The port does not speak TLS, or only a version older than 1.2.",
            "Check that the port is that of an https listener (5986) and that the host allows TLS 1.2.",
            Some(LEGACY_TLS),
        ),
        ErrorKind::TlsTimeout { .. } => row(
            "The port accepts connections and then says nothing: it does not speak TLS, or the host is overloaded.",
            "Check that the port is that of an https listener (5986).",
            Some(LEGACY_TLS),
        ),
        ErrorKind::TlsSettings { .. } => row(
            "The given authorities cannot be read as PEM certificates.",
            "Give one or more PEM blocks `BEGIN CERTIFICATE`.",
            Some(LEGACY_TLS),
        ),
        ErrorKind::TlsOther { .. } => {
            row("The TLS handshake failed.", "See the message for what the TLS library said.", Some(LEGACY_TLS))
        }
        ErrorKind::HttpStatus { status: 400 } => row(
            "The service could not read the request; on a sealed connection its context was lost with a replaced socket.",
            "Try again; if it stays, check for a proxy between that shares connections.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::HttpStatus { status: 403 } => row(
            "The service forbids the request, or a proxy answers in its place.",
            "Check IPv4Filter and IPv6Filter of the WinRM service and proxies between.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::HttpStatus { status: 404 } => row(
            "There is no WinRM service under this path.",
            "Check the path (default /wsman) and the port.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::HttpStatus { status: 503 } => row(
            "The WinRM service is starting, or the host is overloaded.",
            "Try again later; check the WinRM service on the host.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::HttpStatus { .. } | ErrorKind::HttpUnexpected { .. } => row(
            "Something that is not WinRM answers, such as a proxy or another web service.",
            "Check host, port and path, and proxies between.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::HttpProtocol { .. } => row(
            "The peer does not speak HTTP/1.1, or the connection broke in the middle of a message.",
            "Check the port and scheme, and proxies between.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::ConnectionClosed => row(
            "The host, a firewall or a proxy between ended the connection; a restart of the WinRM service does so too.",
            "Try again when it is safe to do so; check the event log Microsoft-Windows-WinRM/Operational on the host.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::ConnectionUnusable => row(
            "An earlier failure left the connection in a state that cannot be trusted.",
            "Open a new session.",
            None,
        ),
        ErrorKind::AuthRejected { over_tls: true, .. } => row(
            "The user name or password is wrong, the account is locked, disabled or expired, it may not log on over the \
             network, or the channel bindings do not fit, as when a proxy between ends TLS.",
            "Check the credential with the owner of the account before trying again: each attempt counts towards a lockout. \
             A local account may need `.\\user`, a domain account `DOMAIN\\user`. If a proxy between ends TLS, send no channel \
             bindings (--send-cbt false); if they are not sent, the host may require them (CbtHardeningLevel Strict).",
            Some(LEGACY_AUTH),
        ),
        ErrorKind::AuthRejected { over_tls: false, .. } => row(
            "The user name or password is wrong, the account is locked, disabled or expired, or it may not log on over the network.",
            "Check the credential with the owner of the account before trying again: each attempt counts towards a lockout. \
             A local account may need `.\\user`, a domain account `DOMAIN\\user`.",
            Some(LEGACY_AUTH),
        ),
        ErrorKind::AuthRejectedBefore { .. } => row(
            "This host rejected exactly this credential before; it is not sent again, so that the account does not lock out.",
            "Store the right password under the credential; a changed one is tried at once.",
            Some(LEGACY_AUTH),
        ),
        ErrorKind::AuthUnavailable { .. } => row(
            "The mechanism is switched off on the host.",
            "Choose one that the host offers, or switch it on: `winrm set winrm/config/service/auth`.",
            Some(LEGACY_AUTH),
        ),
        ErrorKind::BasicOverHttp => row(
            "Basic over plain http shows the password to everybody on the way.",
            "Use https, or ntlm or negotiate over http. To do it all the same, allow it explicitly for this target.",
            None,
        ),
        ErrorKind::EncryptionImpossible { .. } => row(
            "Messages are to be sealed, and this authentication has no keys to do so.",
            "Use ntlm or negotiate, or https with message encryption `auto`.",
            None,
        ),
        ErrorKind::AuthHandshake { .. } => row(
            "The host answered with authentication data that cannot be right, or a proxy between breaks the exchange.",
            "Check for proxies between and for TLS inspection; see the message.",
            Some(LEGACY_AUTH),
        ),
        ErrorKind::CredentialUnusable { .. } => row(
            "The user name or password has a form that this authentication cannot carry.",
            "Correct the credential; see the message.",
            Some(LEGACY_USER),
        ),
        ErrorKind::AuthLost => row(
            "The host dropped the logon of this connection, for instance because the WinRM service was restarted.",
            "Try again on a new session when it is safe to do so.",
            None,
        ),
        ErrorKind::SealPlainAnswer { .. } => row(
            "Something between answered in place of the host, or the host lost the sealed session.",
            "Check for proxies between; the answer was not believed.",
            None,
        ),
        ErrorKind::SealMalformed { .. }
        | ErrorKind::SealTruncated
        | ErrorKind::SealDecrypt
        | ErrorKind::SealEncrypt
        | ErrorKind::SealLength { .. } => row(
            "The sealed message was damaged or changed on the way, or the connection is not the one it was sealed for.",
            "Check for proxies between; the message was not believed.",
            None,
        ),
        ErrorKind::SoapMalformed { .. } | ErrorKind::AnswerTooLarge { .. } | ErrorKind::WrongRelatesTo { .. } => row(
            "The answer is not one that a WinRM service gives to this request.",
            "Check host, port and path, and proxies between.",
            None,
        ),
        ErrorKind::RequestUnsendable { .. } => row(
            "A value holds characters that XML cannot carry, or is too large for one message.",
            "Correct the value; pass binary data through standard input.",
            None,
        ),
        ErrorKind::Ticket(error) => Advice {
            cause: error.cause.as_str().into(),
            remedy: error.remedy.as_str().into(),
            // Whoever wrote the error knows it: `Error::legacy_text`.
            legacy: None,
        },
        ErrorKind::TicketRefused { refusal, over_tls, .. } => of_refusal(refusal, *over_tls),
        ErrorKind::TicketTooLarge { .. } => row(
            "The user is a member of so many groups that the ticket is longer than the header fields that HTTP.sys takes.",
            "Raise MaxFieldLength and MaxRequestBytes under HKLM\\System\\CurrentControlSet\\Services\\HTTP\\Parameters on the \
             host (at most 65534 and 16777216) and restart it, or let the user leave groups.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::Fault(fault) => of_fault(fault),
        ErrorKind::ReadTimeout { .. } => row(
            "The host took the request and did not answer, or the answer got lost on the way.",
            "Check the host's load; the read timeout must exceed the operation timeout.",
            Some(LEGACY_HTTP),
        ),
        ErrorKind::DeadlinePassed => row(
            "The time that was given for this is over.",
            "Give more time, or look for what is slow in the timings.",
            None,
        ),
        ErrorKind::PoolTimeout { .. } => row(
            "All sessions that the bounds allow were in use for the whole wait.",
            "Spread the work, give it more time, or raise the pool's bounds (and MaxShellsPerUser on the host).",
            None,
        ),
        ErrorKind::PoolClosed => row("The program is shutting down.", "Submit the work again later.", None),
        ErrorKind::SessionInDoubt => row(
            "An earlier command on this session ended in a way that leaves its state unknown.",
            "Lease a new session.",
            None,
        ),
        ErrorKind::NotNoted => row(
            "The program keeps a record of what it starts, and could not write it.",
            "See to the free space and the rights of the program's state directory.",
            None,
        ),
    }
}

/// The password was right each time: the KDC gave the ticket for it.
fn of_refusal(refusal: &Refusal, over_tls: bool) -> Advice<'static> {
    let (cause, remedy, legacy): (&'static str, &'static str, &'static str) = match refusal {
        Refusal::Unsaid | Refusal::Other { .. } if over_tls => (
            "The password is right, the KDC gave a ticket. The user may not use WinRM on this host, the service principal name \
             is registered for another account than the host's, or the channel bindings do not fit, as when a proxy between \
             ends TLS.",
            "Add the user to Remote Management Users or to the administrators of the host. Check with `setspn -Q` that the name \
             that was asked for belongs to the host's own account. If a proxy between ends TLS, send no channel bindings \
             (--send-cbt false).",
            LEGACY_TICKET,
        ),
        Refusal::Unsaid | Refusal::Other { .. } => (
            "The password is right, the KDC gave a ticket. The user may not use WinRM on this host, or the service principal \
             name is registered for another account than the host's.",
            "Add the user to Remote Management Users or to the administrators of the host. Check with `setspn -Q` that the name \
             that was asked for belongs to the host's own account.",
            LEGACY_TICKET,
        ),
        Refusal::ClockSkew { .. } => (
            "The clock of the host differs from that of the machine that connects by more than the host permits (5 min).",
            "Set both clocks from the domain's time source: `w32tm /resync` on the host, NTP on the machine that connects.",
            "Clock skew too great",
        ),
        Refusal::WrongKey => (
            "The service principal name is registered for another account than the one that the WinRM service runs as, or the \
             account's password changed after the ticket was made.",
            "Find the holder of the name with `setspn -Q` and duplicates with `setspn -X`; register it for the host's own \
             account. A new ticket is taken with the next attempt.",
            "Message stream modified",
        ),
        Refusal::Expired => (
            "The ticket ended on its way, or the host's clock is ahead.",
            "Try again: a new ticket is taken. If it stays, compare the clocks.",
            "Ticket expired",
        ),
        Refusal::NotYetValid => (
            "The host's clock is behind that of the KDC.",
            "Set the host's clock from the domain's time source: `w32tm /resync`.",
            "Ticket not yet valid",
        ),
        Refusal::Replayed => (
            "The host saw the same request before: something between sent it twice.",
            "Try again; if it stays, check for proxies between.",
            "Request is a replay",
        ),
        Refusal::OtherMechanism => (
            "The host does not use Kerberos, because it is not a member of a domain or Kerberos is switched off.",
            "Check `winrm get winrm/config/service/auth` on the host, or choose ntlm or negotiate with a password.",
            LEGACY_TICKET,
        ),
    };
    Advice { cause: cause.into(), remedy: remedy.into(), legacy: Some(legacy) }
}

fn of_fault(fault: &Fault) -> Advice<'static> {
    let (cause, remedy, legacy): (&'static str, &'static str, Option<&'static str>) = match fault.class() {
        Class::TimedOut | Class::ProviderTimeout => (
            "The host could not finish the operation within its OperationTimeout.",
            "Check the host's load; raise the operation timeout (at most 60 s).",
            None,
        ),
        Class::NotThere => (
            "The host does not know the shell or command any more: it was idle too long, deleted, or the service was restarted.",
            "Try again when it is safe to do so.",
            None,
        ),
        Class::CommandTerminated => ("The command was terminated on the host.", "Look who or what ended it.", None),
        Class::Disconnected => {
            ("The session was disconnected on the host.", "Try again when it is safe to do so.", None)
        }
        Class::QuotaShells => (
            "The user has as many shells open on the host as it allows (MaxShellsPerUser), over all clients.",
            "Close other shells, lower the pool's bound per user, or raise `winrm/config/winrs/MaxShellsPerUser`.",
            None,
        ),
        Class::QuotaOperations => (
            "The user has as many operations on the host as it allows (MaxConcurrentOperationsPerUser), over all clients.",
            "Lower commands_per_shell, or raise `winrm/config/service/MaxConcurrentOperationsPerUser`.",
            None,
        ),
        Class::QuotaThrottled | Class::QuotaOther => (
            "A quota of the host is used up.",
            "Send less at a time, or raise the quota that the message names in `winrm/config`.",
            None,
        ),
        Class::ShellsNotAllowed => (
            "Remote shells are switched off on the host.",
            "Set `winrm/config/winrs/AllowRemoteShellAccess` to true, or the group policy of that name.",
            None,
        ),
        Class::EnvelopeTooLarge | Class::EncodingLimit => (
            "A message is larger than the host takes (MaxEnvelopeSizekb), or its bound was given too small.",
            "Raise `winrm/config/MaxEnvelopeSizekb` on the host.",
            None,
        ),
        Class::FailedAuthentication | Class::LogonRejected => (
            "The account or its password was rejected, or the account is locked, disabled or must change its password.",
            "Check the credential with the owner of the account before trying again: each attempt counts towards a lockout.",
            Some(LEGACY_AUTH),
        ),
        Class::CannotDecrypt => (
            "The host could not unseal the message.",
            "Check for proxies between that change or share connections.",
            None,
        ),
        Class::NotSupported | Class::ResourceNotFound => (
            "The host does not offer this kind of shell or operation.",
            "Check the path and the WinRM version of the host (3.0 or later).",
            None,
        ),
        Class::OtherToken => ("The shell belongs to another logon.", "Try again on a new session.", None),
        Class::Redirect => (
            "The host wants the request sent to another address, which is not followed.",
            "Address that host directly.",
            None,
        ),
        Class::Unavailable => ("The WinRM service is not ready.", "Try again later.", None),
        Class::AccessDenied => (
            "The logon worked, but the user may not open remote shells: not an administrator and not in Remote Management \
             Users, or a local account that UAC token filtering strips of its rights.",
            "Add the user to Remote Management Users, or allow it with `winrm configSDDL default`; for local administrators \
             set LocalAccountTokenFilterPolicy to 1.",
            Some(
                "Access is denied.  (extended fault data: {'transport_message': 'Bad HTTP response returned from server. Code \
                 500', 'http_status_code': 500, 'wsmanfault_code': '5', 'fault_code': 's:Sender', 'fault_subcode': \
                 'w:AccessDenied'})",
            ),
        ),
        Class::Busy => ("The command does not read its input.", "Check that the command reads standard input.", None),
        Class::Aborted => (
            "The operation was aborted on the host: the shell or command was being ended.",
            "Look who or what ended it; try again when it is safe to do so.",
            None,
        ),
        Class::ProfileUnloaded => (
            "Windows unloaded the user's profile under the shell.",
            "Try again on a new session; set no_profile when the profile is not needed.",
            None,
        ),
        Class::Other => ("The host refused the operation for the reason in the message.", "See the message.", None),
    };
    Advice { cause: cause.into(), remedy: remedy.into(), legacy }
}
