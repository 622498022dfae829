//! One failure of each kind, with example names: what documentation is made of.
//!
//! A kind without an example does not compile. A test in `lictor-tests` finds a code that has none.

use std::time::Duration;

use super::{Error, ErrorKind, Refusal, Stage, TicketError};
use crate::fault::{self, Class, Fault};

/// One failure of each kind that this crate tells, with example names; several where one code has several causes. What
/// whoever hands out tickets has to tell is not among them.
#[must_use]
pub fn catalogue() -> Vec<Error> {
    examples().into_iter().map(|(stage, kind)| Error::new(stage, kind)).collect()
}

/// Gives the examples of each kind and takes care that none is left out.
macro_rules! examples {
    ($($kind:ident: $examples:expr;)*) => {
        fn examples() -> Vec<(Stage, ErrorKind)> {
            let all: Vec<_> = [$(Vec::<(Stage, ErrorKind)>::from($examples)),*].into_iter().flatten().collect();
            debug_assert!(all.iter().all(|(_, kind)| has_examples(kind)));
            all
        }

        const fn has_examples(kind: &ErrorKind) -> bool {
            match kind {
                $(ErrorKind::$kind { .. } => true,)*
            }
        }
    };
}

examples! {
    ResolveFailed: at(Stage::Resolve, ErrorKind::ResolveFailed { host: host() });
    ResolveTimeout: at(Stage::Resolve, ErrorKind::ResolveTimeout { host: host() });
    AddressForbidden: at(
        Stage::Resolve,
        ErrorKind::AddressForbidden { host: host(), addresses: "192.0.2.20".to_owned() },
    );
    ConnectRefused: at(Stage::Connect, ErrorKind::ConnectRefused { peer: peer() });
    ConnectTimeout: at(Stage::Connect, ErrorKind::ConnectTimeout { peer: peer() });
    ConnectUnreachable: at(Stage::Connect, ErrorKind::ConnectUnreachable { peer: peer() });
    ConnectFailed: at(Stage::Connect, ErrorKind::ConnectFailed { peer: peer() });
    TlsUntrusted: at(
        Stage::Tls,
        ErrorKind::TlsUntrusted { host: host(), detail: "self-signed certificate".to_owned() },
    );
    TlsHostname: at(
        Stage::Tls,
        ErrorKind::TlsHostname { host: host(), detail: "it names web2.corp.example".to_owned() },
    );
    TlsExpired: at(
        Stage::Tls,
        ErrorKind::TlsExpired { host: host(), detail: "certificate has expired".to_owned() },
    );
    TlsProtocol: at(Stage::Tls, ErrorKind::TlsProtocol { host: host(), detail: "wrong version number".to_owned() });
    TlsTimeout: at(Stage::Tls, ErrorKind::TlsTimeout { host: host() });
    TlsSettings: at(Stage::Tls, ErrorKind::TlsSettings { detail: "there is no PEM certificate".to_owned() });
    TlsOther: at(Stage::Tls, ErrorKind::TlsOther { host: host(), detail: "internal error".to_owned() });
    HttpStatus: [400, 403, 404, 503, 502].map(|status| (Stage::Identify, ErrorKind::HttpStatus { status }));
    HttpUnexpected: at(
        Stage::Identify,
        ErrorKind::HttpUnexpected { detail: "the content type is text/html".to_owned() },
    );
    HttpProtocol: at(Stage::Identify, ErrorKind::HttpProtocol { detail: "invalid HTTP version".to_owned() });
    ConnectionClosed: at(Stage::Receive, ErrorKind::ConnectionClosed);
    ConnectionUnusable: at(Stage::Run, ErrorKind::ConnectionUnusable);
    AuthRejected: at(
        Stage::Authenticate,
        ErrorKind::AuthRejected { mechanism: "ntlm", user: user(), over_tls: true },
    );
    AuthRejectedBefore: at(Stage::Authenticate, ErrorKind::AuthRejectedBefore { user: user() });
    AuthUnavailable: at(
        Stage::Authenticate,
        ErrorKind::AuthUnavailable { wanted: "basic", offered: "Negotiate, Kerberos".to_owned() },
    );
    BasicOverHttp: at(Stage::Authenticate, ErrorKind::BasicOverHttp);
    EncryptionImpossible: at(
        Stage::Authenticate,
        ErrorKind::EncryptionImpossible { detail: "basic authentication has no keys".to_owned() },
    );
    AuthHandshake: at(
        Stage::Authenticate,
        ErrorKind::AuthHandshake { detail: "the challenge is no NTLM message".to_owned() },
    );
    CredentialUnusable: at(
        Stage::Authenticate,
        ErrorKind::CredentialUnusable { detail: "the user name is empty".to_owned() },
    );
    // The others come from whoever hands out tickets, with words of their own.
    Ticket: at(Stage::Authenticate, ErrorKind::Ticket(Box::new(TicketError::host_is_address("192.0.2.20"))));
    TicketRefused: refusals();
    TicketTooLarge: at(
        Stage::Authenticate,
        ErrorKind::TicketTooLarge { service: service(), status: 400, length: 81_920 },
    );
    AuthLost: at(Stage::Authenticate, ErrorKind::AuthLost);
    SealPlainAnswer: at(Stage::Receive, ErrorKind::SealPlainAnswer { status: 200 });
    SealMalformed: at(Stage::Receive, ErrorKind::SealMalformed { detail: "there is no boundary".to_owned() });
    SealTruncated: at(Stage::Receive, ErrorKind::SealTruncated);
    SealDecrypt: at(Stage::Receive, ErrorKind::SealDecrypt);
    SealEncrypt: at(Stage::Run, ErrorKind::SealEncrypt);
    SealLength: at(Stage::Receive, ErrorKind::SealLength { promised: 812, actual: 640 });
    SoapMalformed: at(Stage::Receive, ErrorKind::SoapMalformed { detail: "there is no Body".to_owned() });
    AnswerTooLarge: at(Stage::Receive, ErrorKind::AnswerTooLarge { limit: 512_000 });
    WrongRelatesTo: at(Stage::Receive, ErrorKind::WrongRelatesTo { found: "another message".to_owned() });
    RequestUnsendable: at(
        Stage::Run,
        ErrorKind::RequestUnsendable { detail: "the command holds a character that XML cannot carry".to_owned() },
    );
    Fault: faults();
    ReadTimeout: at(Stage::Receive, ErrorKind::ReadTimeout { after: Duration::from_secs(30) });
    DeadlinePassed: at(Stage::Connect, ErrorKind::DeadlinePassed);
    PoolTimeout: at(
        Stage::OpenShell,
        ErrorKind::PoolTimeout { detail: "all 5 shells of the user are in use".to_owned() },
    );
    PoolClosed: at(Stage::OpenShell, ErrorKind::PoolClosed);
    SessionInDoubt: at(Stage::Run, ErrorKind::SessionInDoubt);
    NotNoted: at(Stage::Run, ErrorKind::NotNoted);
}

fn at(stage: Stage, kind: ErrorKind) -> Vec<(Stage, ErrorKind)> {
    vec![(stage, kind)]
}

fn refusals() -> Vec<(Stage, ErrorKind)> {
    let example = |refusal| {
        let kind = ErrorKind::TicketRefused { service: service(), refusal, over_tls: true, kept: false };
        (Stage::Authenticate, kind)
    };
    [
        Refusal::Unsaid,
        Refusal::ClockSkew { ahead: Some(420) },
        Refusal::WrongKey,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::Replayed,
        Refusal::OtherMechanism,
    ]
    .map(example)
    .into()
}

fn faults() -> Vec<(Stage, ErrorKind)> {
    fault::catalogue().into_iter().map(|fault| (stage_of(&fault), ErrorKind::Fault(fault))).collect()
}

/// Where a fault is most often met.
fn stage_of(fault: &Fault) -> Stage {
    match fault.class() {
        Class::FailedAuthentication | Class::LogonRejected | Class::CannotDecrypt => Stage::Authenticate,
        Class::TimedOut
        | Class::NotThere
        | Class::CommandTerminated
        | Class::Disconnected
        | Class::Aborted
        | Class::ProviderTimeout => Stage::Receive,
        Class::EnvelopeTooLarge
        | Class::EncodingLimit
        | Class::QuotaOperations
        | Class::OtherToken
        | Class::Busy
        | Class::ProfileUnloaded => Stage::Run,
        Class::QuotaShells
        | Class::QuotaThrottled
        | Class::QuotaOther
        | Class::ShellsNotAllowed
        | Class::NotSupported
        | Class::ResourceNotFound
        | Class::Redirect
        | Class::Unavailable
        | Class::AccessDenied
        | Class::Other => Stage::OpenShell,
    }
}

fn host() -> String {
    "web1.corp.example".to_owned()
}

fn peer() -> String {
    "web1.corp.example:5986".to_owned()
}

fn user() -> String {
    r"CORP\alice".to_owned()
}

fn service() -> String {
    "HTTP/web1.corp.example".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_says_what_to_do() {
        for error in catalogue() {
            let text = format!("{error}: {} {}", error.cause(), error.remedy());
            assert!(!error.cause().is_empty() && !error.remedy().is_empty(), "{text}");
            assert!(error.cause().ends_with('.') && error.remedy().ends_with('.'), "{text}");
        }
    }
}
