//! Authentication of one TCP connection: which scheme, how far the handshake is, whose connection it is, and its sealing keys.
//!
//! Sans I/O: takes `Authorization` headers, returns what to answer. The state dies with the connection and is never shared.

mod bindings;
mod der;
mod kerberos;
mod ntlm;
mod protection;
pub(crate) mod seal;
mod spnego;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use krb5::Keytab;

pub(crate) use self::bindings::EndPoint;
use self::bindings::Expected;
use self::kerberos::Refusal;
use self::ntlm::{Challenge, Rejection};
use self::protection::Protection;
use self::seal::Protocol;
use self::spnego::Mechanism;
use crate::options::{Options, Scheme};

/// Larger `Authorization` headers are refused before they are decoded. Kerberos tokens reach 64 KiB, NTLM's stay below 4.
const MAX_HEADER: usize = 128 * 1024;

/// The authentication of one connection.
pub(crate) struct Authentication {
    options: Arc<Options>,
    /// What channel bindings are compared with, on TLS connections of a host that looks at them.
    bindings: Option<Expected>,
    state: State,
}

enum State {
    Fresh,
    /// SPNEGO chose a mechanism, but its first token is not here yet.
    Chosen(Wrapping),
    /// NTLM's question was asked.
    Challenged {
        wrapping: Option<Wrapping>,
        challenge: Challenge,
    },
    /// Kerberos is done, but the client has not protected its list of mechanisms yet.
    Unprotected(Wrapping, LoggedOn),
    Established {
        user: String,
        protection: Option<Protection>,
        protocol: Protocol,
    },
}

/// The SPNEGO dialogue around the messages of a mechanism.
struct Wrapping {
    mechanism: Mechanism,
    /// The mechanism as the client spells it, until the host has named it in an answer.
    unnamed: Option<Vec<u8>>,
    /// DER of the client's list of mechanisms.
    mechanisms: Vec<u8>,
    /// The mechanism is not the client's first choice, so the list must be protected by a MIC.
    mic_mandatory: bool,
}

/// Somebody who has proved to be a user.
struct LoggedOn {
    user: String,
    means: Means,
    protection: Option<Protection>,
}

/// How somebody logged on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    Basic,
    Ntlm,
    Kerberos {
        /// With a ticket to act in the client's name.
        delegated: bool,
    },
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nobody has authenticated: 401 with the list of schemes, or service without authentication.
    Anonymous,
    /// 401 with this `WWW-Authenticate`: the handshake goes on.
    Continue(String),
    /// The request is this user's.
    Accepted {
        user: String,
        /// `WWW-Authenticate` of the final answer.
        header: Option<String>,
        /// How the user logged on, when it was with this request.
        means: Option<Means>,
    },
    /// 401.
    Rejected {
        refused: Refused,
        /// `WWW-Authenticate` instead of the list of schemes.
        header: Option<String>,
    },
}

/// What a request was rejected for.
#[derive(Debug)]
pub(crate) enum Refused {
    /// This user or principal may not log on, or not so.
    Logon(String),
    /// A Kerberos ticket was no good, by the name of the error.
    Ticket(&'static str),
    /// The request is against the protocol.
    Violation(String),
}

impl Authentication {
    pub(crate) fn new(options: Arc<Options>, end_point: Option<&EndPoint>) -> Self {
        let bindings = end_point.and_then(|end_point| end_point.expected(options.channel_bindings));
        Self { options, bindings, state: State::Fresh }
    }

    /// The `WWW-Authenticate` headers of an unauthenticated answer.
    pub(crate) fn offers(&self) -> Vec<&'static str> {
        self.options
            .schemes
            .iter()
            .map(|scheme| if *scheme == Scheme::Basic { "Basic realm=\"WSMAN\"" } else { name(*scheme) })
            .collect()
    }

    /// The sealing keys, once a handshake with sealing has ended, and what sealed bodies are called.
    pub(crate) fn protection(&mut self) -> Option<(&mut Protection, Protocol)> {
        match &mut self.state {
            State::Established { protection: Some(protection), protocol, .. } => Some((protection, *protocol)),
            _ => None,
        }
    }

    /// Whether the connection belongs to somebody.
    pub(crate) fn established(&self) -> bool {
        matches!(self.state, State::Established { .. })
    }

    /// Forgets who the connection belongs to: its cipher stream is broken.
    pub(crate) fn forget(&mut self) {
        self.state = State::Fresh;
    }

    /// Judges one request by its `Authorization` header, and by the host's keys if it has some.
    pub(crate) fn judge(&mut self, header: Option<&str>, keytab: Option<&Keytab>) -> Verdict {
        let Some(header) = header else {
            return match &self.state {
                State::Established { user, .. } => Verdict::Accepted { user: user.clone(), header: None, means: None },
                _ => Verdict::Anonymous,
            };
        };
        let (name, value) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let scheme = match name.to_ascii_lowercase().as_str() {
            "basic" => Scheme::Basic,
            "ntlm" => Scheme::Ntlm,
            "negotiate" => Scheme::Negotiate,
            "kerberos" => Scheme::Kerberos,
            _ => return violation(format!("the scheme {name} is not known")),
        };
        if !self.options.schemes.contains(&scheme) {
            return violation(format!("the scheme {name} is not enabled"));
        }
        if header.len() > MAX_HEADER {
            return violation("the Authorization header is too large");
        }
        let Ok(token) = BASE64.decode(value.trim()) else {
            return violation("the Authorization header is not base64");
        };
        if scheme == Scheme::Basic {
            return self.basic(&token);
        }
        let state = std::mem::replace(&mut self.state, State::Fresh);
        match self.step(scheme, &token, keytab, state) {
            Ok((state, verdict)) => {
                self.state = state;
                verdict
            }
            Err(rejected) => rejected,
        }
    }

    fn basic(&self, token: &[u8]) -> Verdict {
        // Windows sends the client's credentials over plain HTTP only when told that this is fine.
        if self.channel_is_plain() && !self.options.allow_unencrypted {
            return violation("Basic over plain HTTP while AllowUnencrypted is false");
        }
        // Clients that do not say UTF-8 mean Latin-1: Python's requests does.
        let text =
            std::str::from_utf8(token).map_or_else(|_| token.iter().copied().map(char::from).collect(), str::to_owned);
        let Some((name, password)) = text.split_once(':') else {
            return violation("the Basic credentials are not name:password");
        };
        let (domain, short) = name.split_once('\\').unwrap_or(("", name));
        let user = self.options.users.iter().find(|user| user.answers_to(domain, short, &self.options.hostname));
        match user {
            Some(user) if user.password() == password => {
                Verdict::Accepted { user: user.name().to_owned(), header: None, means: Some(Means::Basic) }
            }
            _ => logon_refused(name.to_owned()),
        }
    }

    fn channel_is_plain(&self) -> bool {
        self.options.tls.is_none()
    }

    /// One token of a handshake. The error is a rejection.
    fn step(
        &self,
        scheme: Scheme,
        token: &[u8],
        keytab: Option<&Keytab>,
        state: State,
    ) -> Result<(State, Verdict), Verdict> {
        let raw = if token.starts_with(b"NTLMSSP\0") {
            Some(Mechanism::Ntlm)
        } else {
            spnego::is_raw_kerberos(token).then_some(Mechanism::Kerberos)
        };
        match (scheme, raw) {
            (Scheme::Ntlm | Scheme::Negotiate, Some(Mechanism::Ntlm)) => match state {
                State::Challenged { challenge, wrapping: None } if token.get(8) == Some(&3) => {
                    self.finish_ntlm(scheme, challenge, token, None)
                }
                _ => self.challenge(scheme, token, None),
            },
            (Scheme::Kerberos | Scheme::Negotiate, Some(Mechanism::Kerberos)) => {
                self.kerberos(scheme, token, keytab, None)
            }
            (Scheme::Negotiate, None) => self.negotiate(token, keytab, state),
            _ => Err(violation(format!("the {} scheme carries something else", name(scheme)))),
        }
    }

    fn negotiate(&self, token: &[u8], keytab: Option<&Keytab>, state: State) -> Result<(State, Verdict), Verdict> {
        match spnego::Token::parse(token).map_err(|_| violation("not an SPNEGO token"))? {
            spnego::Token::Init { mechanisms, offered, token } => {
                let accepts = |mechanism| mechanism == Mechanism::Ntlm || keytab.is_some();
                let choice = spnego::choose(&offered, accepts)
                    .ok_or_else(|| violation("the client offers no mechanism that this host has"))?;
                let mut wrapping = Wrapping {
                    mechanism: choice.mechanism,
                    unnamed: Some(choice.oid.to_vec()),
                    mechanisms: mechanisms.to_vec(),
                    mic_mandatory: !choice.favourite,
                };
                match (token, choice) {
                    (Some(token), spnego::Choice { favourite: true, .. }) => self.first(token, keytab, wrapping, None),
                    // The optimistic token is for another mechanism, or there is none.
                    _ => {
                        let named = wrapping.unnamed.take();
                        let answer = spnego::response(spnego::State::Incomplete, named.as_deref(), None, None);
                        let verdict = Verdict::Continue(header(Scheme::Negotiate, &answer));
                        Ok((State::Chosen(wrapping), verdict))
                    }
                }
            }
            spnego::Token::Response { token, mechanism_list_mic } => match (state, token) {
                (State::Chosen(wrapping), Some(token)) => self.first(token, keytab, wrapping, mechanism_list_mic),
                (State::Challenged { challenge, wrapping: Some(wrapping) }, Some(token)) => {
                    self.finish_ntlm(Scheme::Negotiate, challenge, token, Some((wrapping, mechanism_list_mic)))
                }
                (State::Unprotected(wrapping, mut logged_on), None) => {
                    verify_list(&mut logged_on, &wrapping, mechanism_list_mic)?;
                    Ok(established(Scheme::Negotiate, logged_on, None))
                }
                _ => Err(violation("an SPNEGO answer without a question")),
            },
        }
    }

    /// The first token of the mechanism that SPNEGO has chosen.
    fn first(
        &self,
        token: &[u8],
        keytab: Option<&Keytab>,
        wrapping: Wrapping,
        mechanism_list_mic: Option<&[u8]>,
    ) -> Result<(State, Verdict), Verdict> {
        match wrapping.mechanism {
            Mechanism::Ntlm => self.challenge(Scheme::Negotiate, token, Some(wrapping)),
            Mechanism::Kerberos => {
                self.kerberos(Scheme::Negotiate, token, keytab, Some((wrapping, mechanism_list_mic)))
            }
        }
    }

    fn kerberos(
        &self,
        scheme: Scheme,
        token: &[u8],
        keytab: Option<&Keytab>,
        wrapping: Option<(Wrapping, Option<&[u8]>)>,
    ) -> Result<(State, Verdict), Verdict> {
        let (Some(settings), Some(keytab)) = (&self.options.kerberos, keytab) else {
            return Err(violation("Kerberos on a host without a keytab"));
        };
        let accepted = kerberos::accept(keytab, token, self.bindings.as_ref(), settings.numbering);
        let accepted = accepted.map_err(|refusal| {
            let named = wrapping.as_ref().map(|(wrapping, _)| wrapping.unnamed.as_deref());
            refused_token(scheme, keytab, &refusal, named)
        })?;
        let Some(user) = settings.user(&accepted.principal) else {
            // The ticket is fine, its owner has no business here.
            return Err(logon_refused(accepted.principal));
        };
        let means = Means::Kerberos { delegated: accepted.delegated };
        let protection = accepted.sealing.map(|sealing| Protection::Kerberos(Box::new(sealing)));
        let mut logged_on = LoggedOn { user, means, protection };
        let Some((mut wrapping, mic)) = wrapping else {
            return Ok(established(scheme, logged_on, accepted.reply));
        };
        let named = wrapping.unnamed.take();
        let answer =
            |state, mic: Option<&[u8]>| spnego::response(state, named.as_deref(), accepted.reply.as_deref(), mic);
        if mic.is_none() && !wrapping.mic_mandatory {
            let answer = answer(spnego::State::Completed, None);
            return Ok(established(scheme, logged_on, Some(answer)));
        }
        if mic.is_some() {
            verify_list(&mut logged_on, &wrapping, mic)?;
        }
        let own = sign_list(&mut logged_on, &wrapping)?;
        if mic.is_some() {
            let answer = answer(spnego::State::Completed, Some(&own));
            return Ok(established(scheme, logged_on, Some(answer)));
        }
        let verdict = Verdict::Continue(header(scheme, &answer(spnego::State::Incomplete, Some(&own))));
        Ok((State::Unprotected(wrapping, logged_on), verdict))
    }

    fn challenge(
        &self,
        scheme: Scheme,
        token: &[u8],
        mut wrapping: Option<Wrapping>,
    ) -> Result<(State, Verdict), Verdict> {
        // The domain of the challenge is that of the first domain account; a host without one is in a workgroup.
        let domain = self.options.users.iter().find_map(|user| user.name().split_once('\\'));
        let domain = domain.map_or(self.options.hostname.as_str(), |(domain, _)| domain);
        let challenge = Challenge::new(token, &self.options.hostname, domain)?;
        let answer = match &mut wrapping {
            None => challenge.message().to_vec(),
            Some(wrapping) => {
                let named = wrapping.unnamed.take();
                spnego::response(spnego::State::Incomplete, named.as_deref(), Some(challenge.message()), None)
            }
        };
        let verdict = Verdict::Continue(header(scheme, &answer));
        Ok((State::Challenged { wrapping, challenge }, verdict))
    }

    fn finish_ntlm(
        &self,
        scheme: Scheme,
        challenge: Challenge,
        token: &[u8],
        wrapping: Option<(Wrapping, Option<&[u8]>)>,
    ) -> Result<(State, Verdict), Verdict> {
        let bindings = self.bindings.as_ref().map(|expected| (&expected.ntlm, expected.mandatory));
        let proved = challenge.verify(token, &self.options.users, &self.options.hostname, bindings)?;
        let protection = proved.sealing.map(|sealing| Protection::Ntlm(Box::new(sealing)));
        let mut logged_on = LoggedOn { user: proved.user, means: Means::Ntlm, protection };
        let answer = match wrapping {
            None => None,
            Some((wrapping, None)) if wrapping.mic_mandatory => {
                return Err(violation("the list of mechanisms is not protected"));
            }
            Some((_, None)) => Some(spnego::response(spnego::State::Completed, None, None, None)),
            Some((wrapping, mic)) => {
                verify_list(&mut logged_on, &wrapping, mic)?;
                let own = sign_list(&mut logged_on, &wrapping)?;
                Some(spnego::response(spnego::State::Completed, None, None, Some(&own)))
            }
        };
        Ok(established(scheme, logged_on, answer))
    }
}

impl From<Rejection> for Verdict {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Logon { user, .. } => logon_refused(user),
            other => violation(other.to_string()),
        }
    }
}

/// Checks the client's mechListMIC.
fn verify_list(logged_on: &mut LoggedOn, wrapping: &Wrapping, mic: Option<&[u8]>) -> Result<(), Verdict> {
    let mic = mic.ok_or_else(|| violation("the list of mechanisms is not protected"))?;
    let protection = logged_on.protection.as_mut().ok_or_else(|| violation("a mechListMIC without session keys"))?;
    protection.verify_mechanism_list(mic, &wrapping.mechanisms).map_err(|_| violation("wrong mechListMIC"))
}

fn sign_list(logged_on: &mut LoggedOn, wrapping: &Wrapping) -> Result<Vec<u8>, Verdict> {
    let protection = logged_on.protection.as_mut().ok_or_else(|| violation("a mechListMIC without session keys"))?;
    protection.sign_mechanism_list(&wrapping.mechanisms).map_err(|error| violation(error.to_string()))
}

/// The end of a handshake, with the last token for the client.
fn established(scheme: Scheme, logged_on: LoggedOn, answer: Option<Vec<u8>>) -> (State, Verdict) {
    let LoggedOn { user, means, protection } = logged_on;
    let header = answer.map(|answer| header(scheme, &answer));
    let verdict = Verdict::Accepted { user: user.clone(), header, means: Some(means) };
    let protocol = if scheme == Scheme::Kerberos { Protocol::Kerberos } else { Protocol::Spnego };
    (State::Established { user, protection, protocol }, verdict)
}

/// A Kerberos token that is no good. `named` is the mechanism to name in SPNEGO's answer, if SPNEGO is spoken.
fn refused_token(scheme: Scheme, keytab: &Keytab, refusal: &Refusal, named: Option<Option<&[u8]>>) -> Verdict {
    tracing::debug!(error = %refusal, "Kerberos token refused");
    match refusal {
        Refusal::Ticket { code, .. } => {
            let token = kerberos::error_token(*code, keytab);
            let token = match named {
                None => token,
                Some(named) => spnego::response(spnego::State::Incomplete, named, Some(&token), None),
            };
            Verdict::Rejected { refused: Refused::Ticket(code.name()), header: Some(header(scheme, &token)) }
        }
        // The acceptor does not tell whose ticket it was.
        Refusal::Bindings => logon_refused("(wrong or no channel bindings)".to_owned()),
        Refusal::Malformed(_) => violation(refusal.to_string()),
    }
}

fn name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Basic => "Basic",
        Scheme::Ntlm => "NTLM",
        Scheme::Negotiate => "Negotiate",
        Scheme::Kerberos => "Kerberos",
    }
}

fn header(scheme: Scheme, token: &[u8]) -> String {
    format!("{} {}", name(scheme), BASE64.encode(token))
}

fn logon_refused(user: String) -> Verdict {
    Verdict::Rejected { refused: Refused::Logon(user), header: None }
}

fn violation(reason: impl Into<String>) -> Verdict {
    Verdict::Rejected { refused: Refused::Violation(reason.into()), header: None }
}
