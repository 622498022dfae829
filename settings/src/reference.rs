//! The reference of a program's settings, made from two sources that the program has anyway: what its reader was asked for (keys,
//! forms, defaults, ranges) and the doc comments on the fields of its settings (what each means), as `schemars` collects them.
//!
//! A doc comment says what the setting means. It may end in sentences that begin with `Default:` (in words, where the code cannot
//! say it), `Range:` (where the form says too little) and `Example:`. Defaults and numeric ranges that the code knows must not be
//! repeated. Pure, but for [`keep`]; called by tests alone, so that no program carries it.

pub mod metrics;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::form::Form;
use crate::reader::Asked;

/// Every setting of a program.
#[derive(Debug, Clone)]
pub struct Reference {
    program: Program,
    entries: Vec<Entry>,
    /// What sections are about, by their names.
    sections: BTreeMap<String, String>,
}

/// Whose settings they are.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// What they are as a whole, such as `Settings of lictor-agent`.
    pub title: &'static str,
    /// What one of them is called.
    pub one: &'static str,
    /// What its variables begin with. Nothing: they only stand in files.
    pub variables: Option<&'static str>,
    /// The page that holds the table, from the top of the repository.
    pub page: &'static str,
}

#[derive(Debug, Clone)]
struct Entry {
    asked: Asked,
    meaning: String,
    /// In words, as Markdown.
    default: String,
    range: String,
    /// A value for the example file.
    example: Value,
    /// Variables that set it, its own first.
    variables: Vec<String>,
    schema: Value,
}

impl Reference {
    /// Joins the two sources. `documented` is the schema of the struct, with its subschemas inline.
    ///
    /// # Errors
    /// Everything in which they do not agree.
    pub fn new(program: Program, documented: &Value, asked: &[Asked]) -> Result<Self, Vec<String>> {
        let keys: BTreeSet<&str> = asked.iter().map(|asked| asked.key).collect();
        let mut found = Documented::default();
        found.walk("", documented, &keys);
        let mut problems: Vec<String> =
            found.strangers.iter().map(|key| format!("{key}: stands in the struct, and no key sets it")).collect();
        let mut entries = Vec::new();
        for asked in asked {
            match found.leaves.get(asked.key).map(|schema| Entry::new(program, asked, schema)) {
                Some(Ok(entry)) => entries.push(entry),
                Some(Err(problem)) => problems.push(format!("{}: {problem}", asked.key)),
                None => problems.push(format!("{}: has no field with a doc comment in the struct", asked.key)),
            }
        }
        // Sections follow what stands alone, each with all that is its own.
        let mut order: Vec<&str> = Vec::new();
        for asked in asked {
            let section = section(asked.key);
            if !order.contains(&section) {
                order.push(section);
            }
        }
        order.sort_by_key(|section| !section.is_empty());
        entries.sort_by_key(|entry| order.iter().position(|section| *section == self::section(entry.asked.key)));
        if problems.is_empty() { Ok(Self { program, entries, sections: found.sections }) } else { Err(problems) }
    }

    /// Notes another variable that sets `key`.
    pub fn also_set_by(&mut self, key: &str, variable: &str) {
        for entry in self.entries.iter_mut().filter(|entry| entry.asked.key == key) {
            entry.variables.push(variable.to_owned());
        }
    }

    /// The table of the page.
    pub fn table(&self) -> String {
        let out = match self.program.variables {
            Some(_) => "Environment | Default | Range | Meaning |\n|---|---|---|---|---|\n",
            None => "Default | Range | Meaning |\n|---|---|---|---|\n",
        };
        let mut out = format!("| {} | {out}", self.program.one);
        for Entry { asked, meaning, default, range, variables, .. } in &self.entries {
            let cell = |text: &str| text.replace('|', "\\|");
            let names: Vec<String> = variables.iter().map(|name| format!("`{name}`")).collect();
            let names = if names.is_empty() { "only in the file".to_owned() } else { names.join(", ") };
            let environment = self.program.variables.map(|_| format!(" {names} |")).unwrap_or_default();
            let (default, range, meaning) = (cell(default), cell(range), cell(meaning));
            // Writing to a string does not fail.
            let _ = writeln!(out, "| `{}` |{environment} {default} | {range} | {meaning} |", asked.key);
        }
        out
    }

    /// The JSON schema of a configuration file: draft 7, in the words that later drafts know as well, without references, so that
    /// parts of it can stand in other schemas. It requires nothing: the environment may say what the file does not.
    pub fn schema(&self) -> Value {
        let mut root = Map::new();
        for entry in &self.entries {
            let mut place = &mut root;
            let mut path = String::new();
            let (sections, leaf) = split(entry.asked.key);
            for section in sections {
                path = if path.is_empty() { section.to_owned() } else { format!("{path}.{section}") };
                let described = self.sections.get(&path).map(|text| plain(text, self.program.page));
                let table = place.entry(section).or_insert_with(|| {
                    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": {} });
                    if let Some(text) = described {
                        table["description"] = Value::from(text);
                    }
                    table
                });
                let Some(inner) = table.get_mut("properties").and_then(Value::as_object_mut) else {
                    return Value::Null;
                };
                place = inner;
            }
            place.insert(leaf.to_owned(), entry.schema.clone());
        }
        json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": self.program.title,
            "description": format!("Made from the code; see {}.", self.program.page),
            "type": "object",
            "additionalProperties": false,
            "properties": root,
        })
    }

    /// The example file: every setting with what it means, commented out unless it must be given. A line that begins with `#` and a
    /// letter, or with `#` and two spaces, is one of YAML without the `#`.
    pub fn example(&self) -> String {
        let Program { title, variables, page, .. } = self.program;
        let mut out =
            format!("# {title}: every one, with its default or else an example. What is commented out is not set.\n");
        let _ = writeln!(out, "# Made from the code; {page} says the same as a table.");
        if let Some(prefix) = variables {
            let _ = writeln!(
                out,
                "# {prefix}<KEY> in the environment goes before a setting here, with __ between the parts of a nested key."
            );
        }
        let mut current = "";
        for entry in &self.entries {
            let (sections, leaf) = split(entry.asked.key);
            let section = section(entry.asked.key);
            if section != current {
                current = section;
                let about = self.sections.get(section).map(|text| plain(text, page)).unwrap_or_default();
                out.push('\n');
                comment(&mut out, "# ", &about);
                let _ = writeln!(out, "#{section}:");
            } else if section.is_empty() {
                out.push('\n');
            }
            let depth = "  ".repeat(sections.len());
            // Of a section everything is commented out, its comments too.
            let prose = if section.is_empty() { "# ".to_owned() } else { format!("#{depth}# ") };
            comment(&mut out, &prose, &entry.told(page));
            let mark = if entry.asked.required { "" } else { "#" };
            match &entry.asked.form {
                Form::Table { example, .. } => {
                    let _ = writeln!(out, "{mark}{depth}{leaf}:\n{mark}{depth}  {example}");
                }
                _ => {
                    let _ = writeln!(out, "{mark}{depth}{leaf}: {}", yaml(&entry.example));
                }
            }
        }
        out
    }
}

impl Entry {
    fn new(program: Program, asked: &Asked, documented: &Value) -> Result<Self, String> {
        let text = documented.get("description").and_then(Value::as_str).unwrap_or_default();
        let Doc { meaning, default, range, example } = Doc::parse(text)?;
        let words = asked.form.words();
        let exact = !matches!(
            asked.form,
            Form::Text { .. } | Form::Written { .. } | Form::Path | Form::List { .. } | Form::Table { .. }
        );
        if range.is_some() && exact {
            return Err(format!("the doc comment says a range, and the code knows it: {words}"));
        }
        let shown = match (&asked.default, &default) {
            (Some(known), Some(_)) => {
                return Err(format!("the doc comment says a default, and the code knows it: {known}"));
            }
            (Some(known), None) if known.is_empty() => "empty".to_owned(),
            (Some(known), None) => format!("`{known}`"),
            (None, Some(words)) => words.clone(),
            (None, None) if asked.required => "required".to_owned(),
            (None, None) => "none".to_owned(),
        };
        let literal = |text: &str| {
            let inner = text.strip_prefix('`')?.strip_suffix('`')?;
            (!inner.contains('`')).then(|| asked.form.typed(inner))
        };
        let known = asked.default.as_ref().filter(|known| !known.is_empty()).map(|known| asked.form.typed(known));
        let said = default.as_deref().and_then(literal);
        let mut schema = match asked.form {
            Form::Table { .. } => documented.clone(),
            _ => asked.form.schema(),
        };
        if let Some(default) = asked.default.as_ref().map(|known| asked.form.typed(known)).or_else(|| said.clone()) {
            schema["default"] = default;
        }
        let example =
            known.or(said).or_else(|| example.as_deref().and_then(literal)).unwrap_or_else(|| asked.form.example());
        let own = |prefix: &str| format!("{prefix}{}", asked.key.to_uppercase().replace('.', "__"));
        let settable = !matches!(asked.form, Form::Table { .. });
        let variables = program.variables.filter(|_| settable).map(own).into_iter().collect();
        let mut entry = Self {
            asked: asked.clone(),
            meaning,
            default: shown,
            range: range.unwrap_or(words),
            example,
            variables,
            schema: Value::Null,
        };
        schema["description"] = Value::from(entry.told(program.page));
        entry.schema = schema;
        Ok(entry)
    }

    /// Everything in one line of plain text.
    fn told(&self, page: &str) -> String {
        let Self { asked, meaning, default, range, .. } = self;
        let default = match default.as_str() {
            "none" => String::new(),
            _ if asked.required => " Required.".to_owned(),
            default => format!(" Default: {default}."),
        };
        let range = match asked.form {
            Form::Flag | Form::Table { .. } => String::new(),
            Form::Choice(_) => format!(" One of {range}."),
            _ => format!(" Range: {range}."),
        };
        plain(&format!("{meaning}.{default}{range}"), page)
    }
}

/// What a doc comment says.
struct Doc {
    meaning: String,
    default: Option<String>,
    range: Option<String>,
    example: Option<String>,
}

impl Doc {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut rest = text.as_str();
        let mut last = |word: &str| {
            let (before, said) = rest.rsplit_once(word)?;
            rest = before;
            Some(said.trim().trim_end_matches('.').to_owned())
        };
        // From the end, so that none swallows another.
        let example = last("Example: ");
        let range = last("Range: ");
        let default = last("Default: ");
        let meaning = rest.trim().trim_end_matches('.').to_owned();
        if meaning.is_empty() {
            return Err("has no doc comment that says what it means".to_owned());
        }
        Ok(Self { meaning, default, range, example })
    }
}

/// What the struct's schema says.
#[derive(Default)]
struct Documented {
    leaves: BTreeMap<String, Value>,
    sections: BTreeMap<String, String>,
    strangers: Vec<String>,
}

impl Documented {
    fn walk(&mut self, prefix: &str, schema: &Value, keys: &BTreeSet<&str>) {
        let Some(properties) = properties(schema) else { return };
        for (name, schema) in properties {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if keys.contains(key.as_str()) {
                self.leaves.insert(key, schema.clone());
            } else if properties_of_section(&key, keys) {
                let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
                self.sections.insert(key.clone(), about.split_whitespace().collect::<Vec<_>>().join(" "));
                self.walk(&key, schema, keys);
            } else {
                self.strangers.push(key);
            }
        }
    }
}

/// A section that may be absent is one of several schemas.
fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    let alternatives = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    std::iter::once(schema).chain(alternatives).find_map(|schema| schema.get("properties")?.as_object())
}

fn properties_of_section(section: &str, keys: &BTreeSet<&str>) -> bool {
    keys.iter().any(|key| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}

fn section(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(section, _)| section)
}

fn split(key: &str) -> (Vec<&str>, &str) {
    match key.rsplit_once('.') {
        Some((sections, leaf)) => (sections.split('.').collect(), leaf),
        None => (Vec::new(), key),
    }
}

/// Markdown without links and code marks; a link becomes the name of its page.
fn plain(text: &str, page: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, words, target, after)) = link(rest) {
        out.push_str(before);
        let directory = page.rsplit_once('/').map(|(directory, _)| format!("{directory}/")).unwrap_or_default();
        match target.strip_prefix('#') {
            Some(_) => out.push_str(&format!("{words} in {page}")),
            None => out.push_str(&format!("{directory}{target}")),
        }
        rest = after;
    }
    out.push_str(rest);
    out.replace('`', "")
}

fn link(text: &str) -> Option<(&str, &str, &str, &str)> {
    let middle = text.find("](")?;
    let open = text[..middle].rfind('[')?;
    let close = middle + text[middle..].find(')')?;
    Some((&text[..open], &text[open + 1..middle], &text[middle + 2..close], &text[close + 1..]))
}

fn comment(out: &mut String, mark: &str, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && mark.len() + line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{mark}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(out, "{mark}{line}");
    }
}

fn yaml(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(yaml).collect::<Vec<_>>().join(", ")),
        // A text in JSON is one in YAML.
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/' || byte == b'.');
    let time = text.ends_with(['s', 'm', 'h', 'd']) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let word = ["true", "false", "on", "off", "yes", "no", "null", "y", "n"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    (first || time) && !word && text.bytes().all(sound)
}

/// Puts `table` between the marks of a page. Nothing: the page has no such marks.
pub fn between_marks(page: &str, table: &str) -> Option<String> {
    let start = page.find(BEGIN)? + page[page.find(BEGIN)?..].find('\n')? + 1;
    let end = start + page[start..].find(END)?;
    Some(format!("{}{table}{}", &page[..start], &page[end..]))
}

/// The schema as the text of its file: sorted, so that it is the same however `serde_json` was built.
pub fn text(schema: &Value) -> String {
    format!("{:#}\n", sorted(schema))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, Value> = map.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The example file with every setting set, but for those `without`. A setting of one line.
pub fn uncommented(example: &str, without: &[&str]) -> String {
    let mut out = String::new();
    for line in example.lines() {
        let setting =
            |rest: &&str| rest.starts_with("  ") || rest.starts_with(|first: char| first.is_ascii_lowercase());
        let bare = line.strip_prefix('#').filter(setting).unwrap_or(line);
        if !without.iter().any(|key| bare.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))) {
            out.push_str(bare);
            out.push('\n');
        }
    }
    out
}

/// Compares `path`, from the top of the repository `top`, with what was made of the code; with `LICTOR_WRITE_DOCS=1` in the
/// environment it writes the file.
///
/// # Errors
/// That it differs, and what to type; that it cannot be read or written.
pub fn keep(top: &Path, path: &str, made: &str, command: &str) -> Result<(), String> {
    let full = top.join(path);
    if std::env::var_os("LICTOR_WRITE_DOCS").is_some() {
        return std::fs::write(&full, made).map_err(|error| format!("failed to write {path}: {error}"));
    }
    match std::fs::read_to_string(&full) {
        Ok(there) if there == made => Ok(()),
        Ok(_) => Err(format!("{path} is not what the code says; type: LICTOR_WRITE_DOCS=1 {command}")),
        Err(error) => Err(format!("failed to read {path}: {error}; to make it, type: LICTOR_WRITE_DOCS=1 {command}")),
    }
}

const BEGIN: &str = "<!-- begin: made from the code";
const END: &str = "<!-- end: made from the code";
const WIDTH: usize = 120;
