//! Users and their bearer tokens.
//!
//! Only hashes of tokens are kept, and comparing takes the same time wherever two of them differ.

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tonic::{Request, Status};

use crate::store::fleet::User;

/// Everybody who may call.
#[derive(Debug)]
pub(crate) struct Users {
    users: Vec<User>,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) String);

impl Users {
    pub(crate) fn new(users: Vec<User>) -> Self {
        Self { users }
    }

    /// Lets a call through whose token is a user's, and notes whose.
    pub(crate) fn authenticate(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(token) = token else {
            return Err(Status::unauthenticated(format!("the call carries no bearer token; {REMEDY}")));
        };
        let hash = hash_token(token);
        let (mut found, mut index) = (Choice::from(0), 0u64);
        for (at, user) in (0u64..).zip(&self.users) {
            let same = hash.as_slice().ct_eq(&user.token_hash);
            found |= same;
            index.conditional_assign(&at, same);
        }
        let user = usize::try_from(index).ok().and_then(|index| self.users.get(index));
        match user.filter(|_| bool::from(found)) {
            Some(user) => {
                request.extensions_mut().insert(Caller(user.name.clone()));
                Ok(request)
            }
            None => Err(Status::unauthenticated(format!("the bearer token is not a user's; {REMEDY}"))),
        }
    }
}

/// What is kept of a user's token. Tokens are random, so a plain hash is enough.
pub(crate) fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The caller that [`Users::authenticate`] noted.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<String, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.map(|caller| caller.0.clone()).ok_or_else(|| Status::unauthenticated("the call was not authenticated"))
}

const REMEDY: &str =
    "give it with --token-file or LICTOR_TOKEN; the administrator's is in the file admin-token of the state directory";

#[cfg(test)]
mod tests {
    use super::*;

    fn call(authorization: Option<&str>) -> Result<String, Status> {
        let users = ["a", "b"].map(|name| User { name: name.into(), token_hash: hash_token(name).to_vec() });
        let mut request = Request::new(());
        if let Some(text) = authorization {
            request.metadata_mut().insert("authorization", text.parse().unwrap());
        }
        Users::new(users.to_vec()).authenticate(request).map(|request| caller(&request).unwrap())
    }

    #[test]
    fn only_known_tokens_pass() {
        assert_eq!(call(Some("Bearer a")).unwrap(), "a");
        assert_eq!(call(Some("bearer b")).unwrap(), "b");
        for wrong in [None, Some("Bearer c"), Some("Basic a"), Some("a"), Some("Bearer ")] {
            let status = call(wrong).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert!(status.message().contains("admin-token"), "{status}");
        }
    }
}
