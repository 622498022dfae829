//! The settings in effect as people are shown them: every key with its value and where that came from.
//!
//! Must never show a secret; of those the loaders say where they came from. For `check-config` of both programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::reader::Reader;

/// Every setting in effect.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Overview {
    /// By their keys.
    pub settings: Vec<Setting>,
}

/// One setting in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key, or the name of a secret.
    pub key: String,
    /// Its value; of a secret only that it is set.
    pub value: String,
    /// Where the value came from: `default`, a file, a variable.
    pub source: String,
}

impl Setting {
    /// A secret from `source`.
    pub fn secret(key: &str, source: &str) -> Self {
        Self { key: key.to_owned(), value: SECRET.to_owned(), source: source.to_owned() }
    }
}

/// What sources are called.
#[derive(Debug)]
pub struct Origins<'a> {
    /// The configuration file.
    pub file: Option<&'a Path>,
    /// Variables by the keys that they set.
    pub names: BTreeMap<String, String>,
    /// What values of the environment are called that no variable in `names` set.
    pub beneath: &'static str,
}

impl Origins<'_> {
    fn source(&self, reader: &Reader, key: &str) -> String {
        match (reader.source(key), self.names.get(key), self.file) {
            (None, ..) => "default".to_owned(),
            (Some(ENVIRONMENT), Some(name), _) => name.clone(),
            (Some(ENVIRONMENT), None, _) => self.beneath.to_owned(),
            (Some(_), _, Some(file)) if !reader.is_foreign(key) => file.display().to_string(),
            (Some(source), ..) => source.to_owned(),
        }
    }
}

impl Overview {
    /// Of everything that was read, and of these secrets.
    pub fn new(reader: &Reader, origins: &Origins<'_>, secrets: impl IntoIterator<Item = Setting>) -> Self {
        let asked = reader.asked().iter().map(|asked| Setting {
            key: asked.key.to_owned(),
            value: reader.shown(asked.key).to_owned(),
            source: origins.source(reader, asked.key),
        });
        let mut settings: Vec<Setting> = asked.chain(secrets).collect();
        settings.sort_by(|one, other| one.key.cmp(&other.key));
        Self { settings }
    }
}

/// The table of settings, for people. Nothing when there are none.
pub fn table(settings: &[Setting]) -> String {
    let width = |of: fn(&Setting) -> &str, title: &str| {
        settings.iter().map(|setting| of(setting).chars().count()).chain([title.len()]).max().unwrap_or(0)
    };
    let (key, value) = (width(|setting| &setting.key, KEY), width(|setting| &setting.value, VALUE).min(MAX_COLUMN));
    let mut out = String::new();
    if !settings.is_empty() {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{KEY:key$}  {VALUE:value$}  {SOURCE}");
        for setting in settings {
            let shown = one_line(&setting.value);
            let _ = writeln!(out, "{:key$}  {shown:value$}  {}", setting.key, setting.source);
        }
    }
    out
}

/// Text that cannot break out of its line.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What is shown of a secret.
pub const SECRET: &str = "set, not shown";
/// What `config` calls values of variables.
const ENVIRONMENT: &str = "the environment";
const KEY: &str = "SETTING";
const VALUE: &str = "VALUE";
const SOURCE: &str = "FROM";
/// Longer values push their source to the right.
const MAX_COLUMN: usize = 60;

#[cfg(test)]
mod tests {
    use crate::Layers;

    use super::*;

    #[test]
    fn each_value_has_its_source() {
        let variables = [("P_SLOTS".to_owned(), "5".to_owned())];
        let Layers { tree, names, .. } = Layers::read("P_", None, variables).unwrap();
        let mut reader = Reader::new(tree, &[], Vec::new());
        let beneath = Layers::read("P_", None, [("P_OTHER".to_owned(), "6".to_owned())]).unwrap();
        reader.put_beneath(beneath.tree, |_| true);
        reader.set_default("third", "7", "THIRD");
        for key in ["slots", "other", "third", "last"] {
            reader.number(key, 8, 1, 100);
        }
        let origins = Origins { file: None, names, beneath: "beneath" };
        let Overview { settings } = Overview::new(&reader, &origins, [Setting::secret("token", "TOKEN")]);
        let told: Vec<_> = settings.iter().map(|s| (s.key.as_str(), s.value.as_str(), s.source.as_str())).collect();
        let expected = [
            ("last", "8", "default"),
            ("other", "6", "beneath"),
            ("slots", "5", "P_SLOTS"),
            ("third", "7", "THIRD"),
            ("token", SECRET, "TOKEN"),
        ];
        assert_eq!(told, expected);
        assert!(table(&settings).starts_with("SETTING  VALUE"), "{}", table(&settings));
    }
}
