//! Checks of secrets: what they are called, where they are, and what a value may be.

use std::collections::HashMap;

use lictor_proto::v1::{Secret, SecretKind};

use super::{Checker, NAME, SCOPE, Violations, is_name, is_scope, is_text};
use crate::store::secrets::ON_AGENT;

/// A checked secret. Kind and manager may be unset: as what is stored, or a default.
pub(crate) fn secret(secret: Option<Secret>) -> Result<Secret, Violations> {
    let mut checker = Checker::default();
    let secret = secret.unwrap_or_default();
    checker.check(is_name(&secret.identifier), "secret.identifier", NAME);
    checker.described("secret", &secret.name, &secret.description, &secret.tags);
    checker.check(is_scope(&secret.scope), "secret.scope", SCOPE);
    checker.check(SecretKind::try_from(secret.kind).is_ok(), "secret.kind", "text or file");
    checker.check(secret.manager.is_empty() || is_name(&secret.manager), "secret.manager", NAME);
    let source = &secret.source;
    checker.check(source.is_empty() || is_source(source), "secret.source", SOURCE);
    // Of one whose manager is not said it shows once the stored one is known.
    let elsewhere = !secret.manager.is_empty() && secret.manager != ON_AGENT;
    checker.check(source.is_empty() || !elsewhere, "secret.source", "empty unless the secret manager is `agent`");
    checker.finish(secret)
}

/// Whether a value of this kind may be stored.
pub(crate) fn secret_value(kind: SecretKind, value: &[u8]) -> Result<(), Violations> {
    let mut checker = Checker::default();
    checker.check(!value.is_empty(), "value", "not empty; delete the secret if nothing is to be there");
    match kind {
        SecretKind::Text | SecretKind::Unspecified => {
            checker.check(value.len() <= MAX_TEXT_BYTES, "value", "a text of at most 64 KiB; a file may have 256 KiB");
            let text = std::str::from_utf8(value).is_ok_and(|text| !text.contains('\0'));
            checker.check(text, "value", "UTF-8 without NUL; bytes of any other kind are a secret of the kind file");
        }
        SecretKind::File => checker.check(value.len() <= MAX_FILE_BYTES, "value", "at most 256 KiB"),
    }
    checker.finish(())
}

impl Checker {
    /// What secrets and secret managers have for people to read.
    pub(super) fn described(&mut self, prefix: &str, name: &str, text: &str, tags: &HashMap<String, String>) {
        let field = |name: &str| format!("{prefix}.{name}");
        self.check(is_text(name, 128), &field("name"), "one line of at most 128 characters");
        self.check(is_text(text, 500), &field("description"), "one line of at most 500 characters");
        let good = tags.len() <= 32
            && tags.iter().all(|(key, value)| !key.is_empty() && is_text(key, 64) && is_text(value, 128));
        self.check(
            good,
            &field("tags"),
            "at most 32, keys of 1 to 64 and values of up to 128 characters, one line each",
        );
    }
}

/// The agent has the same rule, and bounds beside it which directories and which variables.
fn is_source(text: &str) -> bool {
    if let Some(path) = text.strip_prefix("file:") {
        let plain = path.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..");
        return path.starts_with('/') && path.len() <= 1024 && plain && is_text(path, 1024);
    }
    let name = text.strip_prefix("env:LICTOR_SECRET_");
    name.is_some_and(|name| {
        (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

const MAX_TEXT_BYTES: usize = 64 << 10;
const MAX_FILE_BYTES: usize = 256 << 10;
const SOURCE: &str = "`file:` and an absolute path, or `env:` and the name of a variable LICTOR_SECRET_<name>";

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut Secret)) -> String {
        let mut given = Secret { identifier: "db-password".into(), ..Secret::default() };
        change(&mut given);
        secret(Some(given)).err().map(|violations| violations.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(wrong(|_| {}), "");
        let found = wrong(|secret| {
            *secret = Secret {
                identifier: "a b".into(),
                name: "x".repeat(129),
                description: "two\nlines".into(),
                tags: [(String::new(), "v".to_owned())].into(),
                scope: "/a".into(),
                kind: 9,
                manager: "a b".into(),
                source: "http://x".into(),
                ..Secret::default()
            }
        });
        for field in ["identifier", "name", "description", "tags", "scope", "kind", "manager", "source"] {
            assert!(found.contains(&format!("secret.{field}: ")), "{field} in {found}");
        }
        assert_ne!(wrong(|secret| secret.identifier.clear()), "");
        let tags = |count: usize| (0..count).map(|tag| (format!("t{tag}"), String::new())).collect();
        assert_eq!(wrong(|secret| secret.tags = tags(32)), "");
        assert!(wrong(|secret| secret.tags = tags(33)).starts_with("secret.tags: at most 32"));
    }

    #[test]
    fn sources() {
        for good in ["file:/etc/lictor/secrets/db", "env:LICTOR_SECRET_DB", "env:LICTOR_SECRET_db_2"] {
            assert_eq!(wrong(|secret| secret.source = good.into()), "", "{good}");
        }
        let long = format!("file:/{}", "x".repeat(1024));
        for bad in [
            "file:",
            "file:/",
            "file:etc/x",
            "file:/a/../b",
            "file:/a/./b",
            "file:/a//b",
            "file:/a\nb",
            "env:",
            "env:PATH",
            "env:LICTOR_SECRET_",
            "env:LICTOR_SECRET_A B",
            "vault:x",
            &long,
        ] {
            assert!(wrong(|secret| secret.source = bad.into()).contains("secret.source: "), "{bad}");
        }
        let in_kms = wrong(|secret| (secret.manager, secret.source) = ("corp".into(), "file:/a".into()));
        assert!(in_kms.contains("empty unless"), "{in_kms}");
    }

    #[test]
    fn values() {
        let text =
            |value: &[u8]| secret_value(SecretKind::Text, value).err().map(|v| v.to_string()).unwrap_or_default();
        assert_eq!(text(b"x"), "");
        assert_eq!(text("ä".repeat(32 << 10).as_bytes()), "");
        assert!(text(b"").contains("not empty"));
        assert!(text(&[b'x'; (64 << 10) + 1]).contains("at most 64 KiB"));
        assert!(text(&[0xff, 0xfe]).contains("of the kind file"));
        assert!(text(b"a\0b").contains("without NUL"));
        let file =
            |value: &[u8]| secret_value(SecretKind::File, value).err().map(|v| v.to_string()).unwrap_or_default();
        assert_eq!(file(&[5, 2, 0, 0xff]), "");
        assert_eq!(file(&vec![0; 256 << 10]), "");
        assert!(file(&vec![0; (256 << 10) + 1]).contains("at most 256 KiB"));
        assert!(file(b"").contains("not empty"));
    }
}
