//! Authentication of one TCP connection: which scheme, how far the handshake is, whose connection it is, and its sealing keys.
//!
//! Sans I/O: takes `Authorization` headers, returns what to answer. The state dies with the connection and is never shared.

pub(crate) mod ntlm;
pub(crate) mod seal;
mod spnego;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use self::ntlm::{Challenge, Rejection, Sealing};
use crate::options::{ChannelBindings, Options, Scheme};

/// Larger `Authorization` headers are refused before they are decoded. Kerberos tokens reach 64 KiB, NTLM's stay below 4.
const MAX_HEADER: usize = 128 * 1024;

/// The authentication of one connection.
pub(crate) struct Authentication {
    options: Arc<Options>,
    /// The hash of `tls-server-end-point`, on TLS connections.
    channel_bindings: Option<[u8; 16]>,
    state: State,
}

enum State {
    Fresh,
    /// SPNEGO chose NTLM, but its first token is not here yet.
    Chosen(Wrapping),
    Challenged {
        wrapping: Option<Wrapping>,
        challenge: Challenge,
    },
    Established {
        user: String,
        sealing: Option<Box<Sealing>>,
    },
}

/// The SPNEGO dialogue around the NTLM messages.
struct Wrapping {
    /// DER of the client's list of mechanisms.
    mechanisms: Vec<u8>,
    /// NTLM is not the client's first choice, so the list must be protected by a MIC.
    mic_mandatory: bool,
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
    },
    /// 401 with the list of schemes.
    Rejected {
        /// Who failed to log on, when it was that.
        user: Option<String>,
        reason: String,
    },
}

impl Authentication {
    pub(crate) fn new(options: Arc<Options>, channel_bindings: Option<[u8; 16]>) -> Self {
        Self { options, channel_bindings, state: State::Fresh }
    }

    /// The `WWW-Authenticate` headers of an unauthenticated answer.
    pub(crate) fn offers(&self) -> Vec<&'static str> {
        self.options
            .schemes
            .iter()
            .map(|scheme| match scheme {
                Scheme::Basic => "Basic realm=\"WSMAN\"",
                Scheme::Ntlm => "NTLM",
                Scheme::Negotiate => "Negotiate",
            })
            .collect()
    }

    /// The sealing keys, once a handshake with sealing has ended.
    pub(crate) fn sealing(&mut self) -> Option<&mut Sealing> {
        match &mut self.state {
            State::Established { sealing, .. } => sealing.as_deref_mut(),
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

    /// Judges one request by its `Authorization` header.
    pub(crate) fn judge(&mut self, header: Option<&str>) -> Verdict {
        let Some(header) = header else {
            return match &self.state {
                State::Established { user, .. } => Verdict::Accepted { user: user.clone(), header: None },
                _ => Verdict::Anonymous,
            };
        };
        let (name, value) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let scheme = match name.to_ascii_lowercase().as_str() {
            "basic" => Scheme::Basic,
            "ntlm" => Scheme::Ntlm,
            "negotiate" => Scheme::Negotiate,
            _ => return rejected(format!("the scheme {name} is not known")),
        };
        if !self.options.schemes.contains(&scheme) {
            return rejected(format!("the scheme {name} is not enabled"));
        }
        if header.len() > MAX_HEADER {
            return rejected("the Authorization header is too large");
        }
        let Ok(token) = BASE64.decode(value.trim()) else {
            return rejected("the Authorization header is not base64");
        };
        match scheme {
            Scheme::Basic => self.basic(&token),
            Scheme::Ntlm | Scheme::Negotiate => self.handshake(scheme, &token),
        }
    }

    fn basic(&self, token: &[u8]) -> Verdict {
        // Windows sends the client's credentials over plain HTTP only when told that this is fine.
        if self.channel_is_plain() && !self.options.allow_unencrypted {
            return rejected("Basic over plain HTTP while AllowUnencrypted is false");
        }
        // Clients that do not say UTF-8 mean Latin-1: Python's requests does.
        let text =
            std::str::from_utf8(token).map_or_else(|_| token.iter().copied().map(char::from).collect(), str::to_owned);
        let Some((name, password)) = text.split_once(':') else {
            return rejected("the Basic credentials are not name:password");
        };
        let (domain, short) = name.split_once('\\').unwrap_or(("", name));
        let user = self.options.users.iter().find(|user| user.answers_to(domain, short, &self.options.hostname));
        match user {
            Some(user) if user.password() == password => {
                Verdict::Accepted { user: user.name().to_owned(), header: None }
            }
            _ => Verdict::Rejected { user: Some(name.to_owned()), reason: "unknown user or wrong password".to_owned() },
        }
    }

    fn channel_is_plain(&self) -> bool {
        self.options.tls.is_none()
    }

    fn handshake(&mut self, scheme: Scheme, token: &[u8]) -> Verdict {
        let state = std::mem::replace(&mut self.state, State::Fresh);
        match self.step(scheme, token, state) {
            Ok((state, verdict)) => {
                self.state = state;
                verdict
            }
            Err(Rejection::Logon { user, reason }) => Verdict::Rejected { user: Some(user), reason: reason.to_owned() },
            Err(other) => rejected(other.to_string()),
        }
    }

    fn step(&self, scheme: Scheme, token: &[u8], state: State) -> Result<(State, Verdict), Rejection> {
        if token.starts_with(b"NTLMSSP\0") {
            return match state {
                State::Challenged { challenge, wrapping: None } if token.get(8) == Some(&3) => {
                    self.finish(scheme, challenge, token, None)
                }
                _ => self.challenge(scheme, token, None),
            };
        }
        if scheme == Scheme::Ntlm {
            return Err(Rejection::Malformed("the NTLM scheme carries something else"));
        }
        match spnego::Token::parse(token).map_err(|_| Rejection::Malformed("not an SPNEGO token"))? {
            spnego::Token::Init { ntlm: None, .. } => Err(Rejection::Refused("the client does not offer NTLM")),
            spnego::Token::Init { mechanisms, ntlm: Some(preference), token } => {
                let mic_mandatory = preference == spnego::Preference::Later;
                let wrapping = Wrapping { mechanisms: mechanisms.to_vec(), mic_mandatory };
                match token {
                    Some(token) if !mic_mandatory => self.challenge(scheme, token, Some(wrapping)),
                    // The optimistic token is for another mechanism, or there is none.
                    _ => {
                        let answer = spnego::response(spnego::State::Incomplete, true, None, None);
                        Ok((State::Chosen(wrapping), Verdict::Continue(header(scheme, &answer))))
                    }
                }
            }
            spnego::Token::Response { token, mechanism_list_mic } => {
                let token = token.ok_or(Rejection::Malformed("the SPNEGO token carries no NTLM message"))?;
                match state {
                    State::Chosen(wrapping) => self.challenge(scheme, token, Some(wrapping)),
                    State::Challenged { challenge, wrapping: Some(wrapping) } => {
                        self.finish(scheme, challenge, token, Some((wrapping, mechanism_list_mic)))
                    }
                    _ => Err(Rejection::Refused("an SPNEGO answer without a question")),
                }
            }
        }
    }

    fn challenge(
        &self,
        scheme: Scheme,
        token: &[u8],
        wrapping: Option<Wrapping>,
    ) -> Result<(State, Verdict), Rejection> {
        // The domain of the challenge is that of the first domain account; a host without one is in a workgroup.
        let domain = self.options.users.iter().find_map(|user| user.name().split_once('\\'));
        let domain = domain.map_or(self.options.hostname.as_str(), |(domain, _)| domain);
        let challenge = Challenge::new(token, &self.options.hostname, domain)?;
        let answer = match &wrapping {
            None => challenge.message().to_vec(),
            Some(wrapping) => {
                spnego::response(spnego::State::Incomplete, !wrapping.mic_mandatory, Some(challenge.message()), None)
            }
        };
        let verdict = Verdict::Continue(header(scheme, &answer));
        Ok((State::Challenged { wrapping, challenge }, verdict))
    }

    fn finish(
        &self,
        scheme: Scheme,
        challenge: Challenge,
        token: &[u8],
        wrapping: Option<(Wrapping, Option<&[u8]>)>,
    ) -> Result<(State, Verdict), Rejection> {
        let bindings = match (&self.channel_bindings, self.options.channel_bindings) {
            (Some(hash), ChannelBindings::Relaxed) => Some((hash, false)),
            (Some(hash), ChannelBindings::Strict) => Some((hash, true)),
            _ => None,
        };
        let mut established = challenge.verify(token, &self.options.users, &self.options.hostname, bindings)?;
        let answer = match wrapping {
            None => None,
            Some((wrapping, None)) if wrapping.mic_mandatory => {
                return Err(Rejection::Refused("the list of mechanisms is not protected"));
            }
            Some((_, None)) => Some(spnego::response(spnego::State::Completed, false, None, None)),
            Some((wrapping, Some(mic))) => {
                let sealing =
                    established.sealing.as_mut().ok_or(Rejection::Refused("a mechListMIC without session keys"))?;
                sealing
                    .verify_mechanism_list(mic, &wrapping.mechanisms)
                    .map_err(|_| Rejection::Refused("wrong mechListMIC"))?;
                let own = sealing.sign_mechanism_list(&wrapping.mechanisms);
                Some(spnego::response(spnego::State::Completed, false, None, Some(&own)))
            }
        };
        let verdict =
            Verdict::Accepted { user: established.user.clone(), header: answer.map(|answer| header(scheme, &answer)) };
        Ok((State::Established { user: established.user, sealing: established.sealing.map(Box::new) }, verdict))
    }
}

fn header(scheme: Scheme, token: &[u8]) -> String {
    let name = if scheme == Scheme::Ntlm { "NTLM" } else { "Negotiate" };
    format!("{name} {}", BASE64.encode(token))
}

fn rejected(reason: impl Into<String>) -> Verdict {
    Verdict::Rejected { user: None, reason: reason.into() }
}
