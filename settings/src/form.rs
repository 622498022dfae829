//! What the values of a setting look like: said once where the setting is read, and told in words, as a JSON schema, and by values
//! just inside and just outside.

use std::time::Duration;

use serde_json::{Value, json};

/// What values look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Characters, in this number.
    Text {
        /// Fewest.
        least: usize,
        /// Most.
        most: usize,
    },
    /// Text of a syntax of its own.
    Written {
        /// A regular expression that every value fits; of the kind that ECMA, RE2 and Python read alike.
        pattern: &'static str,
        /// The syntax in words.
        words: &'static str,
        /// A value.
        example: &'static str,
    },
    /// A path.
    Path,
    /// A path that begins with a slash.
    AbsolutePath,
    /// An address and a port.
    Address,
    /// A whole number.
    Number {
        /// Least.
        least: u64,
        /// Most.
        most: u64,
    },
    /// A whole number, or `off`.
    NumberOrOff {
        /// Least.
        least: u64,
        /// Most.
        most: u64,
    },
    /// A share of one, such as `0.1`.
    Share,
    /// A time with its unit.
    Time {
        /// Least.
        least: Duration,
        /// Most.
        most: Duration,
    },
    /// A number of bytes, with a unit.
    Size {
        /// Least.
        least: u64,
    },
    /// True or false.
    Flag,
    /// One of these words.
    Choice(Vec<&'static str>),
    /// Several values.
    List {
        /// Most of them.
        most: usize,
        /// What each looks like.
        item: Box<Form>,
    },
    /// A table whose keys are names of the user's choice. Its schema is that of its type.
    Table {
        /// What stands in it, in words.
        words: &'static str,
        /// One line of it, as YAML.
        example: &'static str,
    },
}

impl Form {
    /// Any text that is not empty.
    pub const ANY: Self = Self::Text { least: 1, most: usize::MAX };

    /// The range in words, as Markdown.
    pub fn words(&self) -> String {
        match self {
            Self::Text { least: 0, most } => format!("at most {most} characters"),
            Self::Text { most: usize::MAX, .. } => "text".to_owned(),
            Self::Text { least, most } => format!("{least} to {most} characters"),
            Self::Written { words, .. } | Self::Table { words, .. } => (*words).to_owned(),
            Self::Path => "a path".to_owned(),
            Self::AbsolutePath => "an absolute path".to_owned(),
            Self::Address => "address and port".to_owned(),
            // As many as there are.
            Self::Number { least, most } if *most >= u64::from(u32::MAX) => format!("{least} and more"),
            Self::Number { least, most } => format!("{least} to {most}"),
            Self::NumberOrOff { least, most } => format!("{least} to {most}, `off`"),
            Self::Share => "0 to 1".to_owned(),
            Self::Time { least, most } => format!("`{}` to `{}`", time(*least), time(*most)),
            Self::Size { least } => format!("`{}` and more", size(*least)),
            Self::Flag => "`true`, `false`".to_owned(),
            Self::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
            Self::List { most, item } => match item.words().as_str() {
                "a path" => format!("at most {most} paths"),
                "an absolute path" => format!("at most {most} absolute paths"),
                words if *most == usize::MAX => words.to_owned(),
                words => format!("at most {most}: {words}"),
            },
        }
    }

    /// The JSON schema of a value in a file.
    pub fn schema(&self) -> Value {
        match self {
            Self::Text { least, most } => {
                let mut schema = json!({ "type": "string" });
                if *least > 0 {
                    schema["minLength"] = json!(least);
                }
                if *most < usize::MAX {
                    schema["maxLength"] = json!(most);
                }
                schema
            }
            Self::Written { pattern, example, .. } => {
                json!({ "type": "string", "pattern": pattern, "examples": [example] })
            }
            Self::Path => json!({ "type": "string", "minLength": 1 }),
            Self::AbsolutePath => json!({ "type": "string", "pattern": "^/" }),
            Self::Address => json!({ "type": "string", "pattern": ADDRESS }),
            Self::Number { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            // YAML of old reads `off` as false, and so does Helm.
            Self::NumberOrOff { least, most } => {
                json!({ "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, { "enum": ["off", false] }] })
            }
            Self::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            Self::Time { .. } => json!({ "type": "string", "pattern": TIME }),
            Self::Size { least } => {
                json!({ "anyOf": [{ "type": "integer", "minimum": least }, { "type": "string", "pattern": SIZE }] })
            }
            Self::Flag => json!({ "type": "boolean" }),
            Self::Choice(words) => json!({ "enum": words }),
            Self::List { most, item } => {
                let mut schema = json!({ "type": "array", "items": item.schema() });
                if *most < usize::MAX {
                    schema["maxItems"] = json!(most);
                }
                schema
            }
            Self::Table { .. } => json!({ "type": "object" }),
        }
    }

    /// A default as JSON, from how the environment would say it.
    pub fn typed(&self, text: &str) -> Value {
        match self {
            Self::Number { .. } | Self::NumberOrOff { .. } => {
                text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
            }
            Self::Share => text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from),
            Self::Flag => Value::from(text == "true"),
            Self::List { item, .. } if !text.is_empty() => text.split(',').map(|text| item.typed(text)).collect(),
            Self::List { .. } => Value::Array(Vec::new()),
            _ => Value::from(text),
        }
    }

    /// A value that may be given.
    pub fn example(&self) -> Value {
        match self {
            Self::Text { .. } => Value::from("text"),
            Self::Written { example, .. } => Value::from(*example),
            Self::Path | Self::AbsolutePath => Value::from("/path"),
            Self::Address => Value::from("127.0.0.1:0"),
            Self::Number { least, .. } | Self::NumberOrOff { least, .. } => Value::from(*least),
            Self::Share => Value::from(1),
            Self::Time { most, .. } => Value::from(time(*most)),
            Self::Size { least } => Value::from(size(*least)),
            Self::Flag => Value::from(true),
            Self::Choice(words) => words.first().map_or(Value::Null, |word| Value::from(*word)),
            Self::List { item, .. } => Value::Array(vec![item.example()]),
            Self::Table { .. } => json!({}),
        }
    }

    /// Values on the edges of the range and just beyond them, as the environment would say them. Nothing for what has no edges.
    pub fn edges(&self) -> Edges {
        let mut edges = Edges::default();
        match self {
            Self::Text { least, most } => {
                if *most < usize::MAX {
                    edges.inside.push("x".repeat(*most));
                    edges.outside.push("x".repeat(most + 1));
                }
                if *least > 0 {
                    edges.inside.push("x".repeat(*least));
                    edges.outside.push(" ".repeat(least - 1));
                }
            }
            Self::Number { least, most } | Self::NumberOrOff { least, most } => {
                edges.inside.extend([least, most].map(u64::to_string));
                edges.outside.extend(least.checked_sub(1).iter().chain(&most.checked_add(1)).map(u64::to_string));
                edges.outside.extend(["-1", "1.5", "x"].map(str::to_owned));
                let off = if matches!(self, Self::Number { .. }) { &mut edges.outside } else { &mut edges.inside };
                off.push("off".to_owned());
            }
            Self::Share => {
                edges.inside.extend(["0", "1", "0.25"].map(str::to_owned));
                edges.outside.extend(["-0.1", "1.1", "NaN", "x"].map(str::to_owned));
            }
            Self::Time { least, most } => {
                let step = Duration::from_millis(1);
                edges.inside.extend([least, most].map(|edge| time(*edge)));
                let beyond = [least.checked_sub(step), most.checked_add(step)];
                edges.outside.extend(beyond.iter().flatten().map(|time| humantime::format_duration(*time).to_string()));
                edges.outside.push("5".to_owned());
            }
            Self::Size { least } => {
                edges.inside.extend([least.to_string(), size(*least)]);
                edges.outside.extend([least.saturating_sub(1).to_string(), "1GB".to_owned()]);
            }
            Self::Flag => {
                edges.inside.extend(["true", "false"].map(str::to_owned));
                edges.outside.push("perhaps".to_owned());
            }
            Self::Choice(words) => {
                edges.inside.extend(words.iter().map(|word| (*word).to_owned()));
                edges.outside.push("perhaps".to_owned());
            }
            Self::List { most, item } => {
                if *most < usize::MAX {
                    let item = match item.example() {
                        Value::String(text) => text,
                        other => other.to_string(),
                    };
                    edges.inside.push(vec![item.as_str(); *most].join(","));
                    edges.outside.push(vec![item.as_str(); most + 1].join(","));
                }
            }
            Self::Written { example, .. } => edges.inside.push((*example).to_owned()),
            Self::AbsolutePath => {
                edges.inside.push("/a".to_owned());
                edges.outside.push("a".to_owned());
            }
            Self::Path => edges.inside.push("a".to_owned()),
            Self::Address => {
                edges.inside.extend(["127.0.0.1:0", "[::1]:65535"].map(str::to_owned));
                edges.outside.extend(["127.0.0.1", "localhost:1", "127.0.0.1:65536"].map(str::to_owned));
            }
            Self::Table { .. } => {}
        }
        edges
    }
}

/// Values that tell whether a range is what it is said to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edges {
    /// Accepted.
    pub inside: Vec<String>,
    /// Refused.
    pub outside: Vec<String>,
}

/// `24h`, `90s`: one unit, the largest that fits, but days only where there are several.
pub(crate) fn time(time: Duration) -> String {
    let millis = time.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if millis.is_multiple_of(unit) && (name != "d" || millis > unit) {
            return format!("{}{name}", millis / unit);
        }
    }
    format!("{millis}ms")
}

/// `64KiB`, `1GiB`.
pub(crate) fn size(bytes: u64) -> String {
    for (shift, name) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{name}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Numbers with units of humantime, one after the other.
const TIME: &str = "^ *[0-9]+ *[A-Za-z]+( *[0-9]+ *[A-Za-z]+)* *$";
const SIZE: &str = "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$";
const ADDRESS: &str = "^([0-9.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]):[0-9]{1,5}$";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_in_one_unit() {
        for (seconds, text) in [(0, "0s"), (60, "1m"), (110, "110s"), (86_400, "24h"), (604_800, "7d"), (3600, "1h")] {
            assert_eq!(time(Duration::from_secs(seconds)), text);
            assert_eq!(humantime::parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        assert_eq!(time(Duration::from_millis(100)), "100ms");
        assert_eq!((size(1 << 30), size(65536), size(5)), ("1GiB".into(), "64KiB".into(), "5".into()));
    }

    #[test]
    fn edges_lie_on_both_sides() {
        let Edges { inside, outside } = Form::Number { least: 1, most: 1000 }.edges();
        assert_eq!(inside, ["1", "1000"]);
        assert!(outside.contains(&"0".to_owned()) && outside.contains(&"1001".to_owned()), "{outside:?}");
        let Edges { inside, outside } = Form::Time { least: Duration::ZERO, most: Duration::from_secs(1) }.edges();
        assert_eq!(inside, ["0s", "1s"]);
        assert_eq!(outside, ["1s 1ms", "5"]);
    }
}
