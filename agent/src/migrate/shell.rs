//! Reads bash far enough to see what a start script does: words, quotes, pipelines, redirections and here-documents.
//!
//! It never runs anything, and what it does not understand it says so of, instead of guessing: expansions it cannot know make a
//! word unknown, and everything in loops, conditions and functions is marked. No recursion, and work and memory are bounded by
//! the length of the script. Called by `script`.

use std::collections::BTreeMap;

/// Commands that end together: by a line end, `;`, `&`, `&&` or `||`.
#[derive(Debug, Clone, Default)]
pub(super) struct Statement {
    /// First and last line, from 1; here-documents are part of it.
    pub(super) lines: (usize, usize),
    /// Connected by `|`.
    pub(super) commands: Vec<Command>,
    /// It stands in a loop, condition, function or group, or is what makes one.
    pub(super) compound: bool,
    /// It only runs when the one before it failed.
    pub(super) fallback: bool,
    /// Something in it was never closed or is no bash.
    pub(super) broken: Option<&'static str>,
}

/// One program with its arguments.
#[derive(Debug, Clone, Default)]
pub(super) struct Command {
    pub(super) assignments: Vec<(String, Word)>,
    pub(super) words: Vec<Word>,
    pub(super) redirections: Vec<Redirection>,
}

/// Where input comes from or output goes to.
#[derive(Debug, Clone)]
pub(super) enum Redirection {
    /// Standard output to a file.
    Output { append: bool, to: Word },
    /// Standard input from a file.
    Input(Word),
    /// Standard input from what follows here.
    Text(Word),
    /// Anything else, such as `2>&1`: of no matter here.
    Other,
}

/// A word, or the text of a here-document.
#[derive(Debug, Clone, Default)]
pub(super) struct Word {
    pieces: Vec<Piece>,
    /// Quoted at least in part, so that it is a word even when it is empty, and no reserved one.
    quoted: bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Variable(String),
    /// What only bash knows: a command substitution and the like.
    Unknown,
}

impl Word {
    /// What bash makes of it, when that is known with these variables. `Err` names the variable that is not.
    pub(super) fn resolve(&self, variables: &BTreeMap<String, String>) -> Result<String, Option<&str>> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable(name) => match variables.get(name) {
                    // A script may double a variable in each line.
                    Some(value) if text.len() + value.len() <= MAX_WORD => text.push_str(value),
                    Some(_) => return Err(None),
                    None => return Err(Some(name)),
                },
                Piece::Unknown => return Err(None),
            }
        }
        Ok(text)
    }

    /// The word, when it stands there without quotes and expansions.
    pub(super) fn bare(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }

    fn push(&mut self, character: char) {
        match self.pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(character),
            _ => self.pieces.push(Piece::Text(character.into())),
        }
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && !self.quoted
    }
}

/// Every statement of a script.
pub(super) fn read(script: &str) -> Vec<Statement> {
    let mut reader = Reader {
        text: script,
        at: 0,
        line: 1,
        statements: Vec::new(),
        current: Statement::default(),
        command: Command::default(),
        waiting: Vec::new(),
        depth: 0,
        parentheses: 0,
        next_is_fallback: false,
    };
    reader.run();
    reader.statements
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    statements: Vec<Statement>,
    current: Statement,
    command: Command,
    /// Here-documents whose text begins with the next line: where in the current statement each belongs.
    waiting: Vec<Here>,
    /// Open loops, conditions and groups; and open parentheses, of which `case` has closing ones alone.
    depth: usize,
    parentheses: usize,
    next_is_fallback: bool,
}

struct Here {
    /// The command in the statement, and the redirection in it.
    place: (usize, usize),
    delimiter: String,
    expands: bool,
    strips_tabs: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn starts(&self, text: &str) -> bool {
        self.text[self.at..].starts_with(text)
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        if next == '\n' {
            self.line += 1;
        }
        Some(next)
    }

    /// Skips `text` when it stands here.
    fn take(&mut self, text: &str) -> bool {
        let here = self.starts(text);
        if here {
            self.at += text.len();
        }
        here
    }

    fn run(&mut self) {
        while let Some(next) = self.peek() {
            self.begin();
            match next {
                ' ' | '\t' | '\r' => self.at += 1,
                '\\' if self.starts("\\\n") => {
                    self.next();
                    self.next();
                }
                '#' => self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at),
                '\n' => {
                    self.next();
                    self.here_documents();
                    self.end_statement();
                }
                ';' => {
                    while self.take(";") {}
                    self.take("&");
                    self.end_statement();
                }
                '&' if self.starts("&>") => {
                    self.at += 2;
                    self.take(">");
                    let _target = self.operand();
                    self.command.redirections.push(Redirection::Other);
                }
                '&' => {
                    self.at += 1;
                    self.take("&");
                    self.end_statement();
                }
                '|' if self.take("||") => {
                    self.end_statement();
                    self.next_is_fallback = true;
                }
                '|' => {
                    self.at += 1;
                    self.take("&");
                    self.end_command();
                }
                '(' => {
                    self.at += 1;
                    self.parentheses += 1;
                    self.current.compound = true;
                    self.end_statement();
                }
                ')' => {
                    self.at += 1;
                    self.current.compound = true;
                    self.end_statement();
                    self.parentheses = self.parentheses.saturating_sub(1);
                }
                '<' | '>' => self.redirection(None),
                _ => {
                    let word = self.word();
                    let number = word.bare().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned);
                    match number {
                        Some(number) if matches!(self.peek(), Some('<' | '>')) => self.redirection(Some(&number)),
                        _ => self.take_word(word),
                    }
                }
            }
        }
        if !self.waiting.is_empty() {
            self.current.broken = Some(NO_HERE_END);
        }
        self.end_statement();
    }

    /// Notes where a statement begins.
    fn begin(&mut self) {
        if self.current.lines.0 == 0 || self.is_blank() {
            self.current.lines.0 = self.line;
        }
    }

    fn is_blank(&self) -> bool {
        let Command { assignments, words, redirections } = &self.command;
        self.current.commands.is_empty() && assignments.is_empty() && words.is_empty() && redirections.is_empty()
    }

    fn take_word(&mut self, word: Word) {
        let first = self.command.words.is_empty();
        if first
            && let Some(Piece::Text(start)) = word.pieces.first()
            && let Some((name, value)) = start.split_once('=')
            && is_variable(name)
        {
            let name = name.to_owned();
            let mut value = Word { pieces: vec![Piece::Text(value.to_owned())], quoted: word.quoted };
            value.pieces.extend(word.pieces.into_iter().skip(1));
            self.command.assignments.push((name, value));
            return;
        }
        if first && self.command.assignments.is_empty() {
            match word.bare() {
                Some("if" | "for" | "while" | "until" | "case" | "select" | "{" | "function") => {
                    self.depth += 1;
                    self.current.compound = true;
                    return;
                }
                Some("fi" | "done" | "esac" | "}") => {
                    self.depth = self.depth.saturating_sub(1);
                    self.current.compound = true;
                    return;
                }
                Some("then" | "else" | "elif" | "do" | "!" | "time" | "in" | "[[") => {
                    self.current.compound = true;
                    return;
                }
                _ => {}
            }
        }
        self.command.words.push(word);
    }

    fn end_command(&mut self) {
        let command = std::mem::take(&mut self.command);
        self.current.commands.push(command);
    }

    fn end_statement(&mut self) {
        // The text of its here-documents is still to come.
        if !self.waiting.is_empty() {
            self.current.broken.get_or_insert(HERE_IN_LIST);
            self.waiting.clear();
        }
        if self.is_blank() && !self.current.compound && self.current.broken.is_none() {
            self.current = Statement::default();
            return;
        }
        self.end_command();
        let mut statement = std::mem::take(&mut self.current);
        statement.compound |= self.depth + self.parentheses > 0;
        statement.fallback = std::mem::take(&mut self.next_is_fallback);
        statement.lines.1 = if self.text[..self.at].ends_with('\n') { self.line - 1 } else { self.line };
        self.statements.push(statement);
    }

    fn redirection(&mut self, number: Option<&str>) {
        const OPERATORS: [&str; 10] = ["<<<", "<<-", "<<", "<>", "<&", "<", ">>", ">&", ">|", ">"];
        let Some(operator) = OPERATORS.into_iter().find(|operator| self.take(operator)) else { return };
        let operand = self.operand();
        let Some(operand) = operand else {
            self.current.broken = Some("a redirection leads nowhere");
            return;
        };
        let of_input = matches!(number, None | Some("0"));
        let of_output = matches!(number, None | Some("1"));
        let redirection = match operator {
            "<<" | "<<-" => {
                let delimiter = operand.resolve(&BTreeMap::new());
                let place = (self.current.commands.len(), self.command.redirections.len());
                let Ok(delimiter) = delimiter else {
                    self.current.broken = Some("the end of a here-document cannot be known");
                    return;
                };
                let here = Here { place, delimiter, expands: !operand.quoted, strips_tabs: operator == "<<-" };
                self.waiting.push(here);
                if of_input { Redirection::Text(Word::default()) } else { Redirection::Other }
            }
            "<<<" if of_input => {
                let mut text = operand;
                text.push('\n');
                Redirection::Text(text)
            }
            "<" if of_input => Redirection::Input(operand),
            ">" | ">|" if of_output => Redirection::Output { append: false, to: operand },
            ">>" if of_output => Redirection::Output { append: true, to: operand },
            _ => Redirection::Other,
        };
        self.command.redirections.push(redirection);
    }

    /// The word behind an operator.
    fn operand(&mut self) -> Option<Word> {
        while let Some(' ' | '\t') = self.peek() {
            self.at += 1;
        }
        let word = self.word();
        (!word.is_empty()).then_some(word)
    }

    fn here_documents(&mut self) {
        for here in std::mem::take(&mut self.waiting) {
            let mut text = String::new();
            let ended = loop {
                let rest = &self.text[self.at..];
                if rest.is_empty() {
                    break false;
                }
                let (line, length) = match rest.find('\n') {
                    Some(end) => (&rest[..end], end + 1),
                    None => (rest, rest.len()),
                };
                self.at += length;
                self.line += usize::from(length > line.len());
                let line = if here.strips_tabs { line.trim_start_matches('\t') } else { line };
                if line == here.delimiter {
                    break true;
                }
                text.push_str(line);
                text.push('\n');
            };
            if !ended {
                self.current.broken = Some(NO_HERE_END);
            }
            let word = if here.expands { expanded(&text) } else { literal(text) };
            let (command, redirection) = here.place;
            let command = self.current.commands.get_mut(command).unwrap_or(&mut self.command);
            if let Some(Redirection::Text(place)) = command.redirections.get_mut(redirection) {
                *place = word;
            }
        }
    }

    fn word(&mut self) -> Word {
        let mut word = Word::default();
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(escaped) => {
                            word.quoted = true;
                            word.push(escaped);
                        }
                    }
                }
                '\'' => {
                    self.next();
                    word.quoted = true;
                    loop {
                        match self.next() {
                            Some('\'') => break,
                            Some(character) => word.push(character),
                            None => {
                                self.current.broken = Some("a quotation is never closed");
                                break;
                            }
                        }
                    }
                }
                '"' => {
                    self.next();
                    word.quoted = true;
                    self.quoted(&mut word);
                }
                '$' if self.starts("$'") => {
                    self.at += 2;
                    word.quoted = true;
                    word.pieces.push(Piece::Unknown);
                    while let Some(character) = self.next() {
                        match character {
                            '\\' => drop(self.next()),
                            '\'' => break,
                            _ => {}
                        }
                    }
                }
                '$' | '`' => self.expansion(&mut word),
                _ => {
                    self.next();
                    word.push(next);
                }
            }
        }
        word
    }

    /// Up to the closing `"`.
    fn quoted(&mut self, word: &mut Word) {
        loop {
            match self.peek() {
                Some('"') => {
                    self.next();
                    return;
                }
                Some('\\') => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(escaped @ ('$' | '`' | '"' | '\\')) => word.push(escaped),
                        Some(other) => {
                            word.push('\\');
                            word.push(other);
                        }
                    }
                }
                Some('$' | '`') => self.expansion(word),
                Some(character) => {
                    self.next();
                    word.push(character);
                }
                None => {
                    self.current.broken = Some("a quotation is never closed");
                    return;
                }
            }
        }
    }

    fn expansion(&mut self, word: &mut Word) {
        if self.take("`") {
            word.pieces.push(Piece::Unknown);
            while let Some(character) = self.next() {
                match character {
                    '\\' => drop(self.next()),
                    '`' => return,
                    _ => {}
                }
            }
            self.current.broken = Some("a command substitution is never closed");
            return;
        }
        self.at += 1;
        let rest = &self.text[self.at..];
        if rest.starts_with('(') || rest.starts_with('{') {
            let inside = rest[1..].find('}').map(|end| &rest[1..=end]);
            if let (true, Some(name)) = (rest.starts_with('{'), inside.filter(|name| is_variable(name))) {
                self.at += name.len() + 2;
                word.pieces.push(Piece::Variable(name.to_owned()));
                return;
            }
            word.pieces.push(Piece::Unknown);
            self.nested();
            return;
        }
        let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        match rest.get(..length) {
            Some(name) if is_variable(name) => {
                self.at += length;
                word.pieces.push(Piece::Variable(name.to_owned()));
            }
            _ => match self.peek() {
                Some('0'..='9' | '@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                    self.next();
                    word.pieces.push(Piece::Unknown);
                }
                _ => word.push('$'),
            },
        }
    }

    /// Skips `(...)` or `{...}` with everything in it.
    fn nested(&mut self) {
        let mut open = 0_usize;
        while let Some(character) = self.next() {
            match character {
                '(' | '{' => open += 1,
                ')' | '}' => {
                    open = open.saturating_sub(1);
                    if open == 0 {
                        return;
                    }
                }
                '\\' => drop(self.next()),
                quote @ ('\'' | '"') => {
                    while let Some(inner) = self.next().filter(|inner| *inner != quote) {
                        if inner == '\\' && quote == '"' {
                            self.next();
                        }
                    }
                }
                _ => {}
            }
        }
        self.current.broken = Some("an expansion is never closed");
    }
}

fn literal(text: String) -> Word {
    Word { pieces: vec![Piece::Text(text)], quoted: true }
}

/// A here-document whose delimiter is not quoted.
fn expanded(text: &str) -> Word {
    // A quotation mark has no meaning in it; so that none ends it, they are escaped.
    let escaped = text.replace("\\\"", "\\\\\"").replace('"', "\\\"");
    let mut inner = Reader {
        text: &escaped,
        at: 0,
        line: 1,
        statements: Vec::new(),
        current: Statement::default(),
        command: Command::default(),
        waiting: Vec::new(),
        depth: 0,
        parentheses: 0,
        next_is_fallback: false,
    };
    let mut word = Word { pieces: Vec::new(), quoted: true };
    inner.quoted(&mut word);
    word
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

const NO_HERE_END: &str =
    "its here-document is never ended: the word that ends it must stand alone at the very start of a line";
const HERE_IN_LIST: &str = "its here-document begins in the middle of a line";
/// More than any word means.
const MAX_WORD: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<Vec<String>> {
        let variables = BTreeMap::from([("A".to_owned(), "value".to_owned())]);
        read(script)
            .iter()
            .flat_map(|statement| &statement.commands)
            .map(|command| {
                command.words.iter().map(|word| word.resolve(&variables).unwrap_or_else(|_| "?".into())).collect()
            })
            .collect()
    }

    #[test]
    fn words_are_split_and_unquoted_as_bash_does() {
        for (script, expected) in [
            ("a b  c", vec![vec!["a", "b", "c"]]),
            ("a 'b  c' \"d e\" f\\ g", vec![vec!["a", "b  c", "d e", "f g"]]),
            ("a'b'\"c\"d", vec![vec!["abcd"]]),
            ("a '' \"\"", vec![vec!["a", "", ""]]),
            ("a \"$A ${A} \\$A\" '$A' $A", vec![vec!["a", "value value $A", "$A", "value"]]),
            ("a $(b c) `d` ${A:-x} $1 $'x' \"$(b \")\" )\"", vec![vec!["a", "?", "?", "?", "?", "?", "?"]]),
            ("a # b\nc#d", vec![vec!["a"], vec!["c#d"]]),
            ("a \\\n b", vec![vec!["a", "b"]]),
            ("a; b && c || d & e | f", vec![vec!["a"], vec!["b"], vec!["c"], vec!["d"], vec!["e"], vec!["f"]]),
            ("a 2>&1 >x <y &>z b", vec![vec!["a", "b"]]),
            ("a $ b", vec![vec!["a", "$", "b"]]),
        ] {
            assert_eq!(words(script), expected, "{script}");
        }
    }

    #[test]
    fn here_documents_end_where_bash_ends_them() {
        let text = |script: &str| {
            let statements = read(script);
            let redirections = statements[0].commands.iter().flat_map(|command| &command.redirections);
            let text = redirections.into_iter().find_map(|redirection| match redirection {
                Redirection::Text(text) => Some(text.resolve(&BTreeMap::from([("A".into(), "value".into())]))),
                _ => None,
            });
            let text = text.unwrap().unwrap_or_else(|_| "?".into());
            (text, statements[0].lines, statements[0].broken.is_some(), statements.len())
        };
        assert_eq!(text("cat <<E >> f\n a \"$A\" \\$A\nE\nb"), (" a \"value\" $A\n".into(), (1, 3), false, 2));
        assert_eq!(text("cat <<'E' > f\n$A\n E\nE"), ("$A\n E\n".into(), (1, 4), false, 1));
        assert_eq!(text("cat <<-\"E\"\n\t\ta\n\tE\n"), ("a\n".into(), (1, 3), false, 1));
        assert!(!text("cat <<E | x\na\nE\n").2);
        assert_eq!(text("x <<< \"a b\""), ("a b\n".into(), (1, 1), false, 1));
        assert_eq!(text("cat <<E\n$(id)\nE"), ("?".into(), (1, 3), false, 1));
        assert_eq!(text("\n\ncat <<E\na\n  E\n"), ("a\n  E\n".into(), (3, 5), true, 1));
    }

    #[test]
    fn what_stands_in_loops_and_conditions_is_marked() {
        let statements = read("a\nif b; then\n c\nfi\nfor x in y; do d; done\nf() {\n e\n}\n(g; h)\ni || j");
        let marked: Vec<(String, bool, bool)> = statements
            .iter()
            .flat_map(|statement| statement.commands.iter().map(move |command| (statement, command)))
            .filter_map(|(statement, command)| {
                let word = command.words.first()?.bare()?.to_owned();
                Some((word, statement.compound, statement.fallback))
            })
            .collect();
        for (word, compound, fallback) in marked {
            assert_eq!(compound, !["a", "i", "j"].contains(&word.as_str()), "{word}");
            assert_eq!(fallback, word == "j", "{word}");
        }
        for script in ["a 'b", "a \"b", "a `b", "a ${b", "a $(b", "cat <<E", "cat <<"] {
            assert!(read(script).iter().any(|statement| statement.broken.is_some()), "{script}");
        }
    }
}
