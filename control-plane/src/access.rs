//! Who may do what where: roles, scopes, callers, and the directory of users.
//!
//! Pure but for the locks of [`Directory`] and [`Guard`]. It reads no clock and no database: the engine fills the
//! directory from what it has committed, the services ask it. A token's text comes in here, is hashed and forgotten; it
//! must never be kept, logged or put into an error.

mod directory;
mod guard;

use lictor_proto::v1;
use sha2::{Digest as _, Sha256};

pub(crate) use directory::{Directory, NoEntry};
pub(crate) use guard::{Guard, Refused, Summary};

/// What a user may do. Each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    Viewer,
    Operator,
    Admin,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The number that is sent and stored.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Viewer => v1::Role::Viewer.into(),
            Self::Operator => v1::Role::Operator.into(),
            Self::Admin => v1::Role::Admin.into(),
        }
    }

    pub(crate) fn from_number(number: i32) -> Option<Self> {
        match v1::Role::try_from(number) {
            Ok(v1::Role::Viewer) => Some(Self::Viewer),
            Ok(v1::Role::Operator) => Some(Self::Operator),
            Ok(v1::Role::Admin) => Some(Self::Admin),
            Ok(v1::Role::Unspecified) | Err(_) => None,
        }
    }
}

/// A user who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) token_id: String,
    pub(crate) role: Role,
    pub(crate) scope: String,
    /// Address the call came from.
    pub(crate) source: String,
}

impl Caller {
    /// Whether something of this scope exists for the caller.
    pub(crate) fn sees(&self, scope: &str) -> bool {
        within(&self.scope, scope)
    }

    /// The scope of something that the caller makes: the one asked for, or the caller's own. Nothing when the one asked
    /// for is not the caller's to give.
    pub(crate) fn scope_for(&self, wanted: &str) -> Option<String> {
        if wanted.is_empty() {
            return Some(self.scope.clone());
        }
        self.sees(wanted).then(|| wanted.to_owned())
    }
}

/// Whether `scope` is `outer` or below it. Everything is below the empty scope; the empty scope is only below itself.
pub(crate) fn within(outer: &str, scope: &str) -> bool {
    outer.is_empty() || scope.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is kept of a user's token. The token is 256 random bits: nobody can try them all, so a plain hash is as good as
/// one made slow or salted for the sake of guessable passwords, and a slow one would let strangers keep us busy.
pub(crate) fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The identifier of the token with this hash.
pub(crate) fn token_id(hash: &[u8; 32]) -> String {
    crate::authority::hex(&hash[..8])
}

/// A new token's text.
pub(crate) fn new_token() -> zeroize::Zeroizing<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let secret = zeroize::Zeroizing::new(rand::random::<[u8; 32]>());
    zeroize::Zeroizing::new(format!("lictor-user.{}", URL_SAFE_NO_PAD.encode(*secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_paths_not_prefixes() {
        for (outer, scope, expected) in [
            ("", "", true),
            ("", "a", true),
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "ab", false),
            ("a", "", false),
            ("a/b", "a", false),
        ] {
            assert_eq!(within(outer, scope), expected, "{outer:?} {scope:?}");
        }
    }

    #[test]
    fn what_a_caller_makes_stays_within_the_callers_scope() {
        let caller = Caller {
            user: "u".into(),
            token_id: "t".into(),
            role: Role::Operator,
            scope: "team/a".into(),
            source: String::new(),
        };
        assert_eq!(caller.scope_for("").as_deref(), Some("team/a"));
        assert_eq!(caller.scope_for("team/a/web").as_deref(), Some("team/a/web"));
        for other in ["team", "team/b", "team/ab"] {
            assert_eq!(caller.scope_for(other), None, "{other}");
        }
    }

    #[test]
    fn roles_are_ordered_and_survive_their_numbers() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert_eq!(Role::from_number(role.number()), Some(role));
        }
        assert_eq!(Role::from_number(0), None);
        assert_eq!(Role::from_number(99), None);
    }

    #[test]
    fn a_tokens_id_is_the_beginning_of_its_hash() {
        // printf lictor-user.x | sha256sum
        assert_eq!(token_id(&hash_token("lictor-user.x")), "44185aa5c13f436e");
        assert_eq!(new_token().len(), "lictor-user.".len() + 43);
    }
}
