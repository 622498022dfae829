//! Our tokens, judged by winbind through `ntlm_auth`, the helper by which squid and Apache let users of a domain in:
//! NTLM, and Kerberos for the domain controller's own host.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use krb5::initiator::{GSS_C_INTEG_FLAG, GSS_C_MUTUAL_FLAG};
use krb5::spnego::SpnegoInitiator;
use lictor_tests::Samba;
use lictor_winrm::auth::SecurityContext as _;
use lictor_winrm::auth::ntlm::NtlmContext;
use lictor_winrm::target::{Credential, Secret};
use tokio::task::spawn_blocking;

use super::Realm;

pub(super) async fn ntlm_tokens_are_accepted(realm: &Realm) {
    let samba = Arc::clone(&realm.samba);
    spawn_blocking(move || accepted(&samba)).await.unwrap();
}

pub(super) async fn ntlm_refusals_have_their_statuses(realm: &Realm) {
    let samba = Arc::clone(&realm.samba);
    spawn_blocking(move || refused(&samba)).await.unwrap();
}

pub(super) async fn kerberos_tokens_are_accepted(realm: &Realm) {
    let samba = &realm.samba;
    let mut granted = Vec::new();
    for (principal, account) in [
        (samba.principal("alice"), "alice"),
        // Its ticket has four hundred groups.
        (samba.principal("crowded"), "crowded"),
        ("max.mustermann@mail.example".to_owned(), "upn.other"),
        (samba.principal("WIN01$"), "WIN01$"),
    ] {
        let identity = realm.with_password(&principal, samba.password(account).unwrap());
        granted.push((account, realm.ticket(&identity, "HTTP", &samba.host("dc1")).await.unwrap()));
    }
    let samba = Arc::clone(samba);
    let work = move || {
        let mut helper = Helper::start(&samba, Mechanism::Spnego);
        for (account, ticket) in granted {
            let (mut initiator, token) = SpnegoInitiator::new(&ticket, GSS_C_MUTUAL_FLAG | GSS_C_INTEG_FLAG).unwrap();
            let name = helper.converse(token, |reply| initiator.step(reply).unwrap().unwrap_or_default()).unwrap();
            assert!(initiator.is_established());
            assert_eq!(name, format!("{}\\{account}", samba.domain()));
        }
        helper.end();
    };
    spawn_blocking(work).await.unwrap();
}

fn accepted(samba: &Samba) {
    let domain = samba.domain();
    let both = [Helper::start(samba, Mechanism::Ntlm), Helper::start(samba, Mechanism::Spnego)];
    for mut helper in both {
        for (user, account) in [
            (format!("{domain}\\alice"), "alice"),
            (format!("{}\\ALICE", domain.to_lowercase()), "alice"),
            (format!("{}\\alice", samba.dns()), "alice"),
            (format!("alice@{}", samba.dns()), "alice"),
            (format!("erika.mustermann@{}", samba.dns()), "upn.same"),
            ("max.mustermann@mail.example".to_owned(), "upn.other"),
            (format!("{domain}\\jürgen"), "jürgen"),
            (format!("{domain}\\crowded"), "crowded"),
        ] {
            let outcome = helper.login(&user, samba.password(account).unwrap());
            let accepted = outcome.clone().unwrap_or_else(|status| panic!("{user}, {:?}: {status}", helper.mechanism));
            assert_eq!(accepted.to_lowercase(), format!("{domain}\\{account}").to_lowercase(), "{user}");
        }
        helper.end();
    }
}

fn refused(samba: &Samba) {
    // As Windows does towards clients, the helper does not tell an unknown user from a wrong password.
    const WRONG: &str = "NT_STATUS_LOGON_FAILURE";
    for mechanism in [Mechanism::Ntlm, Mechanism::Spnego] {
        let mut helper = Helper::start(samba, mechanism);
        let mut refused = |account: &str, password: Option<&str>| {
            let user = format!("{}\\{account}", samba.domain());
            helper.login(&user, password.unwrap_or_else(|| samba.password(account).unwrap())).unwrap_err()
        };
        assert_eq!(refused("nobody", Some("Wrong-1")), WRONG);
        assert_eq!(refused("disabled", None), "NT_STATUS_ACCOUNT_DISABLED");
        assert_eq!(refused("expired", None), "NT_STATUS_ACCOUNT_EXPIRED");
        assert_eq!(refused("mustchange", None), "NT_STATUS_PASSWORD_MUST_CHANGE");
        assert_eq!(refused("hours", None), "NT_STATUS_INVALID_LOGON_HOURS");
        // The directory counts one wrong password for each login, so that ours is tried once; the fifth locks the
        // account.
        let account = if mechanism == Mechanism::Ntlm { "locked.ntlm" } else { "locked.spnego" };
        for count in 1..=5 {
            assert_eq!(refused(account, Some("Wrong-1")), WRONG);
            assert_eq!(samba.attribute(account, "badPwdCount").unwrap(), Some(count.to_string()));
        }
        assert_eq!(refused(account, None), "NT_STATUS_ACCOUNT_LOCKED_OUT");
        helper.end();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Ntlm,
    Spnego,
}

/// `ntlm_auth` as a web server's helper: a line in, a line out.
struct Helper {
    mechanism: Mechanism,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Helper {
    fn start(samba: &Samba, mechanism: Mechanism) -> Self {
        let protocol = match mechanism {
            Mechanism::Ntlm => "squid-2.5-ntlmssp",
            Mechanism::Spnego => "gss-spnego",
        };
        let mut child = samba
            .command("ntlm_auth")
            .arg(format!("--helper-protocol={protocol}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { mechanism, child, stdin, stdout }
    }

    /// NTLM: the name that the domain has accepted, or its status.
    fn login(&mut self, user: &str, password: &str) -> Result<String, String> {
        let credential = Credential::password(user, Secret::new(password.to_owned()));
        let mut context = match self.mechanism {
            Mechanism::Ntlm => NtlmContext::raw(&credential, None),
            Mechanism::Spnego => NtlmContext::spnego(&credential, None),
        }
        .unwrap();
        let first = context.step(&[]).unwrap().to_vec();
        let name = self.converse(first, |reply| context.step(reply).unwrap().to_vec())?;
        assert!(context.is_complete());
        Ok(name)
    }

    /// Passes tokens to and fro, beginning with ours.
    fn converse(&mut self, mut token: Vec<u8>, mut step: impl FnMut(&[u8]) -> Vec<u8>) -> Result<String, String> {
        for verb in ["YR", "KK", "KK"] {
            writeln!(self.stdin, "{verb} {}", BASE64_STANDARD.encode(&token)).unwrap();
            let mut answer = String::new();
            self.stdout.read_line(&mut answer).unwrap();
            let words: Vec<&str> = answer.split_whitespace().collect();
            // squid's protocol has one argument; that of SPNEGO a token, `*` for none, before it.
            let reply = words.get(1).filter(|word| **word != "*").and_then(|word| BASE64_STANDARD.decode(word).ok());
            match words[..] {
                ["TT", ..] => token = step(&reply.unwrap()),
                ["AF", .., name] => {
                    if self.mechanism == Mechanism::Spnego {
                        // The acceptor's last word: it holds the same key as we do.
                        assert!(step(&reply.unwrap()).is_empty());
                    }
                    return Ok(name.to_owned());
                }
                ["NA", .., status] => return Err(status.to_owned()),
                _ => panic!("ntlm_auth answered {answer}"),
            }
        }
        panic!("ntlm_auth asks for more and more tokens");
    }

    fn end(mut self) {
        drop(self.stdin);
        self.child.wait().unwrap();
    }
}
