//! Reads typed values out of a configuration tree one key at a time, collecting mistakes instead of stopping at the
//! first. What nobody asked for in the end is an unknown key. Called by the loaders of settings and of the policy.
//!
//! Each question says what it asks for, with its default and its range: the same are told in the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use config::{Value, ValueKind};

use crate::form::{self, Form};

/// A setting that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its key, with dots between the parts.
    pub key: &'static str,
    /// What it looks like.
    pub form: Form,
    /// What counts where nothing is given, as the environment would say it. Nothing: there is no such value.
    pub default: Option<String>,
    /// Whether something must be given.
    pub required: bool,
}

/// Reads values by their keys.
#[derive(Debug)]
pub struct Reader {
    leaves: BTreeMap<String, Value>,
    /// Keys without a value.
    empty: Vec<String>,
    tables: &'static [&'static str],
    asked: Vec<Asked>,
    /// Values in effect, as people are shown them.
    shown: BTreeMap<&'static str, String>,
    /// Where the values of keys came from.
    sources: BTreeMap<String, String>,
    /// Keys whose values have another name in the environment, which their author wants to read in a mistake.
    foreign: BTreeSet<String>,
    mistakes: Vec<String>,
}

impl Reader {
    /// Reads from `tree`. The keys in `tables` are tables whose own keys are of the user's choice. Mistakes that were found before are
    /// told with those that are found here.
    pub fn new(tree: Value, tables: &'static [&'static str], mistakes: Vec<String>) -> Self {
        let (mut leaves, mut empty) = (BTreeMap::new(), Vec::new());
        flatten(String::new(), tree, tables, &mut leaves, &mut empty);
        let source = |value: &Value| value.origin().unwrap_or_default().to_owned();
        let sources = leaves.iter().map(|(key, value)| (key.clone(), source(value))).collect();
        Self {
            leaves,
            empty,
            tables,
            asked: Vec::new(),
            shown: BTreeMap::new(),
            sources,
            foreign: BTreeSet::new(),
            mistakes,
        }
    }

    /// Every mistake, the unknown keys included.
    pub fn finish(mut self) -> Vec<String> {
        for (key, value) in &self.leaves {
            let origin = value.origin().map(|origin| format!(" ({origin})")).unwrap_or_default();
            self.mistakes.push(format!("{key}: is not a setting{origin}"));
        }
        self.mistakes
    }

    /// The mistakes so far. What nobody asked for is none here.
    pub fn mistakes(self) -> Vec<String> {
        self.mistakes
    }

    /// Makes keys without a value mistakes; else they count as absent.
    pub fn insist_on_values(&mut self) {
        for key in std::mem::take(&mut self.empty) {
            self.mistake(&key, "has no value");
        }
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Every setting that was asked for so far.
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// Where the value of a key came from, when it did not come from a default: a file, the environment, or what
    /// [`Reader::set_default`] and [`Reader::came_from`] say.
    pub fn source(&self, key: &str) -> Option<&str> {
        self.sources.get(key).map(String::as_str)
    }

    /// Notes where a value came from that was found elsewhere.
    pub fn came_from(&mut self, key: &str, source: &str) {
        self.sources.insert(key.to_owned(), source.to_owned());
        self.foreign.insert(key.to_owned());
    }

    /// Whether the value of a key came from under another name.
    pub fn is_foreign(&self, key: &str) -> bool {
        self.foreign.contains(key)
    }

    /// Notes a mistake about `key`.
    pub fn mistake(&mut self, key: &str, text: &str) {
        let from = match self.sources.get(key) {
            Some(source) if self.foreign.contains(key) => format!(" (from {source})"),
            _ => String::new(),
        };
        self.mistakes.push(format!("{key}: {text}{from}"));
    }

    /// Whether `key` is set, and nobody has asked for it yet.
    pub fn is_set(&self, key: &str) -> bool {
        self.leaves.contains_key(key)
    }

    /// Sets `key` unless it is set. Whether it was not.
    pub fn set_default(&mut self, key: &str, value: &str, source: &str) -> bool {
        self.put(key, ValueKind::String(value.to_owned()), source)
    }

    /// The same for a list.
    pub fn set_list(&mut self, key: &str, values: &[String], source: &str) -> bool {
        let values = values.iter().map(|value| Value::from(value.as_str())).collect();
        self.put(key, ValueKind::Array(values), source)
    }

    /// Sets what is not set, as another tree has it.
    pub fn put_beneath(&mut self, tree: Value, meant: impl Fn(&str) -> bool) {
        let (mut leaves, mut empty) = (BTreeMap::new(), Vec::new());
        flatten(String::new(), tree, self.tables, &mut leaves, &mut empty);
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

    /// Takes what stands under `key`, which is no setting.
    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.leaves.remove(key)
    }

    /// The value in effect, as people are shown it.
    pub fn shown(&self, key: &str) -> &str {
        self.shown.get(key).map(String::as_str).unwrap_or_default()
    }

    /// Says which value is in effect, where that is not what was given or the default.
    pub fn show(&mut self, key: &'static str, value: impl Display) {
        self.shown.insert(key, value.to_string());
    }

    fn ask(&mut self, key: &'static str, form: Form, default: Option<String>) {
        self.shown.insert(key, default.clone().unwrap_or_default());
        self.asked.push(Asked { key, form, default, required: false });
    }

    /// A table whose keys are names of the user's choice, one of those that `new` was told.
    pub fn table<T: serde::de::DeserializeOwned>(
        &mut self,
        key: &'static str,
        words: &'static str,
        example: &'static str,
    ) -> Option<T> {
        self.ask(key, Form::Table { words, example }, None);
        let value = self.take(key)?;
        value.try_deserialize().map_err(|error| self.mistake(key, &error.to_string())).ok()
    }

    /// A value of `form`, if it is given.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        form: Form,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.ask(key, form, None);
        self.parsed(key, parse)
    }

    fn parsed<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        let parsed = match scalar(&value) {
            Some(text) => {
                // Secrets and ConfigMaps that were made from files end in a line break.
                let text = text.trim();
                let parsed = parse(text);
                self.shown.insert(key, text.to_owned());
                parsed
            }
            None => Err("must be a single value".into()),
        };
        parsed.map_err(|text| self.mistake(key, &text)).ok()
    }

    /// A value that must be given.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        form: Form,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.leaves.contains_key(key) {
            self.mistake(key, "is required");
        }
        self.ask(key, form, None);
        self.asked.iter_mut().filter(|asked| asked.key == key).for_each(|asked| asked.required = true);
        self.parsed(key, parse)
    }

    /// A value of `form`, or the default.
    pub fn or<T: Display>(
        &mut self,
        key: &'static str,
        form: Form,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.ask(key, form, Some(default.to_string()));
        self.parsed(key, parse).unwrap_or(default)
    }

    /// One of some words.
    pub fn choice<T: Copy + PartialEq>(&mut self, key: &'static str, default: T, words: &[(&'static str, T)]) -> T {
        let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
        let expected = match names.split_last() {
            Some((last, first)) if !first.is_empty() => format!("must be {} or {last}", first.join(", ")),
            _ => "is no choice".to_owned(),
        };
        let shown = words.iter().find(|(_, value)| *value == default).map(|(word, _)| (*word).to_owned());
        self.ask(key, Form::Choice(names), shown);
        let chosen = self
            .parsed(key, |text| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or(expected));
        chosen.unwrap_or(default)
    }

    /// A whole number.
    pub fn number<T>(&mut self, key: &'static str, default: T, least: T, most: T) -> T
    where
        T: Copy + Display + FromStr + PartialOrd + TryInto<u64>,
    {
        self.ask(key, Form::Number { least: wide(least), most: wide(most) }, Some(default.to_string()));
        self.parsed(key, |text| whole(text, least, most)).unwrap_or(default)
    }

    /// A whole number, if it is given.
    pub fn optional_number<T>(&mut self, key: &'static str, least: T, most: T) -> Option<T>
    where
        T: Copy + Display + FromStr + PartialOrd + TryInto<u64>,
    {
        self.ask(key, Form::Number { least: wide(least), most: wide(most) }, None);
        self.parsed(key, |text| whole(text, least, most))
    }

    /// A whole number, or nothing where it is `off`.
    pub fn number_or_off(&mut self, key: &'static str, default: Option<u32>, least: u32, most: u32) -> Option<u32> {
        let shown = default.map_or_else(|| "off".to_owned(), |number| number.to_string());
        self.ask(key, Form::NumberOrOff { least: least.into(), most: most.into() }, Some(shown));
        let given = self.parsed(key, |text| match text {
            "off" | "false" => Ok(None),
            text => whole(text, least, most).map(Some).map_err(|error| format!("{error}, or off")),
        });
        let number = given.unwrap_or(default);
        if number.is_none() {
            self.show(key, "off");
        }
        number
    }

    /// A share of one.
    pub fn share(&mut self, key: &'static str, default: f64) -> f64 {
        self.or(key, Form::Share, default, |text| {
            let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
        })
    }

    /// True or false.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.ask(key, Form::Flag, Some(default.to_string()));
        self.parsed(key, flag).unwrap_or(default)
    }

    /// True or false, if it is given.
    pub fn optional_flag(&mut self, key: &'static str) -> Option<bool> {
        self.ask(key, Form::Flag, None);
        self.parsed(key, flag)
    }

    /// A path.
    pub fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        self.ask(key, Form::Path, Some(default.to_owned()));
        self.parsed(key, path).unwrap_or_else(|| PathBuf::from(default))
    }

    /// A path, if it is given.
    pub fn optional_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional(key, Form::Path, path)
    }

    /// A time with its unit.
    pub fn duration(&mut self, key: &'static str, default: Duration, least: Duration, most: Duration) -> Duration {
        self.ask(key, Form::Time { least, most }, Some(form::time(default)));
        let given = self.parsed(key, |text| match humantime::parse_duration(text) {
            Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
            Ok(_) => Err(format!(
                "must be between {} and {}",
                humantime::format_duration(least),
                humantime::format_duration(most)
            )),
            Err(_) => Err("must be a time with its unit, such as 30s or 5m".into()),
        });
        let duration = given.unwrap_or(default);
        self.show(key, humantime::format_duration(duration));
        duration
    }

    /// A number of bytes: `1048576`, `64KiB`, `1GiB`.
    pub fn size(&mut self, key: &'static str, default: u64, least: u64) -> u64 {
        self.ask(key, Form::Size { least }, Some(form::size(default)));
        let given = self.parsed(key, |text| {
            bytes(text)
                .filter(|size| *size >= least)
                .ok_or_else(|| format!("must be a size of at least {} such as 64KiB or 1GiB", form::size(least)))
        });
        given.unwrap_or(default)
    }

    /// A list in a file, or texts separated by commas.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        item: Form,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.optional_list(key, most, item, parse).unwrap_or_default()
    }

    /// The same with a default.
    pub fn list_or<T>(
        &mut self,
        key: &'static str,
        most: usize,
        item: Form,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.ask(key, Form::List { most, item: Box::new(item) }, Some(default.join(",")));
        self.show(key, default.join(", "));
        let given = self.listed(key, most, &parse);
        given.unwrap_or_else(|| default.iter().filter_map(|text| parse(text).ok()).collect())
    }

    /// The same. Nothing: not set, which is not the same as an empty list.
    pub fn optional_list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        item: Form,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.ask(key, Form::List { most, item: Box::new(item) }, None);
        self.listed(key, most, parse)
    }

    fn listed<T>(
        &mut self,
        key: &'static str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let texts: Vec<String> = match &value.kind {
            ValueKind::Array(items) => items.iter().map(|item| scalar(item).unwrap_or_default()).collect(),
            _ => match scalar(&value) {
                Some(text) => {
                    // What ends in a comma ends there.
                    let text = text.trim_end_matches(|c: char| c == ',' || c.is_whitespace());
                    let parts = text.split(',').filter(|_| !text.is_empty());
                    parts.map(|part| part.trim().to_owned()).collect()
                }
                None => {
                    self.mistake(key, "must be a list of texts");
                    return None;
                }
            },
        };
        self.show(key, texts.join(", "));
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

fn wide(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn whole<T: Copy + Display + FromStr + PartialOrd>(text: &str, least: T, most: T) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty".into()) } else { Ok(PathBuf::from(text)) }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn flatten(
    prefix: String,
    value: Value,
    tables: &[&str],
    leaves: &mut BTreeMap<String, Value>,
    empty: &mut Vec<String>,
) {
    match value.kind {
        ValueKind::Table(table) if !tables.contains(&prefix.as_str()) => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(path, value, tables, leaves, empty);
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

#[cfg(test)]
mod tests {
    use crate::Layers;
    use crate::form::Edges;

    use super::*;

    /// Reads one setting from a variable: its mistakes, and what is shown of it.
    fn read(value: &str, ask: impl Fn(&mut Reader)) -> (Vec<String>, String, Form) {
        let layers = Layers::read("P_", None, [("P_KEY".to_owned(), value.to_owned())]).unwrap();
        let mut reader = Reader::new(layers.tree, &[], Vec::new());
        ask(&mut reader);
        let (shown, form) = (reader.shown("key").to_owned(), reader.asked()[0].form.clone());
        (reader.finish(), shown, form)
    }

    #[test]
    fn each_kind_of_question_takes_what_its_form_says() {
        let second = Duration::from_secs(1);
        let questions: [&dyn Fn(&mut Reader); 9] = [
            &|reader| {
                reader.number("key", 5_u32, 1, 10);
            },
            &|reader| {
                reader.optional_number("key", 0_u16, u16::MAX);
            },
            &|reader| {
                reader.number_or_off("key", None, 1, 100);
            },
            &|reader| {
                reader.duration("key", second, second, second * 90);
            },
            &|reader| {
                reader.size("key", 1 << 20, 1 << 10);
            },
            &|reader| {
                reader.share("key", 1.0);
            },
            &|reader| {
                reader.flag("key", true);
            },
            &|reader| {
                reader.choice("key", 1, &[("one", 1), ("two", 2), ("three", 3)]);
            },
            &|reader| {
                reader.list_or("key", 3, Form::ANY, &["a"], |text| Ok(text.to_owned()));
            },
        ];
        for question in questions {
            let (_, _, form) = read("", question);
            let Edges { inside, outside } = form.edges();
            assert!(!inside.is_empty() && !outside.is_empty(), "{form:?}");
            for value in inside {
                assert_eq!(read(&value, question).0, [""; 0], "{form:?} {value}");
            }
            for value in outside {
                assert_eq!(read(&value, question).0.len(), 1, "{form:?} {value}");
            }
        }
        let (mistakes, shown, _) = read("90s", questions[3]);
        assert_eq!((mistakes.len(), shown.as_str()), (0, "1m 30s"));
        assert_eq!(read("false", questions[2]).1, "off");
        assert_eq!(read("four", questions[7]).0, ["key: must be one, two or three"]);
    }

    #[test]
    fn space_around_a_value_and_commas_behind_a_list_do_not_count() {
        let layers = Layers::read(
            "P_",
            None,
            [("P_KEY", " /data\n"), ("P_LIST", " a, b, ,\n")].map(|(n, v)| (n.into(), v.into())),
        )
        .unwrap();
        let mut reader = Reader::new(layers.tree, &[], Vec::new());
        assert_eq!(reader.path("key", "./x"), PathBuf::from("/data"));
        assert_eq!(reader.shown("key"), "/data");
        assert_eq!(reader.list("list", 3, Form::ANY, |text| Ok(text.to_owned())), ["a", "b"]);
        assert_eq!(reader.finish(), [""; 0]);
        // A path of nothing but space is none.
        assert_eq!(read(" \n", |reader| drop(reader.path("key", "./x"))).0, ["key: is empty"]);
    }

    #[test]
    fn sizes() {
        for (text, size) in
            [("5", Some(5)), ("64KiB", Some(65536)), ("2 MiB", Some(2 << 20)), ("1GB", None), ("", None), ("-1", None)]
        {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
