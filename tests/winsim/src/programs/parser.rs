//! The grammar of a cmd line: commands joined by `&`, `&&`, `||` and `|`, groups in parentheses, redirections, quotes and carets.

/// Commands in order, each with what decides whether it runs.
pub(super) type List = Vec<(Condition, Pipeline)>;
/// Commands that read what the one before writes.
pub(super) type Pipeline = Vec<Command>;

/// When the next command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Always,
    Success,
    Failure,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) body: Body,
    pub(super) redirections: Vec<Redirection>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The text without its redirections and carets; quotes and blanks are kept.
    Text(String),
    Group(List),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirection {
    Input(String),
    Output { handle: u8, file: String, append: bool },
    Duplicate { handle: u8, target: u8 },
}

/// The text that cmd did not expect, as its error message quotes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unexpected(pub(super) String);

const MAX_GROUPS: usize = 16;

/// Reads one line. Variables are expanded already.
pub(super) fn parse(line: &str) -> Result<List, Unexpected> {
    let mut parser = Parser { characters: line.chars().collect(), at: 0, depth: 0 };
    let list = parser.list()?;
    match parser.peek() {
        None => Ok(list),
        Some(character) => Err(Unexpected(character.to_string())),
    }
}

struct Parser {
    characters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn list(&mut self) -> Result<List, Unexpected> {
        let mut list = List::new();
        let mut condition = Condition::Always;
        loop {
            self.skip_blanks();
            if matches!(self.peek(), None | Some(')')) {
                // A command may end in `&`, but `&&` and `||` want another one.
                return if condition == Condition::Always { Ok(list) } else { Err(Unexpected(String::new())) };
            }
            list.push((condition, self.pipeline()?));
            condition = match (self.peek(), self.peek_second()) {
                (Some('&'), Some('&')) => self.skip(2, Condition::Success),
                (Some('|'), Some('|')) => self.skip(2, Condition::Failure),
                (Some('&'), _) => self.skip(1, Condition::Always),
                _ => return Ok(list),
            };
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, Unexpected> {
        let mut pipeline = vec![self.command()?];
        while self.peek() == Some('|') && self.peek_second() != Some('|') {
            self.at += 1;
            pipeline.push(self.command()?);
        }
        Ok(pipeline)
    }

    fn command(&mut self) -> Result<Command, Unexpected> {
        self.skip_blanks();
        while self.peek() == Some('@') {
            self.at += 1;
        }
        let mut redirections = Vec::new();
        let body = if self.peek() == Some('(') {
            self.depth += 1;
            if self.depth > MAX_GROUPS {
                return Err(Unexpected("(".to_owned()));
            }
            self.at += 1;
            let list = self.list()?;
            if self.peek() != Some(')') {
                return Err(Unexpected(String::new()));
            }
            self.at += 1;
            self.depth -= 1;
            let rest = self.text(&mut redirections)?;
            if !rest.trim().is_empty() {
                return Err(Unexpected(rest.trim().to_owned()));
            }
            Body::Group(list)
        } else {
            let text = self.text(&mut redirections)?;
            if text.trim().is_empty() && redirections.is_empty() {
                return Err(Unexpected(self.peek().map(String::from).unwrap_or_default()));
            }
            Body::Text(text)
        };
        Ok(Command { body, redirections })
    }

    /// Up to the next operator.
    fn text(&mut self, redirections: &mut Vec<Redirection>) -> Result<String, Unexpected> {
        let mut text = String::new();
        let mut quoted = false;
        while let Some(character) = self.peek() {
            match character {
                '"' => {
                    quoted = !quoted;
                    text.push('"');
                }
                _ if quoted => text.push(character),
                '^' => {
                    self.at += 1;
                    if let Some(escaped) = self.peek() {
                        text.push(escaped);
                    }
                }
                '&' | '|' => break,
                ')' if self.depth > 0 => break,
                '<' | '>' => {
                    redirections.push(self.redirection(&mut text)?);
                    continue;
                }
                other => text.push(other),
            }
            self.at += 1;
        }
        Ok(text)
    }

    fn redirection(&mut self, text: &mut String) -> Result<Redirection, Unexpected> {
        let input = self.peek() == Some('<');
        // A digit that stands alone before the sign is the handle.
        let mut last = text.chars().rev();
        let handle = match (last.next().and_then(|digit| digit.to_digit(10)), last.next()) {
            (Some(digit), None | Some(' ' | '\t')) => {
                text.pop();
                digit as u8
            }
            _ => u8::from(!input),
        };
        self.at += 1;
        let append = !input && self.peek() == Some('>');
        self.at += usize::from(append);
        if self.peek() == Some('&') {
            self.at += 1;
            let target = self.peek().and_then(|digit| digit.to_digit(10)).ok_or(Unexpected("&".to_owned()))?;
            self.at += 1;
            return Ok(Redirection::Duplicate { handle, target: target as u8 });
        }
        self.skip_blanks();
        let mut file = String::new();
        let mut quoted = false;
        while let Some(character) = self.peek() {
            match character {
                '"' => quoted = !quoted,
                ' ' | '\t' | '&' | '|' | '<' | '>' | ')' if !quoted => break,
                other => file.push(other),
            }
            self.at += 1;
        }
        if file.is_empty() {
            return Err(Unexpected(self.peek().map(String::from).unwrap_or_default()));
        }
        Ok(if input { Redirection::Input(file) } else { Redirection::Output { handle, file, append } })
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn peek_second(&self) -> Option<char> {
        self.characters.get(self.at + 1).copied()
    }

    fn skip(&mut self, count: usize, condition: Condition) -> Condition {
        self.at += count;
        condition
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<(Condition, String)> {
        parse(line)
            .expect("valid")
            .into_iter()
            .map(|(condition, pipeline)| match &pipeline[0].body {
                Body::Text(text) => (condition, text.clone()),
                Body::Group(_) => (condition, "()".to_owned()),
            })
            .collect()
    }

    #[test]
    fn operators_join_commands() {
        assert_eq!(
            texts("a & b && c || \"x & y\" ^& z"),
            vec![
                (Condition::Always, "a ".to_owned()),
                (Condition::Always, "b ".to_owned()),
                (Condition::Success, "c ".to_owned()),
                (Condition::Failure, "\"x & y\" & z".to_owned()),
            ]
        );
        assert_eq!(texts("(a & b) && c").len(), 2);
        assert_eq!(parse("a | b | c").expect("valid")[0].1.len(), 3);
    }

    #[test]
    fn redirections_are_taken_out() {
        let command = &parse("echo err>&2").expect("valid")[0].1[0];
        assert_eq!(command.body, Body::Text("echo err".to_owned()));
        assert_eq!(command.redirections, vec![Redirection::Duplicate { handle: 1, target: 2 }]);
        let command = &parse("prog1 2>nul 2>>\"a b\" <in").expect("valid")[0].1[0];
        assert_eq!(command.body, Body::Text("prog1   ".to_owned()));
        assert_eq!(
            command.redirections,
            vec![
                Redirection::Output { handle: 2, file: "nul".to_owned(), append: false },
                Redirection::Output { handle: 2, file: "a b".to_owned(), append: true },
                Redirection::Input("in".to_owned()),
            ]
        );
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in ["&& a", "a &&", "a |", "(a", "a > ", "( a ) b", "| a"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse(&"(".repeat(1000)).is_err());
    }
}
