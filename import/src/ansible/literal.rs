//! Values in INI inventories: what is a literal of Python becomes that, everything else stays a text.
//!
//! The subset that `ast.literal_eval` takes: numbers, strings with their prefixes and escapes, `True`, `False`, `None`, lists,
//! tuples, sets, dictionaries, a sign before a number. What Python would refuse, and what is deeper than anybody writes, stays a
//! text, so there are no mistakes here.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::value::Value;

/// The value of a text.
pub(crate) fn value(text: &str) -> Value {
    let mut reader = Reader { rest: text.trim_start_matches([' ', '\t']), depth: 0 };
    let parsed = reader.top();
    parsed.unwrap_or_else(|| Value::text(text))
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// The whole text: one value, or several with commas between them, then nothing but a comment.
    fn top(&mut self) -> Option<Value> {
        let first = self.item()?;
        let value = match self.taken(',') {
            false => first,
            true => {
                let mut items = vec![first];
                while !self.ended() {
                    items.push(self.item()?);
                    if !self.taken(',') {
                        break;
                    }
                }
                Value::List(items)
            }
        };
        self.ended().then_some(value)
    }

    /// Whether nothing follows but space and a comment.
    fn ended(&mut self) -> bool {
        self.space();
        self.rest.is_empty() || self.rest.starts_with('#')
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\u{c}']);
    }

    fn taken(&mut self, wanted: char) -> bool {
        self.space();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// One value.
    fn item(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let value = self.unary();
        self.depth -= 1;
        value
    }

    fn unary(&mut self) -> Option<Value> {
        self.space();
        let sign = self.rest.chars().next()?;
        if sign == '-' || sign == '+' {
            self.rest = self.rest.get(1..)?;
            self.space();
            // One sign only, and only of a number.
            if !self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                return None;
            }
            return match (self.number()?, sign) {
                (Value::Integer(number), '-') => Some(Value::Integer(-number)),
                (Value::Float(number), '-') => Some(Value::Float(-number)),
                (number, _) => Some(number),
            };
        }
        match sign {
            '0'..='9' | '.' => {
                if let Some(rest) = self.rest.strip_prefix("...") {
                    self.rest = rest;
                    return Some(Value::text("..."));
                }
                self.number()
            }
            '[' => self.list(']').map(|(items, _)| Value::List(items)),
            '(' => {
                let (mut items, comma) = self.list(')')?;
                if items.len() == 1 && !comma { items.pop() } else { Some(Value::List(items)) }
            }
            '{' => self.braces(),
            _ => self.word_or_strings(),
        }
    }

    /// Items up to the closing bracket, and whether a comma was among them.
    fn list(&mut self, close: char) -> Option<(Vec<Value>, bool)> {
        self.rest = self.rest.get(1..)?;
        let (mut items, mut comma) = (Vec::new(), false);
        loop {
            if self.taken(close) {
                return Some((items, comma));
            }
            if !items.is_empty() && !comma {
                return None;
            }
            items.push(self.item()?);
            let more = self.taken(',');
            comma |= more;
            if !more {
                return self.taken(close).then_some((items, comma));
            }
        }
    }

    /// A dictionary or a set.
    fn braces(&mut self) -> Option<Value> {
        self.rest = self.rest.get(1..)?;
        if self.taken('}') {
            return Some(Value::Map(BTreeMap::new()));
        }
        let first = self.item()?;
        if self.taken(':') {
            let mut map = BTreeMap::new();
            let value = self.item()?;
            map.insert(key(&first)?, value);
            loop {
                if !self.taken(',') {
                    return self.taken('}').then_some(Value::Map(map));
                }
                if self.taken('}') {
                    return Some(Value::Map(map));
                }
                let name = key(&self.item()?)?;
                if !self.taken(':') {
                    return None;
                }
                map.insert(name, self.item()?);
            }
        }
        let mut items = vec![first];
        loop {
            if !self.taken(',') {
                return self.taken('}').then_some(Value::List(items));
            }
            if self.taken('}') {
                return Some(Value::List(items));
            }
            let item = self.item()?;
            if !items.contains(&item) {
                items.push(item);
            }
        }
    }

    fn number(&mut self) -> Option<Value> {
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(self.rest.len());
        let mut text = self.rest.get(..end)?;
        // The sign of an exponent belongs to it.
        let lower = text.to_ascii_lowercase();
        if lower.ends_with('e') && !lower.starts_with("0x") && self.rest.get(end..)?.starts_with(['+', '-']) {
            let digits = self.rest.get(end + 1..)?;
            let length = digits.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(digits.len());
            text = self.rest.get(..end + 1 + length)?;
        }
        self.rest = self.rest.get(text.len()..)?;
        let groups = |digits: &str| !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
        let lower = text.to_ascii_lowercase();
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if let Some(digits) = lower.strip_prefix(prefix) {
                let digits = digits.strip_prefix('_').unwrap_or(digits);
                let good = groups(digits) && !digits.is_empty();
                return i128::from_str_radix(&digits.replace('_', ""), radix).ok().filter(|_| good).map(Value::Integer);
            }
        }
        if !lower.split(['.', 'e', '+', '-']).all(groups) {
            return None;
        }
        let plain = lower.replace('_', "");
        if plain.bytes().all(|byte| byte.is_ascii_digit()) {
            // 007 is no number in Python, 000 is one.
            let zeros = plain.bytes().all(|byte| byte == b'0');
            return plain.parse().ok().filter(|_| zeros || !plain.starts_with('0')).map(Value::Integer);
        }
        let good = plain.bytes().all(|byte| byte.is_ascii_digit() || b".e+-".contains(&byte)) && plain != ".";
        plain.parse().ok().filter(|_| good).map(Value::Float)
    }

    fn word_or_strings(&mut self) -> Option<Value> {
        for (word, value) in [("True", Value::Bool(true)), ("False", Value::Bool(false)), ("None", Value::Null)] {
            if let Some(rest) = self.rest.strip_prefix(word)
                && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                self.rest = rest;
                return Some(value);
            }
        }
        // Strings beside each other are one.
        let mut text = Zeroizing::new(String::with_capacity(self.rest.len()));
        let mut kind = None;
        while let Some(prefix) = self.prefix() {
            if kind.is_some_and(|kind| kind != prefix.bytes) {
                return None;
            }
            kind = Some(prefix.bytes);
            self.string(prefix, &mut text)?;
            self.space();
        }
        kind.map(|_| Value::text(&text))
    }

    /// Takes the prefix and the opening quotes of a string, if one begins here.
    fn prefix(&mut self) -> Option<Prefix> {
        let at = self.rest.find(['\'', '"']).filter(|at| *at <= 2)?;
        let (raw, bytes) = match self.rest.get(..at)?.to_ascii_lowercase().as_str() {
            "" | "u" => (false, false),
            "r" => (true, false),
            "b" => (false, true),
            "br" | "rb" => (true, true),
            _ => return None,
        };
        let rest = self.rest.get(at..)?;
        let quote = if rest.starts_with('"') { '"' } else { '\'' };
        let three = [quote; 3].iter().collect::<String>();
        let triple = rest.starts_with(&three);
        self.rest = rest.get(if triple { 3 } else { 1 }..)?;
        Some(Prefix { quote, triple, raw, bytes })
    }

    /// Reads a string to its end.
    fn string(&mut self, prefix: Prefix, text: &mut String) -> Option<()> {
        let three = [prefix.quote; 3].iter().collect::<String>();
        loop {
            if prefix.triple
                && let Some(rest) = self.rest.strip_prefix(&three)
            {
                self.rest = rest;
                return Some(());
            }
            let character = self.next()?;
            match character {
                _ if character == prefix.quote && !prefix.triple => return Some(()),
                '\\' if prefix.raw => text.extend(['\\', self.next()?]),
                '\\' => self.escape(prefix.bytes, text)?,
                character if prefix.bytes && !character.is_ascii() => return None,
                character => text.push(character),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = self.rest.get(character.len_utf8()..)?;
        Some(character)
    }

    fn escape(&mut self, bytes: bool, text: &mut String) -> Option<()> {
        let character = self.next()?;
        let mut hexadecimal = |length: usize| {
            let digits = self.rest.get(..length)?;
            let good = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            self.rest = self.rest.get(length..)?;
            u32::from_str_radix(digits, 16).ok().filter(|_| good)
        };
        let code = match character {
            '\n' => return Some(()),
            '\\' | '\'' | '"' => u32::from(character),
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' => hexadecimal(2)?,
            'u' if !bytes => hexadecimal(4)?,
            'U' if !bytes => hexadecimal(8)?,
            // Names of characters would need a table of all of them: such a text stays as it is written.
            'N' if !bytes => return None,
            '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                let digits = format!("{character}{}", self.rest.get(..more)?);
                self.rest = self.rest.get(more..)?;
                u32::from_str_radix(&digits, 8).ok()?
            }
            // Python warns about these, and leaves them.
            other => {
                text.extend(['\\', other]);
                return Some(());
            }
        };
        text.push(char::from_u32(code)?);
        Some(())
    }
}

#[derive(Clone, Copy)]
struct Prefix {
    quote: char,
    triple: bool,
    raw: bool,
    bytes: bool,
}

/// A dictionary's key as JSON would have it.
fn key(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("true".to_owned()),
        Value::Bool(false) => Some("false".to_owned()),
        Value::Null => Some("null".to_owned()),
        Value::List(_) | Value::Map(_) | Value::Vault => None,
        other => other.as_text().map(|text| text.to_string()),
    }
}

/// Deeper than anybody writes a value into one line.
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_takes_is_a_value() {
        for (text, expected) in [
            ("5985", Value::Integer(5985)),
            (" -0x10 # hex", Value::Integer(-16)),
            ("1_000", Value::Integer(1000)),
            ("1.5e-3", Value::Float(0.0015)),
            ("True", Value::Bool(true)),
            ("None", Value::Null),
            ("\"a\" 'b'", Value::text("ab")),
            ("'a#b' # c", Value::text("a#b")),
            ("r'a\\b'", Value::text("a\\b")),
            (r#""a\tb\x41\u00e9\101\d""#, Value::text("a\tbAéA\\d")),
            ("'''tri'''", Value::text("tri")),
            ("[1, 'x',]", Value::List(vec![Value::Integer(1), Value::text("x")])),
            ("1, 2", Value::List(vec![Value::Integer(1), Value::Integer(2)])),
            ("()", Value::List(Vec::new())),
            ("(1)", Value::Integer(1)),
            ("{}", Value::Map(BTreeMap::new())),
            ("{'a': 1}", Value::Map([("a".to_owned(), Value::Integer(1))].into())),
            ("{1, 1}", Value::List(vec![Value::Integer(1)])),
        ] {
            assert!(value(text) == expected, "{text}");
        }
    }

    #[test]
    fn everything_else_stays_a_text() {
        for text in [
            "true",
            "007",
            "1__0",
            "_1",
            "a b",
            "\"open",
            "1-2",
            "--1",
            "f'x'",
            "[1, 2",
            "{1: }",
            "'a' b'c'",
            "not True",
            "[,]",
            "1 2",
            "\\",
            "'\\N{DASH}'",
            "0x",
            "1.2.3",
            "10.0.0.1",
            "C:\\x",
            "",
            "[1,,2]",
            "{'a': 1, 2}",
            "'\\x4'",
        ] {
            assert!(value(text) == Value::text(text), "{text}");
        }
        let deep = "[".repeat(10_000);
        assert!(value(&deep) == Value::text(&deep));
    }
}
