//! Join tokens: what an operator hands to an agent so that it can enrol.
//!
//! `lictor-join.<id>.<secret>.<pin>`: the identifier names the token's record, the secret proves possession, the pin is
//! the SHA-256 of the SubjectPublicKeyInfo of the control plane's authority, so that the very first connection is
//! already authenticated. Secret and pin are base64url without padding. A token is a secret and is never printed by
//! [`std::fmt::Debug`].

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// A join token in its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names the token's record; not secret. Letters, digits and `-`.
    pub id: String,
    /// Proves possession; 32 bytes.
    pub secret: Zeroizing<[u8; 32]>,
    /// SHA-256 of the SubjectPublicKeyInfo (DER) of the control plane's authority.
    pub pin: [u8; 32],
}

impl JoinToken {
    /// The text of the token.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(*self.secret));
        let pin = URL_SAFE_NO_PAD.encode(self.pin);
        Zeroizing::new(format!("{PREFIX}.{}.{}.{pin}", self.id, *secret))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).field("secret", &"[redacted]").finish_non_exhaustive()
    }
}

/// Why a text is not a join token. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not four parts behind the prefix.
    #[error("not a join token: expected the form {PREFIX}.<id>.<secret>.<pin>")]
    Form,
    /// The identifier has other characters.
    #[error("not a join token: its identifier has characters other than letters, digits and '-', or is too long")]
    Id,
    /// The secret does not decode.
    #[error("not a join token: its secret is not 32 bytes in base64url; was it cut when it was copied?")]
    Secret,
    /// The pin does not decode.
    #[error("not a join token: its pin is not 32 bytes in base64url; was it cut when it was copied?")]
    Pin,
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(id), Some(secret), Some(pin), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Form);
        };
        if id.is_empty() || id.len() > MAX_ID_LENGTH || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(TokenError::Id);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: Zeroizing::new(decode(secret).ok_or(TokenError::Secret)?),
            pin: decode(pin).ok_or(TokenError::Pin)?,
        })
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
    bytes.as_slice().try_into().ok()
}

const PREFIX: &str = "lictor-join";
const MAX_ID_LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_redaction() {
        let token = JoinToken { id: "0197-ab".into(), secret: Zeroizing::new([0xA5; 32]), pin: [7; 32] };
        let text = token.to_text();
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert_eq!(format!(" {}\n", *text).parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("165"));
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let good = JoinToken { id: "i".into(), secret: Zeroizing::new([1; 32]), pin: [2; 32] }.to_text();
        let parts: Vec<&str> = good.split('.').collect();
        for (text, error) in [
            (String::new(), TokenError::Form),
            ("a.b.c.d".into(), TokenError::Form),
            (format!("{}.extra", *good), TokenError::Form),
            (format!("{}.i i.{}.{}", parts[0], parts[2], parts[3]), TokenError::Id),
            (format!("{}.i.{}.{}", parts[0], &parts[2][1..], parts[3]), TokenError::Secret),
            (format!("{}.i.{}.{}", parts[0], parts[2], &parts[3][1..]), TokenError::Pin),
        ] {
            assert_eq!(text.parse::<JoinToken>().unwrap_err(), error, "{text}");
        }
    }
}
