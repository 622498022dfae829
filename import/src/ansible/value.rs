//! Values of variables, as Ansible's loaders would make them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::yaml::{Kind, Node, Scalar};

/// A value. May be a password: `Debug` shows the kind and no content, and texts are zeroed when they are dropped.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// None.
    Null,
    /// True or False.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Float(f64),
    /// A text, perhaps with a template in it.
    Text(Zeroizing<String>),
    /// A list, a tuple or a set.
    List(Vec<Value>),
    /// A dictionary.
    Map(BTreeMap<String, Value>),
    /// Something that only the owner of a vault's password can read.
    Vault,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Bool(_) => "Bool",
            Self::Integer(_) => "Integer",
            Self::Float(_) => "Float",
            Self::Text(_) => "Text",
            Self::List(_) => "List",
            Self::Map(_) => "Map",
            Self::Vault => "Vault",
        })
    }
}

impl Value {
    /// A text.
    pub fn text(text: &str) -> Self {
        // Ansible takes a text with this beginning for a vault wherever it stands.
        if text.starts_with(VAULT_HEADER) { Self::Vault } else { Self::Text(Zeroizing::new(text.to_owned())) }
    }

    /// As text, where it is one or a number: what Ansible makes of a value that an option wants as a string.
    pub fn as_text(&self) -> Option<Zeroizing<String>> {
        Some(Zeroizing::new(match self {
            Self::Text(text) => text.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => format!("{number:?}"),
            Self::Bool(true) => "True".to_owned(),
            Self::Bool(false) => "False".to_owned(),
            Self::Null | Self::List(_) | Self::Map(_) | Self::Vault => return None,
        }))
    }

    /// As a truth, by the words that Ansible knows for it.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Integer(1) => Some(true),
            Self::Integer(0) => Some(false),
            Self::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "y" | "yes" | "on" | "1" | "true" | "t" => Some(true),
                "n" | "no" | "off" | "0" | "false" | "f" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// As a whole number.
    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}").parse().ok(),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// Whether a template is in it, which only Ansible can evaluate.
    pub fn is_template(&self) -> bool {
        match self {
            Self::Text(text) => text.contains("{{") || text.contains("{%"),
            Self::List(items) => items.iter().any(Self::is_template),
            _ => false,
        }
    }

    /// Whether it is a vault, or holds one.
    pub fn is_vault(&self) -> bool {
        match self {
            Self::Vault => true,
            Self::List(items) => items.iter().any(Self::is_vault),
            _ => false,
        }
    }

    /// From YAML. Says what is wrong where something is, with its line.
    pub(crate) fn from_yaml(node: &Node) -> Result<Self, (usize, String)> {
        if matches!(node.tag(), Some("vault" | "vault-encrypted")) {
            return Ok(Self::Vault);
        }
        if let Some(tag) = node.tag().filter(|tag| !KNOWN_TAGS.contains(tag)) {
            return Err((node.line, format!("the tag !{tag} is not known")));
        }
        match &node.kind {
            Kind::Scalar { .. } => Ok(match node.scalar() {
                None | Some(Scalar::Null) => Self::Null,
                Some(Scalar::Bool(value)) => Self::Bool(value),
                Some(Scalar::Integer(number)) => Self::Integer(number),
                Some(Scalar::Float(number)) => Self::Float(number),
                Some(Scalar::Text(text)) => Self::text(text),
            }),
            Kind::Sequence(items) => items.iter().map(Self::from_yaml).collect::<Result<_, _>>().map(Self::List),
            Kind::Mapping(_) => {
                let mut map = BTreeMap::new();
                for (key, value) in node.entries().unwrap_or_default() {
                    let name = key.text().ok_or((key.line, "a key that is no scalar".to_owned()))?;
                    map.insert(name.to_owned(), Self::from_yaml(value)?);
                }
                Ok(Self::Map(map))
            }
        }
    }

    /// From JSON. A dictionary with the one key of an exported vault is a vault.
    pub(crate) fn from_json(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => {
                match number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)) {
                    Some(whole) => Self::Integer(whole),
                    None => Self::Float(number.as_f64().unwrap_or(f64::INFINITY)),
                }
            }
            serde_json::Value::String(text) => Self::text(&Zeroizing::new(text)),
            serde_json::Value::Array(items) => Self::List(items.into_iter().map(Self::from_json).collect()),
            serde_json::Value::Object(mut map) => {
                if map.contains_key("__ansible_vault") {
                    return Self::Vault;
                }
                if map.len() == 1
                    && let Some(serde_json::Value::String(text)) = map.remove("__ansible_unsafe")
                {
                    return Self::text(&Zeroizing::new(text));
                }
                Self::Map(map.into_iter().map(|(key, value)| (key, Self::from_json(value))).collect())
            }
        }
    }
}

/// A value and where it was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// What it is.
    pub value: Value,
    /// The text that sets it.
    pub file: Arc<str>,
    /// In which line; 0 where a text has none.
    pub line: usize,
}

impl Variable {
    /// `FILE:LINE`.
    pub fn place(&self) -> String {
        if self.line == 0 { self.file.to_string() } else { format!("{}:{}", self.file, self.line) }
    }
}

/// Tags that change nothing here.
const KNOWN_TAGS: &[&str] =
    &["str", "int", "bool", "float", "null", "seq", "map", "unsafe", "timestamp", "binary", "set", "omap"];

/// How a vault begins, in a file and in a value.
pub(crate) const VAULT_HEADER: &str = "$ANSIBLE_VAULT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown() {
        let value = Value::List(vec![Value::text("s3cret")]);
        assert!(!format!("{value:?}{:?}", Value::text("s3cret")).contains("s3cret"));
    }

    #[test]
    fn words_and_numbers() {
        assert_eq!(Value::text(" Yes ").as_bool(), Some(true));
        assert_eq!(Value::text("maybe").as_bool(), None);
        assert_eq!(Value::text("5985").as_integer(), Some(5985));
        assert_eq!(Value::Float(5985.0).as_integer(), Some(5985));
        assert_eq!(Value::Float(0.5).as_integer(), None);
        assert!(Value::text("{{ x }}").is_template());
        assert!(Value::text("$ANSIBLE_VAULT;1.1;AES256\n6162").is_vault());
    }
}
