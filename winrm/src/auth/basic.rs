//! HTTP Basic ([RFC 7617], UTF-8). The credential travels with every request, so `connection` allows it only over TLS, or
//! over plain HTTP when the caller says so.
//!
//! [RFC 7617]: https://www.rfc-editor.org/rfc/rfc7617

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::ContextError;
use crate::target::{Credential, Secret};

/// The `Authorization` value.
///
/// # Errors
/// [`ContextError::Credential`] when the user name holds a colon, or either part holds control characters: the scheme cannot
/// carry them.
pub fn authorization(credential: &Credential) -> Result<Zeroizing<String>, ContextError> {
    let user = credential.username();
    let Some(password) = credential.secret().map(Secret::expose) else {
        return Err(ContextError::Credential("Basic needs a password, and there is none".into()));
    };
    if user.contains(':') {
        return Err(ContextError::Credential("a user name with a colon cannot be sent by Basic".into()));
    }
    if user.chars().chain(password.chars()).any(char::is_control) {
        return Err(ContextError::Credential("control characters cannot be sent by Basic".into()));
    }
    let length = user.len() + 1 + password.len();
    let mut pair = Zeroizing::new(Vec::with_capacity(length));
    pair.extend_from_slice(user.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(password.as_bytes());
    let mut value = Zeroizing::new(String::with_capacity("Basic ".len() + length.div_ceil(3) * 4));
    value.push_str("Basic ");
    STANDARD.encode_string(&*pair, &mut value);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    fn credential(user: &str, password: &str) -> Credential {
        Credential::password(user, Secret::new(password.into()))
    }

    #[test]
    fn vectors_of_rfc_7617() {
        let value = authorization(&credential("Aladdin", "open sesame")).unwrap();
        assert_eq!(*value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let value = authorization(&credential("test", "123\u{a3}")).unwrap();
        assert_eq!(*value, "Basic dGVzdDoxMjPCow==");
    }

    #[test]
    fn what_the_scheme_cannot_carry_is_refused() {
        assert!(authorization(&credential("a:b", "x")).is_err());
        assert!(authorization(&credential("a", "x\n")).is_err());
        assert!(authorization(&credential("a", "x:y")).is_ok());
    }
}
