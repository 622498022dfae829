//! What a start script does, statement by statement, as far as it is understood: which files it writes, who it logs in, what it
//! installs, and what is left.
//!
//! It keeps passwords no longer than it takes to see where they come from, and none leaves it. Called by `migrate`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use zeroize::Zeroize as _;

use super::shell::{self, Command, Redirection, Statement, Word};
use super::{Alias, Lines, Login, Remaining, Secret, Unneeded};

/// What was understood.
#[derive(Debug, Default)]
pub(super) struct Understood {
    /// What `krb5.conf` holds in the end, and the lines that say so.
    pub(super) krb5_conf: Option<(String, Lines)>,
    /// A file that takes the place of `krb5.conf`.
    pub(super) krb5_path: Option<(String, Lines)>,
    pub(super) aliases: Vec<Alias>,
    pub(super) logins: Vec<Login>,
    pub(super) unneeded: Vec<Unneeded>,
    pub(super) remaining: Vec<Remaining>,
    pub(super) remarks: Vec<String>,
}

/// Reads a script.
pub(super) fn understand(script: &str) -> Understood {
    let mut state = State::default();
    let statements = shell::read(script);
    let most = statements.len().min(MAX_STATEMENTS);
    let (read, unread) = statements.split_at(most);
    for statement in read {
        state.statement(statement);
    }
    if let (Some(first), Some(last)) = (unread.first(), unread.last()) {
        state.stays((first.lines.0, last.lines.1), "", "the script has more statements than are looked at");
    }
    state.finish()
}

/// A file as the script leaves it.
#[derive(Debug, Default, Clone)]
struct File {
    /// Nothing: it is written, but what with is not known.
    text: Option<String>,
    /// The statements that wrote it.
    writers: Vec<Writer>,
    secret: bool,
}

#[derive(Debug, Clone)]
struct Writer {
    lines: Lines,
    program: String,
}

#[derive(Default)]
struct State {
    variables: BTreeMap<String, String>,
    files: BTreeMap<String, File>,
    found: Understood,
    noted: BTreeSet<&'static str>,
}

/// What a command gets on its standard input.
#[derive(Clone)]
enum Input {
    Nothing,
    Text(String),
    File(String),
    /// From this variable, which the script does not set.
    Variable(String),
    Unknown,
}

impl State {
    fn stays(&mut self, lines: Lines, program: &str, why: &str) {
        if self.found.remaining.len() < MAX_LISTED {
            self.found.remaining.push(Remaining { lines, program: shown_program(program), why: why.to_owned() });
        }
    }

    fn unneeded(&mut self, lines: Lines, what: impl Into<String>) {
        if self.found.unneeded.len() < MAX_LISTED {
            self.found.unneeded.push(Unneeded { lines, what: what.into() });
        }
    }

    fn remark(&mut self, text: String) {
        if self.found.remarks.len() < MAX_LISTED && !self.found.remarks.contains(&text) {
            self.found.remarks.push(text);
        }
    }

    fn statement(&mut self, statement: &Statement) {
        let lines = statement.lines;
        let program = statement.commands.iter().find_map(|command| command.words.first()?.bare()).unwrap_or_default();
        if let Some(problem) = statement.broken {
            self.touched(statement);
            return self.stays(lines, program, problem);
        }
        if statement.compound {
            self.touched(statement);
            if program.is_empty() {
                return;
            }
            return self.stays(lines, program, "it stands in a loop, a condition or a function");
        }
        let Some((last, before)) = statement.commands.split_last() else { return };
        if statement.fallback && !self.is_quiet(last) {
            self.touched(statement);
            return self.stays(lines, program, "it only runs when what stands before it fails");
        }
        let mut input = Input::Nothing;
        for command in before {
            input = self.output_of(command, input);
        }
        if let Err(why) = self.command(lines, last, input, before) {
            self.touched(statement);
            self.stays(lines, program, why);
        }
    }

    /// What a statement that is not understood makes of the files that it names is not known from here on.
    fn touched(&mut self, statement: &Statement) {
        let mut named: BTreeSet<String> = BTreeSet::new();
        for command in &statement.commands {
            let outputs = command.redirections.iter().filter_map(|redirection| match redirection {
                Redirection::Output { to, .. } => Some(to),
                _ => None,
            });
            let only_reads =
                command.words.first().and_then(Word::bare).is_some_and(|program| ONLY_READ.contains(&program));
            let words = command.words.iter().filter(|_| !only_reads);
            named.extend(outputs.chain(words).filter_map(|word| word.resolve(&self.variables).ok()));
        }
        for word in named {
            let known: Vec<String> = self.files.keys().filter(|path| word.contains(path.as_str())).cloned().collect();
            let own = ["/etc/krb5.conf", "/etc/krb5/krb5.conf"].iter().any(|path| word.contains(path));
            for path in known.into_iter().chain(own.then(|| KRB5_CONF.to_owned())) {
                let is_named = self.found.krb5_path.as_ref().is_some_and(|(named, _)| *named == path);
                let file = self.files.entry(path.clone()).or_default();
                file.text = None;
                file.writers.push(Writer { lines: statement.lines, program: String::new() });
                if path == KRB5_CONF || is_named {
                    self.note("touched", "a statement that stays changes krb5.conf, so that no settings are made of it: make them of the file that the script leaves");
                }
            }
        }
    }

    /// Whether a command means nothing to anybody: `true`, `:`, `echo`.
    fn is_quiet(&self, command: &Command) -> bool {
        let quiet = ["true", ":", "echo", "false", "exit"];
        command.redirections.iter().all(|redirection| matches!(redirection, Redirection::Other))
            && command.words.first().and_then(Word::bare).is_some_and(|word| quiet.contains(&word))
    }

    /// What a command of a pipeline writes to the next.
    fn output_of(&mut self, command: &Command, input: Input) -> Input {
        let input = self.input_of(command, input);
        let Ok(words) = self.words(command) else {
            // The one word that matters may be a variable that only the pod knows.
            let unknown = command.words.iter().skip(1).find_map(|word| word.resolve(&self.variables).err().flatten());
            return match (command.words.first().and_then(Word::bare), unknown) {
                (Some("echo" | "printf"), Some(name)) => Input::Variable(name.to_owned()),
                _ => Input::Unknown,
            };
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["echo", ..] | ["printf", ..] => printed(&words).map_or(Input::Unknown, Input::Text),
            ["yes", rest @ ..] => Input::Text(rest.join(" ")),
            ["cat"] => input,
            ["cat", path] => self.contents(path),
            ["base64", ..] => Input::Unknown,
            _ => Input::Unknown,
        }
    }

    fn contents(&self, path: &str) -> Input {
        match self.files.get(path).map(|file| &file.text) {
            Some(Some(text)) => Input::Text(text.clone()),
            Some(None) => Input::Unknown,
            None => Input::File(path.to_owned()),
        }
    }

    fn input_of(&self, command: &Command, piped: Input) -> Input {
        let last = command.redirections.iter().rev().find_map(|redirection| match redirection {
            Redirection::Text(word) => Some(match word.resolve(&self.variables) {
                Ok(text) => Input::Text(text),
                Err(Some(name)) => Input::Variable(name.to_owned()),
                Err(None) => Input::Unknown,
            }),
            Redirection::Input(word) => {
                Some(word.resolve(&self.variables).map_or(Input::Unknown, |path| self.contents(&path)))
            }
            _ => None,
        });
        last.unwrap_or(piped)
    }

    /// All words of a command, without `sudo`. Nothing: one is not known.
    fn words(&self, command: &Command) -> Result<Vec<String>, &'static str> {
        let all = command.words.iter().map(|word| word.resolve(&self.variables));
        let words: Result<Vec<String>, _> = all.collect();
        let mut words = words.map_err(|_| "it has an expansion that only bash knows")?;
        if words.first().is_some_and(|word| word == "sudo") {
            words.remove(0);
        }
        Ok(words)
    }

    fn command(
        &mut self,
        lines: Lines,
        command: &Command,
        piped: Input,
        before: &[Command],
    ) -> Result<(), &'static str> {
        let input = self.input_of(command, piped);
        let words = self.words(command);
        let target = command.redirections.iter().rev().find_map(|redirection| match redirection {
            Redirection::Output { append, to } => Some((*append, to.resolve(&self.variables))),
            _ => None,
        });
        for (name, value) in &command.assignments {
            self.assign(lines, name, value.resolve(&self.variables).ok(), !command.words.is_empty());
        }
        let words = words?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let writes = match target {
            Some((append, Ok(path))) => Some((append, path)),
            Some((_, Err(_))) => return Err("where its output goes is not known"),
            None => None,
        };
        if let Some((append, path)) = writes.filter(|(_, path)| path != "/dev/null") {
            let text = match words.as_slice() {
                [] | [":" | "true"] => Some(String::new()),
                ["cat"] => match input {
                    Input::Text(text) => Some(text),
                    _ => None,
                },
                ["cat", source] => return self.copied(lines, source, &path),
                ["echo", ..] | ["printf", ..] => printed(&words),
                _ => None,
            };
            let secret = words.first().is_some_and(|word| *word == "base64");
            return self.written(lines, words.first().copied().unwrap_or_default(), &path, append, text, secret);
        }
        match words.as_slice() {
            [] => {
                // Assignments are done; redirections alone do nothing.
                Ok(())
            }
            ["tee", options @ .., path] if options.iter().all(|option| option.starts_with('-')) => {
                let text = match input {
                    Input::Text(text) => Some(text),
                    _ => None,
                };
                self.written(lines, "tee", path, options.contains(&"-a"), text, false)
            }
            ["truncate", rest @ .., path] if rest.contains(&"0") || rest.contains(&"-s0") => {
                self.written(lines, "truncate", path, false, Some(String::new()), false)
            }
            ["rm", rest @ ..] => {
                let paths: Vec<&&str> = rest.iter().filter(|word| !word.starts_with('-')).collect();
                if paths.iter().all(|path| is_krb5_conf(path)) && !paths.is_empty() {
                    return self.written(lines, "rm", KRB5_CONF, false, Some(String::new()), false);
                }
                if paths.iter().all(|path| self.files.contains_key(**path)) && !paths.is_empty() {
                    return Ok(());
                }
                Err(NOT_KNOWN)
            }
            ["cp" | "mv" | "ln", rest @ ..] => {
                let paths: Vec<&&str> = rest.iter().filter(|word| !word.starts_with('-')).collect();
                match paths.as_slice() {
                    [from, to] => self.copied(lines, from, to),
                    _ => Err(NOT_KNOWN),
                }
            }
            ["chmod" | "chown" | "chgrp", _, paths @ ..]
                if !paths.is_empty() && paths.iter().all(|path| self.files.contains_key(*path) || is_ours(path)) =>
            {
                Ok(())
            }
            ["kinit", rest @ ..] => self.kinit(lines, rest, input),
            ["klist" | "kdestroy" | "kvno", ..] => {
                self.unneeded(
                    lines,
                    "tickets: the agent gets and keeps its own; `lictor winrm test` shows what it gets",
                );
                Ok(())
            }
            [
                program @ ("microdnf" | "yum" | "dnf" | "apt-get" | "apt" | "apk" | "zypper" | "rpm" | "pip" | "pip3"),
                rest @ ..,
            ] => {
                let only_answers = before.iter().all(|command| {
                    matches!(command.words.first().and_then(Word::bare), Some("yes" | "echo" | "printf"))
                });
                if !only_answers {
                    return Err(NOT_KNOWN);
                }
                self.packages(lines, program, rest);
                Ok(())
            }
            ["export" | "declare" | "readonly" | "typeset", rest @ ..] => {
                for word in rest.iter().filter(|word| !word.starts_with('-')) {
                    match word.split_once('=') {
                        Some((name, value)) => self.assign(lines, name, Some(value.to_owned()), true),
                        None => {
                            let value = self.variables.get(*word).cloned();
                            self.assign(lines, word, value, true);
                        }
                    }
                }
                Ok(())
            }
            ["set" | "shopt" | "unset" | "umask" | "true" | ":" | "false" | "exit" | "sleep" | "wait" | "date", ..]
            | ["echo" | "printf" | "cat" | "ls" | "whoami" | "id" | "hostname" | "uname" | "pwd", ..] => Ok(()),
            _ => Err(NOT_KNOWN),
        }
    }

    /// `exported`: other programs see it.
    fn assign(&mut self, lines: Lines, name: &str, value: Option<String>, exported: bool) {
        if exported {
            match (name, &value) {
                ("KRB5_CONFIG", Some(path)) => {
                    self.found.krb5_path = Some((path.clone(), lines));
                }
                ("KRB5CCNAME", Some(cache)) => self.remark(format!(
                    "line {}: KRB5CCNAME={cache:?} belongs into the container's environment while programs other than the agent use it",
                    lines.0
                )),
                _ => self.remark(format!(
                    "line {}: the variable {} belongs into the container's environment, and its value into a Secret if it is one",
                    lines.0,
                    shown_name(name)
                )),
            }
        }
        match value {
            // What does not fit into a command line is no name, path or password.
            Some(value) if value.len() <= MAX_VALUE && self.variables.len() < MAX_VARIABLES => {
                self.variables.insert(name.to_owned(), value);
            }
            _ => {
                self.variables.remove(name);
            }
        }
    }

    fn written(
        &mut self,
        lines: Lines,
        program: &str,
        path: &str,
        append: bool,
        text: Option<String>,
        secret: bool,
    ) -> Result<(), &'static str> {
        if self.files.len() >= MAX_FILES && !self.files.contains_key(path) {
            return Err("the script writes more files than are looked at");
        }
        let path = if is_krb5_conf(path) { KRB5_CONF } else { path };
        if path == HOSTS {
            let Some(text) = text else { return Err("what it adds to /etc/hosts is not known") };
            return self.hosts(lines, &text);
        }
        let file = self.files.entry(path.to_owned()).or_default();
        let writer = Writer { lines, program: program.to_owned() };
        if append {
            // What was there before the script is the image's, which has none.
            let before = if file.writers.is_empty() { Some(String::new()) } else { file.text.take() };
            file.text = before.zip(text).map(|(before, text)| before + &text).filter(|text| text.len() <= MAX_TEXT);
        } else {
            file.writers.clear();
            file.text = text;
        }
        file.writers.push(writer);
        file.secret |= secret;
        Ok(())
    }

    fn copied(&mut self, lines: Lines, from: &str, to: &str) -> Result<(), &'static str> {
        if let Some(file) = self.files.get(from).cloned() {
            return self.written(lines, "cp", to, false, file.text, file.secret);
        }
        if is_krb5_conf(to) {
            self.files.remove(KRB5_CONF);
            self.found.krb5_path = Some((from.to_owned(), lines));
            return Ok(());
        }
        Err(NOT_KNOWN)
    }

    fn hosts(&mut self, lines: Lines, text: &str) -> Result<(), &'static str> {
        let mut found = Vec::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut parts = line.split_whitespace();
            let Some(ip) = parts.next() else { continue };
            let names: Vec<String> = parts.map(str::to_owned).collect();
            let sound = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:%".contains(&b));
            if names.is_empty() || !sound(ip) || !names.iter().all(|name| sound(name)) {
                return Err("what it adds to /etc/hosts is no address with names");
            }
            found.push(Alias { lines, is_address: ip.parse::<IpAddr>().is_ok(), ip: ip.to_owned(), names });
        }
        if self.found.aliases.len() + found.len() > MAX_LISTED {
            return Err("it adds more to /etc/hosts than is looked at");
        }
        self.found.aliases.extend(found);
        Ok(())
    }

    fn packages(&mut self, lines: Lines, program: &str, words: &[&str]) {
        let names: Vec<&str> = words.iter().filter(|word| !word.starts_with('-')).skip(1).copied().collect();
        let of_kerberos =
            |name: &&str| name.starts_with("krb5") || name.contains("kerberos") || name.contains("gssapi");
        let others: Vec<String> =
            names.iter().filter(|name| !of_kerberos(name)).take(MAX_NAMES).map(|name| shown_program(name)).collect();
        let text = if others.is_empty() {
            format!("{program}: the agent needs no packages for Kerberos")
        } else {
            format!("{program}: {}; put into an image of your own what other programs need", others.join(", "))
        };
        self.unneeded(lines, text);
    }

    fn kinit(&mut self, lines: Lines, words: &[&str], input: Input) -> Result<(), &'static str> {
        let (mut principal, mut keytab, mut cache) = (None, None, None);
        let (mut uses_keytab, mut renews) = (false, false);
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
                if principal.replace((*word).to_owned()).is_some() {
                    return Err("its kinit has more words than one for the user");
                }
                continue;
            };
            if let Some(long) = word.strip_prefix("--") {
                if let Some(path) = long.strip_prefix("keytab=") {
                    keytab = Some(path.to_owned());
                    uses_keytab = true;
                }
                continue;
            }
            for (at, flag) in flags.char_indices() {
                match flag {
                    'k' => uses_keytab = true,
                    'R' => renews = true,
                    'l' | 's' | 'r' | 'c' | 't' | 'T' | 'S' | 'X' | 'I' => {
                        let attached = flags.get(at + flag.len_utf8()..).filter(|value| !value.is_empty());
                        let value =
                            attached.map(str::to_owned).or_else(|| rest.next().map(|value| (*value).to_owned()));
                        match flag {
                            't' => keytab = value,
                            'c' => cache = value,
                            _ => {}
                        }
                        break;
                    }
                    _ => {}
                }
            }
        }
        if renews {
            self.unneeded(lines, "renewing tickets: the agent does so by itself");
            return Ok(());
        }
        let Some(principal) = principal.filter(|name| is_principal(name)) else {
            return Err("whom its kinit logs in is not known");
        };
        let secret = if uses_keytab {
            let path = keytab.unwrap_or_else(|| "/etc/krb5.keytab".to_owned());
            let written = self.files.contains_key(&path);
            if written {
                self.note(
                    "keytab",
                    "the script writes a keytab, which is as good as a password: put it into a Secret that the pod mounts",
                );
            }
            Secret::Keytab { path, in_script: written }
        } else {
            match input {
                Input::Text(mut password) => {
                    password.zeroize();
                    Secret::PasswordInScript
                }
                Input::File(path) => Secret::PasswordFile(path),
                Input::Variable(name) => Secret::PasswordVariable(name),
                Input::Nothing => return Err("its kinit asks for a password, and nobody answers"),
                Input::Unknown => return Err("where its kinit gets the password from is not known"),
            }
        };
        if self.found.logins.len() >= MAX_LISTED {
            return Err("the script logs more users in than are looked at");
        }
        self.found.logins.push(Login { lines, principal, secret, cache });
        Ok(())
    }

    fn note(&mut self, key: &'static str, text: &str) {
        if self.noted.insert(key) {
            self.remark(text.to_owned());
        }
    }

    /// Those whose statements do not stay already.
    fn untold(&self, writers: Vec<Writer>) -> Vec<Writer> {
        let told: BTreeSet<Lines> = self.found.remaining.iter().map(|remaining| remaining.lines).collect();
        writers.into_iter().filter(|writer| !told.contains(&writer.lines)).collect()
    }

    fn finish(mut self) -> Understood {
        for (path, file) in std::mem::take(&mut self.files) {
            let lines = file
                .writers
                .iter()
                .fold((usize::MAX, 0), |(first, last), writer| (first.min(writer.lines.0), last.max(writer.lines.1)));
            let used_as_keytab = self
                .found
                .logins
                .iter()
                .any(|login| matches!(&login.secret, Secret::Keytab { path: keytab, .. } if *keytab == path));
            if path == KRB5_CONF || self.found.krb5_path.as_ref().is_some_and(|(named, _)| *named == path) {
                if let Some(text) = file.text {
                    if !text.trim().is_empty() {
                        self.found.krb5_conf = Some((text, lines));
                    }
                    if path != KRB5_CONF {
                        self.found.krb5_path = None;
                    }
                    continue;
                }
                for writer in self.untold(file.writers) {
                    self.stays(writer.lines, &writer.program, "what it writes into krb5.conf is not known");
                }
            } else if !used_as_keytab {
                for writer in self.untold(file.writers) {
                    self.stays(writer.lines, &writer.program, "it writes a file that is nothing to the agent");
                }
            }
        }
        for value in self.variables.values_mut() {
            value.zeroize();
        }
        self.found.remaining.sort_by_key(|remaining| remaining.lines);
        self.found
    }
}

/// What `echo` or `printf` prints. Nothing: it is not known.
fn printed(words: &[&str]) -> Option<String> {
    match words {
        ["echo", rest @ ..] => {
            let flags = rest.iter().take_while(|word| matches!(**word, "-n" | "-e" | "-ne" | "-en" | "-E")).count();
            let (flags, rest) = rest.split_at(flags);
            let text = rest.join(" ");
            let text = if flags.iter().any(|flag| flag.contains('e')) { unescaped(&text)? } else { text };
            let end = if flags.iter().any(|flag| flag.contains('n')) { "" } else { "\n" };
            Some(text + end)
        }
        ["printf", format, arguments @ ..] => {
            let mut format = unescaped(format)?;
            for argument in arguments {
                let (before, after) = format.split_once("%s")?;
                if before.contains('%') {
                    return None;
                }
                format = format!("{before}{}{after}", argument.replace('%', "%%"));
            }
            let plain = format.replace("%%", "\u{0}");
            (!plain.contains('%')).then(|| plain.replace('\u{0}', "%"))
        }
        _ => None,
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => match rest.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                '\\' => out.push('\\'),
                '"' => out.push('"'),
                _ => return None,
            },
            other => out.push(other),
        }
    }
    Some(out)
}

fn is_krb5_conf(path: &str) -> bool {
    matches!(path, KRB5_CONF | "/etc/krb5/krb5.conf")
}

fn is_ours(path: &str) -> bool {
    is_krb5_conf(path) || path == HOSTS
}

/// `user`, `user@REALM`, `service/host@REALM`.
fn is_principal(name: &str) -> bool {
    (1..=256).contains(&name.len()) && name.chars().all(|c| c.is_alphanumeric() || "-_.@/$+\\".contains(c))
}

/// The name of a program as far as it cannot be anything else: a password that is misquoted looks otherwise, or is found out
/// by being the only word.
fn shown_program(name: &str) -> String {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    let name = name.rsplit('/').next().unwrap_or_default();
    if (1..=40).contains(&name.len()) && name.chars().all(known) && PROGRAMS.contains(&name) {
        name.to_owned()
    } else {
        String::new()
    }
}

fn shown_name(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect()
}

const KRB5_CONF: &str = "/etc/krb5.conf";
const HOSTS: &str = "/etc/hosts";
/// Programs that leave the files that they name as they are.
const ONLY_READ: &[&str] = &["cat", "grep", "egrep", "test", "[", "[[", "ls", "stat", "head", "tail", "diff", "wc"];
const NOT_KNOWN: &str = "it is not known what it means for the agent";
/// Bounds of what is looked at and listed.
const MAX_STATEMENTS: usize = 20_000;
const MAX_LISTED: usize = 500;
const MAX_FILES: usize = 100;
const MAX_VARIABLES: usize = 1000;
const MAX_VALUE: usize = 4096;
const MAX_TEXT: usize = 1 << 20;
const MAX_NAMES: usize = 50;
/// Names that are shown: what start scripts use. Any other word might be a part of a secret.
const PROGRAMS: &[&str] = &[
    "adduser",
    "apk",
    "apt",
    "apt-get",
    "awk",
    "aws",
    "az",
    "base64",
    "bash",
    "cat",
    "cd",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "curl",
    "cut",
    "dnf",
    "dos2unix",
    "echo",
    "envsubst",
    "eval",
    "exec",
    "find",
    "gcloud",
    "getent",
    "git",
    "gpg",
    "grep",
    "groupadd",
    "gunzip",
    "helm",
    "htpasswd",
    "install",
    "java",
    "jq",
    "keytool",
    "kinit",
    "kubectl",
    "kvno",
    "ldapsearch",
    "ln",
    "microdnf",
    "mkdir",
    "mktemp",
    "mount",
    "mv",
    "nc",
    "net",
    "npm",
    "nslookup",
    "openssl",
    "perl",
    "ping",
    "pip",
    "pip3",
    "printf",
    "pwsh",
    "python",
    "python3",
    "realm",
    "rm",
    "rpm",
    "rsync",
    "scp",
    "sed",
    "sh",
    "sleep",
    "sort",
    "source",
    "ssh",
    "ssh-keyscan",
    "su",
    "sudo",
    "systemctl",
    "tail",
    "tar",
    "tee",
    "terraform",
    "touch",
    "tr",
    "trap",
    "truncate",
    "unzip",
    "update-ca-certificates",
    "update-ca-trust",
    "useradd",
    "usermod",
    "vault",
    "vim",
    "wget",
    "xargs",
    "yes",
    "yq",
    "yum",
    "yum-utils",
    "zip",
    "zypper",
    "krb5-workstation",
    "krb5-libs",
    "krb5-user",
    "net-tools",
    "bind-utils",
    "ca-certificates",
    "dnsutils",
    "iputils",
    "procps",
    "util-linux",
    "which",
    "less",
    "nano",
    "gcc",
    "pywinrm",
    "ansible",
    "powershell",
    "nodejs",
    "make",
    "telnet",
    "tcpdump",
    "samba",
    "sssd",
    "adcli",
    "realmd",
    "libkrb5-dev",
    "krb5-config",
    "gettext",
    "nmap-ncat",
    "hostname",
    "tzdata",
    "glibc",
    "shadow-utils",
    "python3-pip",
    "update",
    "upgrade",
];
