//! Patterns of user names. Compared without case, as Windows does. Pure.

/// `CORP\svc-*`, `*@corp.example`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// The texts between the asterisks, in lower case. One: no asterisk.
    parts: Vec<String>,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty".into());
        }
        if text.chars().any(char::is_control) {
            return Err("holds control characters".into());
        }
        Ok(Self { parts: text.to_lowercase().split('*').map(str::to_owned).collect() })
    }

    /// Whether the whole name fits. An asterisk stands for anything but what parts a domain from a user (`\`, `/`, `@`),
    /// so that no account of another domain fits; alone it stands for every name.
    pub(super) fn matches(&self, username: &str) -> bool {
        self.is_any() || self.fits(&username.to_lowercase())
    }

    /// Whether the name fits, or the account without its domain does, wherever the domain stands: a pattern without a
    /// domain is about the account in every domain.
    pub(super) fn matches_any_form(&self, username: &str) -> bool {
        let name = username.to_lowercase();
        let behind = name.rsplit(['\\', '/']).next().unwrap_or_default();
        let before = |text: &str| text.split('@').next().unwrap_or_default().to_owned();
        self.is_any()
            || self.fits(&name)
            || self.fits(behind)
            || self.fits(&before(&name))
            || self.fits(&before(behind))
    }

    fn is_any(&self) -> bool {
        self.parts.len() == 2 && self.parts.iter().all(String::is_empty)
    }

    fn fits(&self, name: &str) -> bool {
        fits(&self.parts, name, &SEPARATORS)
    }
}

/// Whether the whole text fits the texts between asterisks, none of which stands for a separator.
pub(super) fn fits(parts: &[String], text: &str, separators: &[char]) -> bool {
    let Some((first, middle)) = parts.split_first() else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = middle.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part.as_str()) else { return false };
        if rest[..at].contains(separators) {
            return false;
        }
        rest = &rest[at + part.len()..];
    }
    rest.strip_suffix(last.as_str()).is_some_and(|skipped| !skipped.contains(separators))
}

const SEPARATORS: [char; 3] = ['\\', '/', '@'];
