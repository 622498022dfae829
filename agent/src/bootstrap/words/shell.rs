//! A shell script as words and commands, as far as guessing at passwords needs it: quotes, comments, pipes,
//! here-documents and substitutions, no grammar. For any text it ends, in time linear but for nesting, which is
//! bounded.

/// One simple command.
#[derive(Debug, Default)]
pub(super) struct Command {
    /// `NAME=value` before the name.
    pub(super) assignments: Vec<(String, Word)>,
    words: Vec<Word>,
    /// Here-strings.
    pub(super) strings: Vec<Word>,
    /// Bodies of here-documents.
    pub(super) documents: Vec<String>,
    /// Files that it reads and writes by redirection.
    pub(super) from: Vec<String>,
    pub(super) to: Vec<String>,
}

/// One word, without its quotes.
#[derive(Debug, Default, Clone)]
pub(super) struct Word {
    /// What stands between expansions.
    pub(super) pieces: Vec<String>,
    /// Names of variables in it.
    pub(super) variables: Vec<String>,
    /// Pieces with escapes, as they stand in the script.
    pub(super) raw: Vec<String>,
    open: bool,
}

impl Word {
    /// All pieces, one after the other.
    pub(super) fn text(&self) -> String {
        self.pieces.concat()
    }

    fn push(&mut self, text: &str) {
        if !self.open || self.pieces.is_empty() {
            self.pieces.push(String::new());
            self.open = true;
        }
        if let Some(last) = self.pieces.last_mut() {
            last.push_str(text);
        }
    }

    /// Ends a piece: an expansion follows.
    fn split(&mut self) {
        self.open = false;
    }
}

impl Command {
    /// The program, without its directory.
    pub(super) fn name(&self) -> Option<&str> {
        let mut words = self.words.iter().filter_map(|word| word.pieces.first());
        let mut name = bare(words.next()?);
        while let Some((_, with_values)) = PREFIXES.iter().find(|(prefix, _)| *prefix == name) {
            let mut next = words.next()?;
            // Its own options, variables of `env`, the time of `timeout`.
            loop {
                match next.strip_prefix('-') {
                    Some(option) if option.len() == 1 && with_values.contains(option) => {
                        words.next()?;
                    }
                    None if !next.contains('=') && !next.starts_with(|first: char| first.is_ascii_digit()) => break,
                    _ => {}
                }
                next = words.next()?;
            }
            name = bare(next);
        }
        Some(name)
    }

    /// What follows the program's name, and what stands before it.
    pub(super) fn arguments(&self) -> &[Word] {
        self.words.get(1..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.assignments.is_empty() && self.words.is_empty() && self.strings.is_empty() && self.documents.is_empty()
    }

    fn take(&mut self, word: Word) {
        if self.words.is_empty() {
            let first = word.pieces.first().map_or("", String::as_str);
            if RESERVED.contains(&first) && word.variables.is_empty() {
                return;
            }
            if let Some((name, _)) = first.split_once('=')
                && is_name(name.trim_end_matches('+'))
            {
                let name = name.trim_end_matches('+').to_owned();
                let mut value = word;
                if let Some(piece) = value.pieces.first_mut() {
                    piece.drain(..(name.len() + 1).min(piece.len()));
                }
                self.assignments.push((name, value));
                return;
            }
        }
        // `export NAME=value` and the like assign too.
        if self.words.first().is_some_and(|first| DECLARATIONS.contains(&first.text().as_str()))
            && let Some((name, _)) = word.pieces.first().and_then(|piece| piece.split_once('='))
            && is_name(name)
        {
            let (name, mut value) = (name.to_owned(), word.clone());
            if let Some(piece) = value.pieces.first_mut() {
                piece.drain(..name.len() + 1);
            }
            self.assignments.push((name, value));
        }
        self.words.push(word);
    }
}

fn bare(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or_default()
}

/// Names of variables in a text that is not taken apart otherwise.
pub(super) fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).take(MAX_VARIABLES).filter_map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest.get(..end).filter(|name| is_name(name))
    })
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Takes a script apart.
pub(super) fn pipelines(script: &str) -> Vec<Vec<Command>> {
    let mut found = Vec::new();
    Scanner { text: script, at: 0, depth: 0, found: &mut found }.run();
    found
}

/// A group of commands that is open: `(`, `{`, `while` and such.
struct Group {
    /// What closes it.
    closer: &'static str,
    /// Where its pipelines begin among those that were found.
    start: usize,
    /// The pipeline that it stands in.
    outer: Vec<Command>,
}

struct Scanner<'t, 'f> {
    text: &'t str,
    at: usize,
    depth: usize,
    found: &'f mut Vec<Vec<Command>>,
}

impl Scanner<'_, '_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn run(&mut self) {
        let mut pipeline: Vec<Command> = Vec::new();
        let mut command = Command::default();
        // Here-documents whose bodies begin with the next line: delimiter, tabs taken off, which command of the
        // pipeline.
        let mut due: Vec<(String, bool, usize)> = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        // Where the pipelines of the group begin that was closed just now: a pipe makes them part of its own.
        let mut closed: Option<usize> = None;
        while self.at < self.text.len() {
            match self.peek(0) {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.peek(1) == b'\n' => self.at += 2,
                b'\\' if self.peek(1) == b'\r' && self.peek(2) == b'\n' => self.at += 3,
                b'#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                b'\n' => {
                    self.at += 1;
                    for (delimiter, tabs, index) in due.drain(..) {
                        let body = self.document(&delimiter, tabs);
                        let owner = if index < pipeline.len() { pipeline.get_mut(index) } else { Some(&mut command) };
                        if let Some(owner) = owner {
                            owner.documents.push(body);
                        }
                    }
                    // A pipe goes on on the next line.
                    if !command.is_empty() || pipeline.is_empty() {
                        self.end(&mut pipeline, &mut command);
                    }
                    closed = None;
                }
                b'|' if self.peek(1) != b'|' => {
                    self.at += if self.peek(1) == b'&' { 2 } else { 1 };
                    if let Some(start) = closed.take() {
                        pipeline.extend(self.found.drain(start.min(self.found.len())..).flatten());
                    }
                    pipeline.push(std::mem::take(&mut command));
                }
                b'&' if self.peek(1) == b'>' => self.at += 1,
                b'(' if self.peek(1) == b')' => {
                    // Of a function.
                    self.at += 2;
                    self.end(&mut pipeline, &mut command);
                    closed = None;
                }
                b'(' if self.peek(1) == b'(' && self.arithmetic() > 0 => self.at += self.arithmetic(),
                b'(' if command.is_empty() && groups.len() < MAX_GROUPS => {
                    self.at += 1;
                    closed = None;
                    let outer = std::mem::take(&mut pipeline);
                    groups.push(Group { closer: ")", start: self.found.len(), outer });
                }
                b')' if groups.last().is_some_and(|group| group.closer == ")") => {
                    self.at += 1;
                    self.end(&mut pipeline, &mut command);
                    closed = groups.pop().and_then(|group| self.close(group, &mut pipeline));
                }
                b'|' | b'&' | b';' | b'(' | b')' => {
                    self.at += 1;
                    if due.is_empty() {
                        self.end(&mut pipeline, &mut command);
                    }
                    closed = None;
                }
                b'<' if self.rest().starts_with("<<<") => {
                    self.at += 3;
                    self.blanks();
                    let word = self.word();
                    command.strings.push(word);
                }
                b'<' if self.rest().starts_with("<<") => {
                    self.at += 2;
                    let tabs = self.peek(0) == b'-';
                    self.at += usize::from(tabs);
                    self.blanks();
                    let delimiter = self.word().text();
                    due.push((delimiter, tabs, pipeline.len()));
                }
                b'<' if self.peek(1) == b'(' && self.depth < MAX_DEPTH => {
                    // As good as piped into the command so far.
                    let end = closing(self.rest(), 2);
                    let commands = self.rest().get(2..end).unwrap_or_default().to_owned();
                    self.at += end + 1;
                    let start = self.found.len();
                    self.nested(&commands);
                    for inner in self.found.iter_mut().skip(start) {
                        let words = command.words.iter().take(MAX_REPEATED).cloned().collect();
                        inner.push(Command { words, ..Command::default() });
                    }
                }
                direction @ (b'<' | b'>') => {
                    self.at += 1;
                    while matches!(self.peek(0), b'>' | b'&' | b'|') {
                        self.at += 1;
                    }
                    if self.peek(0) != b'(' {
                        self.blanks();
                        // Where to or from is no argument.
                        let path = self.word().text();
                        if direction == b'<' { command.from.push(path) } else { command.to.push(path) }
                    }
                }
                _ => {
                    let before = self.at;
                    let word = self.word();
                    if self.at == before {
                        self.at += self.rest().chars().next().map_or(1, char::len_utf8);
                    } else if command.is_empty()
                        && let Some(closer) = closer_of(&word)
                        && groups.len() < MAX_GROUPS
                    {
                        closed = None;
                        let outer = std::mem::take(&mut pipeline);
                        groups.push(Group { closer, start: self.found.len(), outer });
                        // `for` and `case` have words of their own.
                        command.take(word);
                    } else if command.is_empty()
                        && groups.last().is_some_and(|group| word.variables.is_empty() && group.closer == word.text())
                    {
                        self.end(&mut pipeline, &mut command);
                        closed = groups.pop().and_then(|group| self.close(group, &mut pipeline));
                    } else if !(matches!(self.peek(0), b'<' | b'>') && word.text().bytes().all(|b| b.is_ascii_digit()))
                    {
                        command.take(word);
                    }
                }
            }
        }
        self.end(&mut pipeline, &mut command);
        for group in groups {
            pipeline = group.outer;
            self.end(&mut pipeline, &mut command);
        }
    }

    /// Closes a group. Inside a pipeline its commands become part of that; else where they begin is told.
    fn close(&mut self, group: Group, pipeline: &mut Vec<Command>) -> Option<usize> {
        let start = group.start.min(self.found.len());
        *pipeline = group.outer;
        if pipeline.is_empty() {
            return Some(start);
        }
        pipeline.extend(self.found.drain(start..).flatten());
        None
    }

    /// How long `((…))` is, when that stands here and is none of subshells.
    fn arithmetic(&self) -> usize {
        let rest = self.rest();
        let near = rest.get(..rest.floor_char_boundary(MAX_ARITHMETIC)).unwrap_or_default();
        let end = closing(near, 2);
        if near.as_bytes().get(end + 1) == Some(&b')') { end + 2 } else { 0 }
    }

    fn end(&mut self, pipeline: &mut Vec<Command>, command: &mut Command) {
        if !command.is_empty() {
            pipeline.push(std::mem::take(command));
        }
        if !pipeline.is_empty() && self.found.len() < MAX_PIPELINES {
            self.found.push(std::mem::take(pipeline));
        }
        pipeline.clear();
    }

    fn blanks(&mut self) {
        while matches!(self.peek(0), b' ' | b'\t') {
            self.at += 1;
        }
    }

    fn document(&mut self, delimiter: &str, tabs: bool) -> String {
        let mut body = String::new();
        while self.at < self.text.len() {
            let line = self.rest().split('\n').next().unwrap_or_default();
            let length = line.len();
            let line = line.strip_suffix('\r').unwrap_or(line);
            let shown = if tabs { line.trim_start_matches('\t') } else { line };
            let ends = shown == delimiter;
            if !ends {
                body.push_str(shown);
                body.push('\n');
            }
            self.at = (self.at + length + 1).min(self.text.len());
            if ends {
                break;
            }
        }
        body
    }

    fn word(&mut self) -> Word {
        let mut word = Word::default();
        while self.at < self.text.len() {
            match self.peek(0) {
                b' ' | b'\t' | b'\r' | b'\n' | b'|' | b'&' | b';' | b'(' | b')' | b'<' | b'>' => break,
                b'\'' => {
                    self.at += 1;
                    self.until_quote(&mut word);
                }
                b'"' => {
                    self.at += 1;
                    self.quoted(&mut word);
                }
                b'\\' => {
                    self.at += 1;
                    if self.peek(0) == b'\n' {
                        self.at += 1;
                    } else {
                        self.character(&mut word);
                    }
                }
                b'$' if self.peek(1) == b'\'' => {
                    self.at += 2;
                    self.escaped(&mut word);
                }
                b'$' | b'`' => self.expansion(&mut word),
                _ => self.character(&mut word),
            }
        }
        word
    }

    fn character(&mut self, word: &mut Word) {
        let length = self.rest().chars().next().map_or(0, char::len_utf8);
        let text = self.text.get(self.at..self.at + length).unwrap_or_default();
        word.push(text);
        self.at += length.max(1);
    }

    fn until_quote(&mut self, word: &mut Word) {
        let length = self.rest().find('\'').unwrap_or(self.rest().len());
        let text = self.text.get(self.at..self.at + length).unwrap_or_default();
        word.push(text);
        self.at += length + 1;
    }

    /// The inside of `$'…'`, whose escapes are bash's.
    fn escaped(&mut self, word: &mut Word) {
        let mut raw = self.rest().bytes().enumerate();
        let mut end = self.rest().len();
        while let Some((at, byte)) = raw.next() {
            match byte {
                b'\\' => {
                    raw.next();
                }
                b'\'' => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        let text = self.rest().get(..end).unwrap_or_default().to_owned();
        self.at += end + 1;
        word.push(&unescaped(&text));
        if text.contains('\\') {
            word.raw.push(text);
        }
    }

    fn quoted(&mut self, word: &mut Word) {
        while self.at < self.text.len() {
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'\\' if matches!(self.peek(1), b'"' | b'\\' | b'$' | b'`') => {
                    self.at += 1;
                    self.character(word);
                }
                b'\\' if self.peek(1) == b'\n' => self.at += 2,
                b'$' | b'`' => self.expansion(word),
                _ => self.character(word),
            }
        }
    }

    /// A variable or a substitution, whose own commands count as well.
    fn expansion(&mut self, word: &mut Word) {
        let rest = self.rest();
        let inner = |open: usize, close: usize| rest.get(open..close).unwrap_or_default().to_owned();
        if rest.starts_with('`') {
            let end = rest.get(1..).and_then(|rest| rest.find('`')).map_or(rest.len(), |end| end + 1);
            let commands = inner(1, end);
            self.at += end + 1;
            word.split();
            return self.nested(&commands);
        }
        if rest.starts_with("$(") {
            let end = closing(rest, 2);
            let commands = inner(2, end);
            self.at += end + 1;
            word.split();
            return self.nested(&commands);
        }
        let braced = rest.starts_with("${");
        let start = if braced { 2 } else { 1 };
        let name = rest.get(start..).unwrap_or_default().trim_start_matches(['!', '#']);
        let skipped = rest.len() - name.len();
        let length = name.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let name = name.get(..length).unwrap_or_default().to_owned();
        if braced {
            let end = rest.find('}').map_or(rest.len(), |end| end + 1);
            // What stands there when the variable is not set: `${PASSWORD:-text}`.
            let default = inner((skipped + length).min(end), end.saturating_sub(1));
            self.at += end;
            word.split();
            let default = default.trim_start_matches([':', '-', '=', '+', '?']);
            if !default.is_empty() && is_name(&name) {
                word.push(default);
                word.split();
            }
        } else if length == 0 {
            return self.character(word);
        } else {
            self.at += skipped + length;
            word.split();
        }
        if is_name(&name) && word.variables.len() < MAX_VARIABLES {
            word.variables.push(name);
        }
    }

    fn nested(&mut self, commands: &str) {
        if self.depth < MAX_DEPTH {
            Scanner { text: commands, at: 0, depth: self.depth + 1, found: &mut *self.found }.run();
        }
    }
}

/// What closes the group that this word opens.
fn closer_of(word: &Word) -> Option<&'static str> {
    let [only] = word.pieces.as_slice() else { return None };
    match only.as_str() {
        "{" => Some("}"),
        "if" => Some("fi"),
        "while" | "until" | "for" | "select" => Some("done"),
        "case" => Some("esac"),
        _ => None,
    }
}

/// What bash makes of the inside of `$'…'`.
fn unescaped(text: &str) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(rest.get(..at).unwrap_or_default().as_bytes());
        rest = rest.get(at + 1..).unwrap_or_default();
        let Some(kind) = rest.chars().next() else { break };
        let after = rest.get(kind.len_utf8()..).unwrap_or_default();
        let digits = |of: &str, radix: u32, most: usize| {
            let length = of.chars().take(most).take_while(|digit| digit.is_digit(radix)).count();
            (u32::from_str_radix(of.get(..length).unwrap_or_default(), radix).ok(), length)
        };
        let low = |number: u32| u8::try_from(number & 0xff).unwrap_or(0);
        let from = std::mem::replace(&mut rest, after);
        match kind {
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            'r' => out.push(b'\r'),
            'a' => out.push(7),
            'b' => out.push(8),
            'e' | 'E' => out.push(27),
            'f' => out.push(12),
            'v' => out.push(11),
            '\\' | '\'' | '"' | '?' => out.push(u8::try_from(kind).unwrap_or(b'?')),
            'x' | 'u' | 'U' => {
                let most = [('x', 2), ('u', 4), ('U', 8)]
                    .iter()
                    .find(|(known, _)| *known == kind)
                    .map_or(0, |(_, most)| *most);
                let (number, length) = digits(after, 16, most);
                rest = after.get(length..).unwrap_or_default();
                match number {
                    Some(number) if kind == 'x' => out.push(low(number)),
                    Some(number) => {
                        let character = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
                        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    None => out.extend_from_slice(format!("\\{kind}").as_bytes()),
                }
            }
            '0'..='7' => {
                let (number, length) = digits(from, 8, 3);
                rest = from.get(length..).unwrap_or_default();
                out.push(low(number.unwrap_or(0)));
            }
            other => out.extend_from_slice(format!("\\{other}").as_bytes()),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the parenthesis that is open at `start` is closed.
fn closing(text: &str, start: usize) -> usize {
    let mut open = 1_usize;
    let mut quote = 0;
    let mut bytes = text.bytes().enumerate().skip(start);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quote != b'\'' => {
                bytes.next();
            }
            b'\'' | b'"' if quote == 0 => quote = byte,
            _ if byte == quote => quote = 0,
            b'(' if quote == 0 => open += 1,
            b')' if quote == 0 => {
                open -= 1;
                if open == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Words after which a command begins.
const RESERVED: &[&str] = &["if", "then", "elif", "else", "while", "until", "do", "!", "{", "}", "time", "fi", "done"];
/// Programs that run the program behind them, and which of their short options have a word for themselves.
const PREFIXES: &[(&str, &str)] = &[
    ("sudo", "ugUhpCDrtTR"),
    ("doas", "uC"),
    ("runuser", "ug"),
    ("env", "uC"),
    ("exec", "a"),
    ("command", ""),
    ("builtin", ""),
    ("nohup", ""),
    ("setsid", ""),
    ("eval", ""),
    ("time", "fo"),
    ("timeout", "ks"),
    ("nice", "n"),
    ("ionice", "cnp"),
    ("stdbuf", "ioe"),
    ("unbuffer", ""),
];
const DECLARATIONS: &[&str] = &["export", "declare", "typeset", "local", "readonly", "env"];
const MAX_DEPTH: usize = 8;
/// Groups in groups.
const MAX_GROUPS: usize = 64;
/// Of `((…))`.
const MAX_ARITHMETIC: usize = 256;
/// Words of a command that stand for it elsewhere.
const MAX_REPEATED: usize = 8;
const MAX_PIPELINES: usize = 200_000;
const MAX_VARIABLES: usize = 100;
