//! Reads typed values out of a configuration tree one key at a time, collecting mistakes instead of stopping at the
//! first. What nobody asked for in the end is an unknown key. Called by the loaders of settings and of the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::{Value, ValueKind};

pub(crate) struct Reader {
    leaves: BTreeMap<String, Value>,
    /// Keys without a value.
    empty: Vec<String>,
    asked: Vec<&'static str>,
    /// Where the values of keys came from.
    sources: BTreeMap<String, String>,
    /// Keys whose values have another name in the environment, which their author wants to read in a mistake.
    foreign: BTreeSet<String>,
    mistakes: Vec<String>,
}

impl Reader {
    pub(crate) fn new(tree: Value, mistakes: Vec<String>) -> Self {
        let (mut leaves, mut empty) = (BTreeMap::new(), Vec::new());
        flatten(String::new(), tree, &mut leaves, &mut empty);
        let source = |value: &Value| value.origin().unwrap_or_default().to_owned();
        let sources = leaves.iter().map(|(key, value)| (key.clone(), source(value))).collect();
        Self { leaves, empty, asked: Vec::new(), sources, foreign: BTreeSet::new(), mistakes }
    }

    /// Every mistake, the unknown keys included.
    pub(crate) fn finish(mut self) -> Vec<String> {
        for (key, value) in &self.leaves {
            let origin = value.origin().map(|origin| format!(" ({origin})")).unwrap_or_default();
            self.mistakes.push(format!("{key}: is not a setting{origin}"));
        }
        self.mistakes
    }

    /// The mistakes so far. What nobody asked for is none here.
    pub(crate) fn mistakes(self) -> Vec<String> {
        self.mistakes
    }

    /// Makes keys without a value mistakes; else they count as absent.
    pub(crate) fn insist_on_values(&mut self) {
        for key in std::mem::take(&mut self.empty) {
            self.mistake(&key, "has no value");
        }
    }

    /// Whether nothing is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Every key that was asked for so far.
    pub(crate) fn asked(&self) -> &[&'static str] {
        &self.asked
    }

    /// Where the value of a key came from, when it did not come from a default: a file, the environment, or what
    /// [`Reader::set_default`] and [`Reader::came_from`] say.
    pub(crate) fn source(&self, key: &str) -> Option<&str> {
        self.sources.get(key).map(String::as_str)
    }

    /// Notes where a value came from that was found elsewhere.
    pub(crate) fn came_from(&mut self, key: &str, source: &str) {
        self.sources.insert(key.to_owned(), source.to_owned());
        self.foreign.insert(key.to_owned());
    }

    /// Whether the value of a key came from under another name.
    pub(crate) fn is_foreign(&self, key: &str) -> bool {
        self.foreign.contains(key)
    }

    pub(crate) fn mistake(&mut self, key: &str, text: &str) {
        let from = match self.sources.get(key) {
            Some(source) if self.foreign.contains(key) => format!(" (from {source})"),
            _ => String::new(),
        };
        self.mistakes.push(format!("{key}: {text}{from}"));
    }

    /// Whether `key` is set, and nobody has asked for it yet.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.leaves.contains_key(key)
    }

    /// Sets `key` unless it is set. Whether it was not.
    pub(crate) fn set_default(&mut self, key: &str, value: &str, source: &str) -> bool {
        self.put(key, ValueKind::String(value.to_owned()), source)
    }

    /// The same for a list.
    pub(crate) fn set_list(&mut self, key: &str, values: &[String], source: &str) -> bool {
        let values = values.iter().map(|value| Value::from(value.as_str())).collect();
        self.put(key, ValueKind::Array(values), source)
    }

    /// Sets what is not set, as another tree has it.
    pub(crate) fn put_beneath(&mut self, tree: Value, meant: impl Fn(&str) -> bool) {
        let (mut leaves, mut empty) = (BTreeMap::new(), Vec::new());
        flatten(String::new(), tree, &mut leaves, &mut empty);
        for (key, value) in leaves {
            if !self.leaves.contains_key(&key) && meant(&key) {
                self.sources.insert(key.clone(), value.origin().unwrap_or_default().to_owned());
                self.leaves.insert(key, value);
            }
        }
    }

    fn put(&mut self, key: &str, value: ValueKind, source: &str) -> bool {
        if self.leaves.contains_key(key) {
            return false;
        }
        self.leaves.insert(key.to_owned(), Value::new(None, value));
        self.came_from(key, source);
        true
    }

    pub(crate) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.leaves.remove(key)
    }

    /// A table whose keys are names of the user's choice.
    pub(crate) fn table<T: serde::de::DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        self.asked.push(key);
        let value = self.take(key)?;
        value.try_deserialize().map_err(|error| self.mistake(key, &error.to_string())).ok()
    }

    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.asked.push(key);
        let value = self.take(key)?;
        let parsed = match scalar(&value) {
            Some(text) => parse(&text),
            None => Err("must be a single value".into()),
        };
        parsed.map_err(|text| self.mistake(key, &text)).ok()
    }

    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.leaves.contains_key(key) {
            self.mistake(key, "is required");
        }
        self.optional(key, parse)
    }

    pub(crate) fn or<T>(&mut self, key: &'static str, default: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    pub(crate) fn number(&mut self, key: &'static str, default: u32, least: u32, most: u32) -> u32 {
        self.or(key, default, |text| match text.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("must be a whole number from {least} to {most}")),
        })
    }

    pub(crate) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.or(key, default, |text| text.parse().map_err(|_| "must be true or false".to_owned()))
    }

    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        self.or(key, default, |text| match humantime::parse_duration(text) {
            Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
            Ok(_) => Err(format!(
                "must be between {} and {}",
                humantime::format_duration(least),
                humantime::format_duration(most)
            )),
            Err(_) => Err("must be a time with its unit, such as 30s or 5m".into()),
        })
    }

    /// A list in a file, or texts separated by commas.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.optional_list(key, most, parse).unwrap_or_default()
    }

    /// The same. Nothing: not set, which is not the same as an empty list.
    pub(crate) fn optional_list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.asked.push(key);
        let value = self.take(key)?;
        let texts: Vec<String> = match &value.kind {
            ValueKind::Array(items) => items.iter().map(|item| scalar(item).unwrap_or_default()).collect(),
            _ => match scalar(&value) {
                Some(text) if text.trim().is_empty() => Vec::new(),
                Some(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
                None => {
                    self.mistake(key, "must be a list of texts");
                    return None;
                }
            },
        };
        if texts.len() > most {
            self.mistake(key, &format!("has more than {most} entries"));
        }
        let mut parsed = Vec::new();
        for text in texts {
            match parse(&text) {
                Ok(text) => parsed.push(text),
                Err(error) => self.mistake(key, &format!("{text:?} {error}")),
            }
        }
        Some(parsed)
    }
}

fn flatten(prefix: String, value: Value, leaves: &mut BTreeMap<String, Value>, empty: &mut Vec<String>) {
    match value.kind {
        ValueKind::Table(table) if !TABLES.contains(&prefix.as_str()) => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(path, value, leaves, empty);
            }
        }
        ValueKind::Nil => empty.push(prefix),
        _ => {
            leaves.insert(prefix, value);
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::Boolean(flag) => Some(flag.to_string()),
        ValueKind::I64(number) => Some(number.to_string()),
        ValueKind::U64(number) => Some(number.to_string()),
        ValueKind::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Keys that are tables as a whole.
const TABLES: &[&str] = &["kerberos.realms", "kerberos.domain_realm"];
