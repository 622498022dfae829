//! What a data key is bound to: the encryption context of KMS, which is also the associated data of the value.

use std::collections::BTreeMap;
use std::fmt;

/// Whose value it is: scope, secret and version. A data key that was made for one is refused for another, by KMS and by AES-GCM.
#[derive(Clone, PartialEq, Eq)]
pub struct Context(BTreeMap<&'static str, String>);

impl Context {
    /// The context of a version of a secret. The empty scope is written `/`, because KMS takes no empty values.
    #[must_use]
    pub fn new(scope: &str, identifier: &str, version: u64) -> Self {
        let scope = if scope.is_empty() { WHOLE_ACCOUNT } else { scope };
        Self(BTreeMap::from([
            (SCOPE, scope.to_owned()),
            (SECRET, identifier.to_owned()),
            (VERSION, version.to_string()),
        ]))
    }

    /// Whether a record says the same of itself.
    #[must_use]
    pub fn is<S: std::hash::BuildHasher>(&self, told: &std::collections::HashMap<String, String, S>) -> bool {
        self.0.len() == told.len() && self.0.iter().all(|(key, value)| told.get(*key) == Some(value))
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.0.iter().map(|(key, value)| ((*key).to_owned(), value.clone()))
    }

    /// The associated data: sorted by key, each key and value behind its length as 8 bytes.
    pub(crate) fn associated_data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for text in self.0.iter().flat_map(|(key, value)| [*key, value]) {
            data.extend_from_slice(&(text.len() as u64).to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        data
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

/// What stands for the empty scope. No scope is written so: a path neither begins nor ends with a slash.
const WHOLE_ACCOUNT: &str = "/";
const SCOPE: &str = "lictor:scope";
const SECRET: &str = "lictor:secret";
const VERSION: &str = "lictor:version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_associated_data_is_what_the_contract_says() {
        let context = Context::new("", "web", 7);
        let mut expected = Vec::new();
        for text in ["lictor:scope", "/", "lictor:secret", "web", "lictor:version", "7"] {
            expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
            expected.extend_from_slice(text.as_bytes());
        }
        assert_eq!(context.associated_data(), expected);
    }

    #[test]
    fn a_context_is_only_itself() {
        let context = Context::new("platform", "web", 7);
        let told: std::collections::HashMap<_, _> = context.pairs().collect();
        assert!(context.is(&told));
        let whole: std::collections::HashMap<_, _> = Context::new("", "web", 7).pairs().collect();
        for scope in ["account", "platform"] {
            assert!(!Context::new(scope, "web", 7).is(&whole), "{scope}");
        }
        for other in [Context::new("", "web", 7), Context::new("platform", "db", 7), Context::new("platform", "web", 8)]
        {
            assert!(!other.is(&told));
        }
        let mut more = told;
        more.insert("lictor:extra".to_owned(), "1".to_owned());
        assert!(!context.is(&more));
    }
}
