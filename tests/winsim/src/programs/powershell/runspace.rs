//! Runs parsed scripts: statements, expressions, a handful of cmdlets, and what they leave in `$?` and `$LASTEXITCODE`.
//!
//! It must never act beyond the simulated machine. Called by `program`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::OffsetDateTime;
use time::macros::format_description;

use super::streams::{record_tail, terminating_error};
use super::syntax::{Argument, Element, Expression, Operator, Script, Statement, SyntaxError};
use super::value::{Value, member, shown, text_of};
use crate::programs::{Input, Session, Sink, console};
use crate::soap::escape;

/// Why a script does not go on.
enum Stop {
    Exit(u32),
    Throw { message: String, source: String },
}

/// Where values go that nobody has asked for.
enum Out<'a> {
    Console,
    Collected(&'a mut Vec<Value>),
}

/// What a script finds and leaves behind.
pub(super) struct Runspace {
    pub(super) session: Session,
    variables: BTreeMap<String, Value>,
    /// `$?`.
    succeeded: bool,
    last_exit_code: Option<u32>,
    /// Errors are written as CLIXML.
    pub(super) clixml: bool,
}

impl Runspace {
    pub(super) fn new(session: Session, clixml: bool) -> Self {
        let variables = BTreeMap::from([
            ("args".to_owned(), Value::List(Vec::new())),
            ("psversiontable".to_owned(), Value::VersionTable),
            ("executioncontext".to_owned(), Value::ExecutionContext(session.machine.powershell.language_mode.clone())),
        ]);
        Self { session, variables, succeeded: true, last_exit_code: None, clixml }
    }

    /// `-Command` and `-EncodedCommand`: 1 when the last statement failed.
    pub(super) async fn main(&mut self, text: &str) -> u32 {
        match self.run(text).await {
            Ok(()) => u32::from(!self.succeeded),
            Err(Stop::Exit(code)) => code,
            Err(Stop::Throw { message, source }) => {
                let record = terminating_error(&message, &source);
                self.error(&record).await;
                1
            }
        }
    }

    /// The profile script. What it leaves behind is there for the script; a code when it ended the session.
    pub(super) async fn profile(&mut self) -> Option<u32> {
        let text = self.session.machine.powershell.profile.clone();
        match self.run(&text).await {
            Ok(()) => {}
            Err(Stop::Exit(code)) => return Some(code),
            Err(Stop::Throw { message, source }) => self.error(&terminating_error(&message, &source)).await,
        }
        self.succeeded = true;
        None
    }

    /// A script that a bootstrap reads from standard input: lines of `:` and base64, first the script, then its arguments; `=`
    /// and a mark, and `?` and the names of variables that it shall write, in base64, behind that mark.
    pub(super) async fn bootstrapped(&mut self) -> u32 {
        let input = self.session.read_all().await;
        if !self.session.machine.powershell.language_mode.eq_ignore_ascii_case("FullLanguage") {
            let message =
                "Cannot invoke method. Method invocation is supported only on core types in this language mode.";
            self.error(&terminating_error(message, "[ScriptBlock]::Create")).await;
            return 1;
        }
        let mut values = Vec::new();
        let (mut mark, mut names) = (String::new(), Vec::new());
        for line in String::from_utf8_lossy(&input).lines() {
            let line = line.trim();
            if let Some(given) = line.strip_prefix('=') {
                mark = given.to_owned();
            }
            names.extend(line.strip_prefix('?').map(str::to_owned));
            let Some(encoded) = line.strip_prefix(':') else { continue };
            let Some(value) = BASE64.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
                self.session.print_error("Exception calling \"FromBase64String\" with \"1\" argument(s)\r\n").await;
                return 1;
            };
            values.push(value);
        }
        if values.is_empty() {
            self.session.print_error("You cannot call a method on a null-valued expression.\r\n").await;
            return 1;
        }
        let script = values.remove(0);
        if let Some(canned) = self.session.machine.canned(&script) {
            self.session.print(&canned.stdout).await;
            return canned.exit_code;
        }
        self.variables.insert("args".to_owned(), Value::List(values.into_iter().map(Value::Text).collect()));
        self.variables.insert("progresspreference".to_owned(), Value::Text("SilentlyContinue".to_owned()));
        self.last_exit_code = Some(0);
        // What the bootstrap knows when its `finally` runs: not the number of `exit`.
        let (code, known) = match self.run(&script).await {
            Ok(()) if self.succeeded => (0, true),
            Ok(()) => (self.last_exit_code.filter(|code| *code != 0).unwrap_or(1), true),
            Err(Stop::Exit(code)) => (code, false),
            Err(Stop::Throw { message, source }) => {
                self.error(&format!("{}\r\n", terminating_error(&message, &source).trim_end())).await;
                (1, true)
            }
        };
        if !mark.is_empty() {
            let mut trailer = String::new();
            for (index, name) in names.iter().enumerate() {
                let variable = self.variables.get(&name.to_lowercase()).map(text_of);
                let state = match variable.or_else(|| self.session.environment.get(name).map(str::to_owned)) {
                    Some(value) if value.len() > 65536 => "!".to_owned(),
                    Some(value) => format!("+{}", BASE64.encode(value)),
                    None => "-".to_owned(),
                };
                trailer.push_str(&format!("{mark}{index}{state}\n"));
            }
            let code = if known { code.cast_signed().to_string() } else { String::new() };
            self.session.print(&format!("{trailer}{mark}x{code}\n{mark}.\n")).await;
        }
        code
    }

    async fn run(&mut self, text: &str) -> Result<(), Stop> {
        let script = super::syntax::parse(text)
            .map_err(|SyntaxError(message)| Stop::Throw { message, source: "ParserError".to_owned() })?;
        self.script(&script, &mut Out::Console).await
    }

    async fn script(&mut self, script: &Script, out: &mut Out<'_>) -> Result<(), Stop> {
        for statement in script {
            Box::pin(self.statement(statement, out)).await?;
        }
        Ok(())
    }

    async fn statement(&mut self, statement: &Statement, out: &mut Out<'_>) -> Result<(), Stop> {
        let Some((first, rest)) = statement.pipeline.split_first() else { return Ok(()) };
        match &statement.target {
            None => self.element(first, rest, &statement.source, out).await,
            Some(target) => {
                let mut values = Vec::new();
                self.element(first, rest, &statement.source, &mut Out::Collected(&mut values)).await?;
                let value = if values.len() == 1 { values.remove(0) } else { Value::List(values) };
                match target.to_lowercase().split_once(':') {
                    Some(("env", name)) => self.session.environment.set(name, &text_of(&value)),
                    Some((_, name)) => _ = self.variables.insert(name.to_owned(), value),
                    None => _ = self.variables.insert(target.to_lowercase(), value),
                }
                Ok(())
            }
        }
    }

    /// The first element of a pipeline.
    async fn element(
        &mut self,
        element: &Element,
        rest: &[Element],
        source: &str,
        out: &mut Out<'_>,
    ) -> Result<(), Stop> {
        match element {
            Element::Expression(expression) => {
                let value = self.evaluate(expression, source).await?;
                self.succeeded = true;
                self.emit(value, rest, source, out).await
            }
            Element::Command { name, arguments } => {
                let name = text_of(&self.evaluate(name, source).await?);
                self.command(&name, arguments, rest, source, out).await
            }
        }
    }

    /// Hands a value to the next element, item by item.
    async fn emit(&mut self, value: Value, rest: &[Element], source: &str, out: &mut Out<'_>) -> Result<(), Stop> {
        match value {
            Value::Null => Ok(()),
            Value::List(items) => {
                for item in items {
                    Box::pin(self.emit(item, rest, source, out)).await?;
                }
                Ok(())
            }
            Value::Range(first, last) => {
                let step = if first <= last { 1 } else { -1 };
                let mut number = first;
                loop {
                    Box::pin(self.emit(Value::Number(number), rest, source, out)).await?;
                    if number == last {
                        return Ok(());
                    }
                    number += step;
                }
            }
            value => match rest.split_first() {
                None => {
                    match out {
                        Out::Console => self.session.print(&shown(&value)).await,
                        Out::Collected(values) => values.push(value),
                    }
                    Ok(())
                }
                Some((Element::Command { name: Expression::Literal(name), arguments }, rest)) => {
                    self.stage(name, arguments, value, rest, source, out).await
                }
                Some(_) => Err(stop("Expressions are only allowed as the first element of a pipeline.", source)),
            },
        }
    }

    /// An element that is not the first.
    async fn stage(
        &mut self,
        name: &str,
        arguments: &[Argument],
        value: Value,
        rest: &[Element],
        source: &str,
        out: &mut Out<'_>,
    ) -> Result<(), Stop> {
        match name.to_lowercase().as_str() {
            "foreach-object" | "foreach" | "%" => {
                let block = arguments.iter().find_map(|argument| match argument {
                    Argument::Block(block) => Some(block),
                    _ => None,
                });
                let block = block.ok_or_else(|| stop("ForEach-Object needs a script block", source))?;
                self.variables.insert("_".to_owned(), value);
                if rest.is_empty() {
                    return Box::pin(self.script(block, out)).await;
                }
                let mut values = Vec::new();
                Box::pin(self.script(block, &mut Out::Collected(&mut values))).await?;
                Box::pin(self.emit(Value::List(values), rest, source, out)).await
            }
            "out-null" => Ok(()),
            "out-string" => Box::pin(self.emit(Value::Text(shown(&value)), rest, source, out)).await,
            "out-host" | "out-default" | "write-output" => Box::pin(self.emit(value, rest, source, out)).await,
            "write-host" => {
                self.session.print(&format!("{}\n", text_of(&value))).await;
                Ok(())
            }
            _ => Err(not_recognized(name, source)),
        }
    }

    async fn command(
        &mut self,
        name: &str,
        arguments: &[Argument],
        rest: &[Element],
        source: &str,
        out: &mut Out<'_>,
    ) -> Result<(), Stop> {
        let mut values = Vec::new();
        let mut parameters = BTreeMap::new();
        let mut expecting: Option<String> = None;
        for argument in arguments {
            match argument {
                Argument::Parameter(name) => {
                    if let Some(switch) = expecting.replace(name.to_lowercase()) {
                        parameters.insert(switch, Value::Boolean(true));
                    }
                }
                Argument::Value(expression) => {
                    let value = self.evaluate(expression, source).await?;
                    match expecting.take() {
                        Some(name) if !SWITCHES.contains(&name.as_str()) => _ = parameters.insert(name, value),
                        Some(name) => {
                            parameters.insert(name, Value::Boolean(true));
                            values.push(value);
                        }
                        None => values.push(value),
                    }
                }
                Argument::Block(_) => return Err(stop("A script block is not expected here", source)),
            }
        }
        if let Some(switch) = expecting {
            parameters.insert(switch, Value::Boolean(true));
        }
        let succeeded_before = std::mem::replace(&mut self.succeeded, true);
        let joined = || values.iter().map(text_of).collect::<Vec<_>>().join(" ");
        match name.to_lowercase().as_str() {
            "write-output" | "echo" | "write" => {
                let value = parameters.remove("inputobject").unwrap_or(Value::List(values));
                return self.emit(value, rest, source, out).await;
            }
            "write-host" => {
                let end = if parameters.contains_key("nonewline") { "" } else { "\n" };
                let object = parameters.get("object").map_or_else(joined, text_of);
                self.session.print(&format!("{object}{end}")).await;
            }
            "write-error" => {
                let message = parameters.get("message").map_or_else(joined, text_of);
                let preference =
                    parameters.get("erroraction").or_else(|| self.variables.get("erroractionpreference")).map(text_of);
                match preference.map(|preference| preference.to_lowercase()).as_deref() {
                    Some("stop") => return Err(stop(&message, source)),
                    Some("silentlycontinue" | "ignore") => {}
                    _ => {
                        let kind = "NotSpecified: (:) [Write-Error], WriteErrorException";
                        let id = "Microsoft.PowerShell.Commands.WriteErrorException";
                        self.error(&format!("{source} : {message}\r\n{}", record_tail(kind, id))).await;
                    }
                }
                self.succeeded = false;
            }
            "write-warning" | "write-verbose" | "write-debug" => {
                let (stream, preference) = match name.to_lowercase().as_str() {
                    "write-warning" => ("Warning", None),
                    "write-verbose" => ("Verbose", self.variables.get("verbosepreference")),
                    _ => ("debug", self.variables.get("debugpreference")),
                };
                let wanted = preference.is_some_and(|value| text_of(value).eq_ignore_ascii_case("continue"));
                if stream == "Warning" || wanted || parameters.contains_key(&stream.to_lowercase()) {
                    let message = parameters.get("message").map_or_else(joined, text_of);
                    self.message(stream, &message).await;
                }
            }
            "write-progress" => {
                let silent = |value| text_of(value).eq_ignore_ascii_case("silentlycontinue");
                if self.clixml && !self.variables.get("progresspreference").is_some_and(silent) {
                    let activity = escape(&joined());
                    self.document(&format!(
                        "<Obj S=\"progress\" RefId=\"0\"><TN RefId=\"0\"><T>System.Management.Automation.PSCustomObject</T>\
                         <T>System.Object</T></TN><MS><I64 N=\"SourceId\">1</I64><PR N=\"Record\"><AV>{activity}</AV><AI>0</AI>\
                         <Nil /><PI>-1</PI><PC>-1</PC><T>Processing</T><SR>-1</SR><SD> </SD></PR></MS></Obj>"
                    ))
                    .await;
                }
            }
            "write-information" | "set-executionpolicy" => {}
            "throw" => return Err(stop(&joined(), source)),
            "exit" => {
                let code = values.first().map_or(Some(0), |value| text_of(value).parse::<i64>().ok());
                return Err(Stop::Exit(code.map_or(1, |code| code as u32)));
            }
            "start-sleep" | "sleep" => {
                let milliseconds = parameters.get("milliseconds").or_else(|| parameters.get("m")).map(text_of);
                let seconds = parameters.get("seconds").or_else(|| parameters.get("s")).or(values.first()).map(text_of);
                let time = match (
                    milliseconds.and_then(|text| text.parse().ok()),
                    seconds.and_then(|text| text.parse::<f64>().ok()),
                ) {
                    (Some(milliseconds), _) => Duration::from_millis(milliseconds),
                    (None, Some(seconds)) => Duration::try_from_secs_f64(seconds).unwrap_or_default(),
                    (None, None) => return Err(stop("Cannot bind parameter 'Seconds'", source)),
                };
                self.session.sleep(time).await;
            }
            "get-date" => {
                let format = format_description!(
                    "[weekday], [month repr:long] [day padding:none], [year] [hour repr:12 padding:none]:[minute]:[second] [period]"
                );
                let now = OffsetDateTime::now_utc().format(format).unwrap_or_default();
                let text =
                    if rest.is_empty() && matches!(out, Out::Console) { format!("\r\n{now}\r\n\r\n") } else { now };
                return self.emit(Value::Text(text), rest, source, out).await;
            }
            "get-location" | "pwd" => {
                return self.emit(Value::Text(self.session.directory.clone()), rest, source, out).await;
            }
            "set-location" | "cd" => self.session.directory = self.session.path(&joined()),
            "whoami" => return self.emit(Value::Text(console::account(&self.session)), rest, source, out).await,
            _ => {
                self.succeeded = succeeded_before;
                return self.native(name, arguments, rest, source, out).await;
            }
        }
        Ok(())
    }

    /// A program that is a file of its own.
    async fn native(
        &mut self,
        name: &str,
        arguments: &[Argument],
        rest: &[Element],
        source: &str,
        out: &mut Out<'_>,
    ) -> Result<(), Stop> {
        let mut line = String::new();
        for argument in arguments {
            let words = match argument {
                Argument::Parameter(name) => vec![format!("-{name}")],
                Argument::Value(expression) => match self.evaluate(expression, source).await? {
                    Value::List(items) => items.iter().map(text_of).collect(),
                    value => vec![text_of(&value)],
                },
                Argument::Block(_) => return Err(stop("A script block is not expected here", source)),
            };
            for word in words {
                // As Windows PowerShell: words with blanks get quotes, quotes inside are not escaped.
                let quoted = word.is_empty() || word.contains([' ', '\t']);
                line.push_str(&if quoted { format!(" \"{word}\"") } else { format!(" {word}") });
            }
        }
        let direct = rest.is_empty() && matches!(out, Out::Console);
        let buffer = Arc::new(Mutex::default());
        let mut child = self.session.clone();
        if !direct {
            child.stdout = Sink::Capture(Arc::clone(&buffer));
        }
        if name.eq_ignore_ascii_case("cmd")
            && matches!(child.stdin, Input::Process)
            && !line.contains("/c")
            && !line.contains("/C")
        {
            child.stdin = Input::Bytes(Arc::default());
        }
        let Some(code) = crate::programs::run(&child, name, &line).await else {
            let error = not_recognized(name, source);
            let stops = self
                .variables
                .get("erroractionpreference")
                .is_some_and(|value| text_of(value).eq_ignore_ascii_case("stop"));
            let Stop::Throw { message, .. } = &error else { return Err(error) };
            if stops {
                return Err(error);
            }
            let tail = record_tail(
                &format!("ObjectNotFound: ({name}:String) [], CommandNotFoundException"),
                "CommandNotFoundException",
            );
            self.error(&format!("{name} : {message}\r\n{tail}")).await;
            self.succeeded = false;
            return Ok(());
        };
        self.last_exit_code = Some(code);
        self.succeeded = code == 0;
        let captured = std::mem::take(&mut *buffer.lock().unwrap_or_else(PoisonError::into_inner));
        let lines = self.session.code_page.decode(&captured).lines().map(|line| Value::Text(line.to_owned())).collect();
        self.emit(Value::List(lines), rest, source, out).await
    }

    async fn evaluate(&mut self, expression: &Expression, source: &str) -> Result<Value, Stop> {
        Ok(match expression {
            Expression::Literal(text) => Value::Text(text.clone()),
            Expression::Number(number) => Value::Number(*number),
            Expression::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    text.push_str(&text_of(&Box::pin(self.evaluate(piece, source)).await?));
                }
                Value::Text(text)
            }
            Expression::Variable(name) => self.variable(name),
            Expression::Group(script) => {
                let mut values = Vec::new();
                Box::pin(self.script(script, &mut Out::Collected(&mut values))).await?;
                if values.len() == 1 { values.remove(0) } else { Value::List(values) }
            }
            Expression::List(items) => {
                let mut values = Vec::new();
                for item in items {
                    match Box::pin(self.evaluate(item, source)).await? {
                        Value::List(inner) => values.extend(inner),
                        value => values.push(value),
                    }
                }
                Value::List(values)
            }
            Expression::Index(value, index) => {
                let value = Box::pin(self.evaluate(value, source)).await?;
                let index = number_of(&Box::pin(self.evaluate(index, source)).await?, source)?;
                match value {
                    Value::List(items) => {
                        let index = if index < 0 { index + items.len() as i64 } else { index };
                        usize::try_from(index).ok().and_then(|index| items.get(index).cloned()).unwrap_or(Value::Null)
                    }
                    Value::Range(first, last) if first + index <= last => Value::Number(first + index),
                    value if index == 0 => value,
                    _ => Value::Null,
                }
            }
            Expression::Member(value, name) => member(&Box::pin(self.evaluate(value, source)).await?, name),
            Expression::Range(first, last) => {
                let first = number_of(&Box::pin(self.evaluate(first, source)).await?, source)?;
                let last = number_of(&Box::pin(self.evaluate(last, source)).await?, source)?;
                Value::Range(first, last)
            }
            Expression::Binary(operator, left, right) => {
                let left = Box::pin(self.evaluate(left, source)).await?;
                let right = Box::pin(self.evaluate(right, source)).await?;
                if *operator == Operator::Add && matches!(left, Value::Text(_)) {
                    return Ok(Value::Text(text_of(&left) + &text_of(&right)));
                }
                let (left, right) = (number_of(&left, source)?, number_of(&right, source)?);
                let result = match operator {
                    Operator::Add => left.checked_add(right),
                    Operator::Subtract => left.checked_sub(right),
                    Operator::Multiply => left.checked_mul(right),
                };
                result.map(Value::Number).ok_or_else(|| stop("Value was either too large or too small.", source))?
            }
            Expression::Static(name, arguments) => {
                let mut texts = Vec::new();
                for argument in arguments {
                    texts.push(text_of(&Box::pin(self.evaluate(argument, source)).await?));
                }
                let text = texts.concat();
                match name.trim_start_matches("[system.").trim_start_matches('[') {
                    "console]::error.writeline" => self.session.print_error(&format!("{text}\r\n")).await,
                    "console]::error.write" => self.session.print_error(&text).await,
                    "console]::writeline" | "console]::out.writeline" => {
                        self.session.print(&format!("{text}\r\n")).await
                    }
                    "console]::write" | "console]::out.write" => self.session.print(&text).await,
                    "console]::in.readtoend" => {
                        let input = self.session.read_all().await;
                        return Ok(Value::Text(self.session.code_page.decode(&input)));
                    }
                    "environment]::machinename" => return Ok(Value::Text(self.session.machine.hostname.clone())),
                    _ => return Err(stop(&format!("Unable to find type {name}."), source)),
                }
                Value::Null
            }
        })
    }

    fn variable(&self, name: &str) -> Value {
        match name.to_lowercase().as_str() {
            "?" => Value::Boolean(self.succeeded),
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            "lastexitcode" => {
                self.last_exit_code.map_or(Value::Null, |code| Value::Number(i64::from(code.cast_signed())))
            }
            lower => match lower.split_once(':') {
                Some(("env", name)) => {
                    self.session.environment.get(name).map_or(Value::Null, |value| Value::Text(value.to_owned()))
                }
                Some((_, name)) => self.variables.get(name).cloned().unwrap_or(Value::Null),
                None => self.variables.get(lower).cloned().unwrap_or(Value::Null),
            },
        }
    }
}

/// Parameters without a value.
const SWITCHES: &[&str] = &["nonewline", "force", "passthru"];

fn stop(message: &str, source: &str) -> Stop {
    Stop::Throw { message: message.to_owned(), source: source.to_owned() }
}

fn not_recognized(name: &str, source: &str) -> Stop {
    let message = format!(
        "The term '{name}' is not recognized as the name of a cmdlet, function, script file, or operable program. Check the spelling \
         of the name, or if a path was included, verify that the path is correct and try again."
    );
    stop(&message, source)
}

fn number_of(value: &Value, source: &str) -> Result<i64, Stop> {
    match value {
        Value::Null => Ok(0),
        Value::Number(number) => Ok(*number),
        other => {
            let text = text_of(other);
            text.trim()
                .parse()
                .map_err(|_| stop(&format!("Cannot convert value \"{text}\" to type \"System.Int32\"."), source))
        }
    }
}
