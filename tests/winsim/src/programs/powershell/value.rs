//! Values of the pipeline, their members, and how they become text.

/// Windows PowerShell of Server 2016.
const VERSION: [i64; 4] = [5, 1, 14393, 0];

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Number(i64),
    Text(String),
    List(Vec<Value>),
    /// Not written out: scripts count to millions.
    Range(i64, i64),
    Version,
    VersionTable,
    /// `$ExecutionContext`, with the language mode of its session state; the two are one here.
    ExecutionContext(String),
}

/// `.Name` and `.Name()` of a value; what it does not have is nothing.
pub(super) fn member(value: &Value, name: &str) -> Value {
    match (value, name) {
        (Value::ExecutionContext(_), "sessionstate") => value.clone(),
        (Value::ExecutionContext(mode), "languagemode") => Value::Text(mode.clone()),
        (Value::VersionTable, "psversion") => Value::Version,
        (Value::Version, "major") => Value::Number(VERSION[0]),
        (Value::Version, "minor") => Value::Number(VERSION[1]),
        (Value::List(items), "count" | "length") => Value::Number(items.len() as i64),
        (Value::Text(text), "length") => Value::Number(text.encode_utf16().count() as i64),
        (Value::Text(text), "toupper") => Value::Text(text.to_uppercase()),
        (Value::Text(text), "trim") => Value::Text(text.trim().to_owned()),
        (Value::Null, _) => Value::Null,
        (value, "tostring") => Value::Text(text_of(value)),
        (_, "count") => Value::Number(1),
        _ => Value::Null,
    }
}

/// A value inside a string.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Boolean(true) => "True".to_owned(),
        Value::Boolean(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(items) => items.iter().map(text_of).collect::<Vec<_>>().join(" "),
        Value::Range(first, last) => format!("{first}..{last}"),
        Value::Version => VERSION.map(|part| part.to_string()).join("."),
        Value::VersionTable => "System.Collections.Hashtable".to_owned(),
        Value::ExecutionContext(_) => "System.Management.Automation.EngineIntrinsics".to_owned(),
    }
}

/// A value as the console shows it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Version => {
            let [major, minor, build, revision] = VERSION;
            format!(
                "\r\nMajor  Minor  Build  Revision\r\n-----  -----  -----  --------\r\n{major:<7}{minor:<7}{build:<7}{revision:<8}\r\n\r\n\r\n"
            )
        }
        value => format!("{}\r\n", text_of(value)),
    }
}
