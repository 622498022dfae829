//! What a refusal may mean that does not say so: candidates, ranked by what the steps before have seen.
//!
//! A bare 401 is all that Windows says about a wrong password, a locked account, missing rights, channel bindings that do not
//! fit and more. Weights are rough: what was seen counts more than what is merely frequent.

use lictor_winrm::error::Refusal;
use lictor_winrm::fault::Class;
use lictor_winrm::probe::survey::ProblemKind;
use lictor_winrm::target::{AuthKind, Scheme};
use lictor_winrm::{Error, ErrorKind, Target};

use super::Seen;
use super::http::{MOST_SKEW, skew};
use crate::catalogue::{Entry, host as catalogue};
use crate::finding::Suspect;
use crate::step::{Proof, Steps};

/// The most likely first; none where the failure says what it is.
pub(super) fn of(error: &Error, target: &Target, seen: &Seen, steps: &Steps<'_>) -> Vec<Suspect> {
    let mut ranked = Ranked(Vec::new());
    let user = Shape::of(target.credential.username(), target.endpoint.host());
    match error.kind() {
        ErrorKind::AuthRejected { mechanism, .. } => {
            ranked.of_logon(mechanism, &user, steps.proof());
            ranked.of_the_way(target, seen);
        }
        ErrorKind::TicketRefused { refusal: Refusal::Unsaid | Refusal::Other { .. }, .. } => {
            let rights = match steps.proof() {
                Proof::Taken => "The KDC gave the ticket, so the password is right.".to_owned(),
                Proof::Before(time) => format!("The user was proved at {time}, and not again."),
                Proof::None => String::new(),
            };
            ranked.add(60, catalogue::SUSPECT_RIGHTS, &rights);
            ranked.add(45, catalogue::SUSPECT_SPN_ACCOUNT, "");
            ranked.of_the_way(target, seen);
        }
        _ if error.fault().is_some_and(|fault| fault.class() == Class::AccessDenied) => ranked.of_denial(&user),
        _ => {}
    }
    ranked.0.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    ranked.0.into_iter().map(|(_, suspect)| suspect).collect()
}

struct Ranked(Vec<(u32, Suspect)>);

impl Ranked {
    fn add(&mut self, weight: u32, entry: Entry, seen: &str) {
        self.0.push((weight, entry.suspected_by(seen)));
    }

    /// What lies in the account, the password and the rules about them.
    fn of_logon(&mut self, mechanism: &str, user: &Shape<'_>, proof: &Proof) {
        let proven = *proof == Proof::Taken;
        if !proven {
            let since = match proof {
                Proof::Before(time) => {
                    format!("A ticket of {time} is held, and nothing was proved since then: it may have changed.")
                }
                Proof::None | Proof::Taken => String::new(),
            };
            self.add(50, catalogue::SUSPECT_PASSWORD, &since);
            self.add(25, catalogue::SUSPECT_LOCKED, &since);
        }
        match user {
            Shape::Bare => {
                self.add(40, catalogue::SUSPECT_DOMAIN_MISSING, "The user name has neither a domain nor a realm.");
                self.add(30, catalogue::SUSPECT_LOCAL_ACCOUNT, "Without a domain it is taken for a local one.");
            }
            Shape::Local => self.add(40, catalogue::SUSPECT_LOCAL_ACCOUNT, "The user name is that of a local account."),
            Shape::Domain(domain) if mechanism == "basic" => {
                self.add(90, catalogue::SUSPECT_BASIC_LOCAL_ONLY, &format!("It names {domain}."));
            }
            Shape::Domain(domain) => {
                self.add(20, catalogue::SUSPECT_DOMAIN_WRONG, &format!("It names {domain}."));
            }
        }
        let rights = if proven { "The KDC took the password, so it is right." } else { "" };
        self.add(if proven { 60 } else { 30 }, catalogue::SUSPECT_RIGHTS, rights);
        if mechanism != "basic" {
            let proven =
                if proven { "The KDC took the password, and the logon went by NTLM all the same." } else { "" };
            self.add(if proven.is_empty() { 15 } else { 55 }, catalogue::SUSPECT_NTLM_BLOCKED, proven);
        }
    }

    /// What lies in the clocks and between.
    fn of_the_way(&mut self, target: &Target, seen: &Seen) {
        if let Some(ahead) = seen.ahead.filter(|ahead| ahead.abs() > MOST_SKEW) {
            self.add(80, catalogue::SUSPECT_CLOCK, &format!("The host's clock is {} ours.", skew(ahead)));
        }
        let other = seen.other_server.as_deref();
        if let Some(other) = other {
            self.add(75, catalogue::SUSPECT_PROXY, &format!("GET / was not answered by HTTP.sys: {other}."));
        }
        let binds = target.endpoint.scheme() == Scheme::Https && target.auth != AuthKind::Basic;
        if !binds {
            return;
        }
        let foreign = seen.certificate.as_ref().is_some_and(|held| {
            let odd = |kind| matches!(kind, ProblemKind::Untrusted | ProblemKind::Name);
            held.problems.iter().any(|problem| odd(problem.kind))
        });
        let (weight, why) = match (target.send_channel_bindings, foreign, other.is_some()) {
            (false, ..) => (45, "No binding was sent."),
            (true, _, true) => (74, "Somebody else than HTTP.sys answers over TLS."),
            (true, true, _) => {
                (70, "The certificate is not one that is known to be the host's, and it was not checked.")
            }
            (true, false, false) => (10, ""),
        };
        self.add(weight, catalogue::SUSPECT_CHANNEL_BINDING, why);
    }

    /// What fault 5 may mean: the logon worked.
    fn of_denial(&mut self, user: &Shape<'_>) {
        let local = matches!(user, Shape::Local | Shape::Bare);
        if local {
            self.add(70, catalogue::SUSPECT_TOKEN_FILTER, "The user name is that of a local account.");
        }
        self.add(60, catalogue::SUSPECT_NOT_MEMBER, "");
        self.add(40, catalogue::SUSPECT_EXECUTE, "");
    }
}

/// How a user name is written.
#[derive(Debug, PartialEq, Eq)]
enum Shape<'a> {
    /// `.\user`, or the host's own name before it.
    Local,
    /// `user`.
    Bare,
    /// `DOMAIN\user`, `user@REALM`.
    Domain(&'a str),
}

impl<'a> Shape<'a> {
    fn of(user: &'a str, host: &str) -> Self {
        let short = host.split('.').next().unwrap_or(host);
        let own =
            |name: &str| name == "." || name.eq_ignore_ascii_case(short) || name.eq_ignore_ascii_case("localhost");
        match (user.split_once('\\'), user.rsplit_once('@')) {
            (Some((domain, _)), _) if domain.is_empty() || own(domain) => Self::Local,
            (Some((domain, _)), _) => Self::Domain(domain),
            (None, Some((_, realm))) if own(realm) => Self::Local,
            (None, Some((_, realm))) => Self::Domain(realm),
            (None, None) => Self::Bare,
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_winrm::Stage;
    use lictor_winrm::target::{
        Credential, Endpoint, KerberosOptions, MessageEncryption, Secret, ShellProperties, Timeouts, TlsPolicy,
    };

    use super::*;
    use crate::check::Check;

    #[test]
    fn what_was_seen_on_the_way_comes_before_what_is_frequent() {
        let target = Target {
            endpoint: Endpoint::new(Scheme::Http, "win01.corp.example", None, None).unwrap(),
            auth: AuthKind::Negotiate,
            credential: Credential::password("CORP\\alice", Secret::new("x".to_owned())),
            tls: TlsPolicy::default(),
            message_encryption: MessageEncryption::Auto,
            send_channel_bindings: true,
            allow_basic_over_http: false,
            kerberos: KerberosOptions::default(),
            shell: ShellProperties::default(),
            timeouts: Timeouts::default(),
        };
        let kind = ErrorKind::AuthRejected { mechanism: "negotiate", user: String::new(), over_tls: false };
        let rejected = Error::new(Stage::Authenticate, kind);
        let ask = |seen: &Seen, proven: bool| {
            let mut tell = |_: &crate::step::Step| {};
            let mut steps = Steps::new(&mut tell);
            if proven {
                steps.proved(Proof::Taken);
            }
            of(&rejected, &target, seen, &steps).into_iter().map(|suspect| suspect.code).collect::<Vec<_>>()
        };
        let nothing = Seen::default();
        assert_eq!(ask(&nothing, false)[0], "auth.suspect_password");
        // The KDC took the password: it and the account are beyond suspicion.
        let proven = ask(&nothing, true);
        assert_eq!(proven[..2], ["auth.suspect_rights", "auth.suspect_ntlm_blocked"]);
        assert!(!proven.contains(&"auth.suspect_password") && !proven.contains(&"auth.suspect_locked"));
        // A ticket of earlier proves nothing of the password as it is now.
        let mut tell = |_: &crate::step::Step| {};
        let mut steps = Steps::new(&mut tell);
        steps.passed(Check::Login, "");
        steps.proved(Proof::Before("2026-03-15T16:26:53Z".to_owned()));
        let held = of(&rejected, &target, &nothing, &steps);
        assert_eq!(held.iter().map(|suspect| suspect.code).collect::<Vec<_>>(), ask(&nothing, false));
        for code in ["auth.suspect_password", "auth.suspect_locked"] {
            let suspect = held.iter().find(|suspect| suspect.code == code).unwrap();
            assert!(suspect.cause.contains("A ticket of 2026-03-15T16:26:53Z is held"), "{suspect:?}");
        }
        assert!(!format!("{held:?}").contains("so it is right"), "{held:?}");
        let seen = Seen { ahead: Some(-900), other_server: Some("200, nginx".to_owned()), ..Seen::default() };
        assert_eq!(ask(&seen, false)[..3], ["auth.suspect_clock", "auth.suspect_proxy", "auth.suspect_password"]);
        assert_eq!(ask(&Seen { ahead: Some(200), ..Seen::default() }, false), ask(&nothing, false));
    }

    #[test]
    fn user_names_tell_where_the_account_is() {
        let host = "win01.corp.example";
        for (user, shape) in [
            ("alice", Shape::Bare),
            (".\\alice", Shape::Local),
            ("WIN01\\alice", Shape::Local),
            ("alice@localhost", Shape::Local),
            ("CORP\\alice", Shape::Domain("CORP")),
            ("alice@CORP.EXAMPLE", Shape::Domain("CORP.EXAMPLE")),
        ] {
            assert_eq!(Shape::of(user, host), shape, "{user}");
        }
    }
}
