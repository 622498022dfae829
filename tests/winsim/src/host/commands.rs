//! Command, Send, Receive and Signal: the life of a command.
//!
//! Called by the host with requests whose header is in order. A command counts against its user's operations until its shell is
//! deleted, whatever becomes of it: Windows does not give them back earlier.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::shell::{Command, profile};
use super::{Caller, Host, SHELL, streams};
use crate::envelope::{Request, guid, is_true};
use crate::fault::Fault;
use crate::process::{Pipes, Process, Unavailable};
use crate::programs::{Session, cmd};
use crate::soap::namespace;
use crate::statistics::increment;

/// What cmd.exe takes on its command line, less the `cmd.exe /C ""` around it.
const COMMAND_LINE: usize = 8191 - 13;
/// What an envelope costs around the streams, generously.
const ENVELOPE: usize = 2048;

impl Host {
    pub(super) fn command(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        for option in &request.options {
            match option.name.to_uppercase().as_str() {
                "WINRS_CONSOLEMODE_STDIN" | "WINRS_SKIP_CMD_SHELL" => self.boolean_option(request, &option.value)?,
                _ => self.unknown_option(request, &option.name, option.must_comply)?,
            }
        }
        let mut words = Vec::new();
        for (index, element) in request.body.children.iter().enumerate() {
            // The schema wants the command first and its arguments after it.
            let expected = if index == 0 { "Command" } else { "Arguments" };
            if !element.is(namespace::SHELL, expected) {
                return Err(self.against(request, Fault::schema(), &format!("{} instead of {expected}", element.name)));
            }
            words.push(element.text.as_str());
        }
        let line = words.join(" ");
        if words.first().is_none_or(|command| command.trim().is_empty()) {
            return Err(self.against(request, Fault::invalid_parameter(), "no command"));
        }
        let id = match request.body.attribute("CommandId") {
            Some(id) => self.id(request, id)?,
            None => guid(),
        };
        let shell_id = self.shell_id(request)?;
        self.recorder.command_requested(&shell_id, &id);
        let quotas = self.conditions.quotas();
        let now = self.clock.now();
        let mut state = self.lock();
        let operations: usize =
            state.shells.values().filter(|shell| shell.owner == caller.user).map(|shell| shell.operations).sum();
        let shell = state.shell(&shell_id, caller, now)?;
        if operations >= quotas.max_operations_per_user {
            return Err(Fault::too_many_operations(quotas.max_operations_per_user));
        }
        let running = shell.commands.values().filter(|command| command.process.is_running()).count();
        if running >= quotas.max_processes_per_shell {
            return Err(Fault::too_many_processes());
        }
        if shell.commands.contains_key(&id) {
            drop(state);
            return Err(self.against(request, Fault::already_exists(), "CommandId in use"));
        }
        let (machine, user, environment) =
            (Arc::clone(&self.machine), caller.user.clone(), shell.environment(&self.machine.hostname));
        let directory = shell.directory.clone().unwrap_or_else(|| profile(&caller.user));
        let (code_page, started) = (shell.code_page, line.clone());
        let process = Process::start_on(self.clock.clone(), |pipes| async move {
            let session = Session::new(machine, &user, environment, &directory, code_page, pipes);
            if started.encode_utf16().count() > COMMAND_LINE {
                session.print_error("The command line is too long.\r\n").await;
                return 1;
            }
            cmd::run_line(session, &started).await
        });
        shell.commands.insert(id.clone(), Command { line, process });
        shell.operations += 1;
        drop(state);
        self.recorder.count(|statistics| statistics.commands.started += 1);
        Ok(format!("<rsp:CommandResponse><rsp:CommandId>{id}</rsp:CommandId></rsp:CommandResponse>"))
    }

    pub(super) async fn send(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        self.no_options(request)?;
        let shell_id = self.shell_id(request)?;
        let deadline = self.operation_timeout(request);
        if request.body.children.is_empty() {
            return Err(self.against(request, Fault::schema(), "no Stream"));
        }
        for stream in &request.body.children {
            if !stream.is(namespace::SHELL, "Stream") {
                return Err(self.against(request, Fault::schema(), &stream.name));
            }
            if stream.attribute("Name") != Some("stdin") {
                return Err(self.against(request, Fault::invalid_parameter(), "a stream that is not stdin"));
            }
            let data =
                BASE64.decode(stream.text.trim()).map_err(|_| self.against(request, Fault::schema(), "not base64"))?;
            let end = stream.attribute("End").is_some_and(is_true);
            let pipes = self.pipes(request, &shell_id, stream.attribute("CommandId"), caller)?;
            Process::send(pipes, &data, end, deadline).await.map_err(fault_of)?;
        }
        Ok("<rsp:SendResponse/>".to_owned())
    }

    pub(super) async fn receive(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        for option in &request.options {
            match option.name.to_uppercase().as_str() {
                "WSMAN_CMDSHELL_OPTION_KEEPALIVE" => self.boolean_option(request, &option.value)?,
                _ => self.unknown_option(request, &option.name, option.must_comply)?,
            }
        }
        let shell_id = self.shell_id(request)?;
        let [desired] = request.body.children.as_slice() else {
            return Err(self.against(request, Fault::schema(), "not one DesiredStream"));
        };
        if !desired.is(namespace::SHELL, "DesiredStream") {
            return Err(self.against(request, Fault::schema(), &desired.name));
        }
        let streams = streams(&desired.text)
            .ok_or_else(|| self.against(request, Fault::invalid_parameter(), "unknown streams"))?;
        let id = desired.attribute("CommandId").unwrap_or_default().to_uppercase();
        let pipes = self.pipes(request, &shell_id, desired.attribute("CommandId"), caller)?;
        let limit = request.max_envelope_size.min(self.options.max_envelope_size);
        let budget = limit.saturating_sub(ENVELOPE) / 4 * 3;
        let time = self.operation_timeout(request);
        let output =
            Process::receive(pipes, &streams, budget, time, self.options.done_alone).await.map_err(fault_of)?;
        self.note_activity(&shell_id, &id);

        let capacity = output.pieces.iter().map(|(_, bytes)| bytes.len() / 3 * 4 + 160).sum::<usize>() + 600;
        let mut body = String::with_capacity(capacity);
        body.push_str("<rsp:ReceiveResponse>");
        for (stream, bytes) in &output.pieces {
            body.push_str(&format!("<rsp:Stream Name=\"{}\" CommandId=\"{id}\">", stream.name()));
            BASE64.encode_string(bytes, &mut body);
            body.push_str("</rsp:Stream>");
        }
        match output.exit {
            None => body.push_str(&format!(
                "<rsp:CommandState CommandId=\"{id}\" State=\"{SHELL}/CommandState/Running\"></rsp:CommandState>"
            )),
            Some(code) => {
                for stream in streams {
                    body.push_str(&format!(
                        "<rsp:Stream Name=\"{}\" CommandId=\"{id}\" End=\"true\"></rsp:Stream>",
                        stream.name()
                    ));
                }
                body.push_str(&format!(
                    "<rsp:CommandState CommandId=\"{id}\" State=\"{SHELL}/CommandState/Done\"><rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState>"
                ));
            }
        }
        body.push_str("</rsp:ReceiveResponse>");
        Ok(body)
    }

    pub(super) fn signal(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        self.no_options(request)?;
        let shell_id = self.shell_id(request)?;
        let code = match request.body.children.as_slice() {
            [code] if code.is(namespace::SHELL, "Code") => code.text.trim(),
            _ => return Err(self.against(request, Fault::schema(), "not one Code")),
        };
        let known = code.strip_prefix(SHELL).and_then(|rest| rest.strip_prefix("/signal/"));
        // pypsrp writes Terminate.
        let known = known.map(str::to_ascii_lowercase);
        let signal = known.filter(|name| matches!(name.as_str(), "terminate" | "ctrl_c" | "ctrl_break"));
        let signal = signal
            .ok_or_else(|| self.against(request, Fault::invalid_parameter(), &format!("unknown signal {code}")))?;
        let id = request
            .body
            .attribute("CommandId")
            .ok_or_else(|| self.against(request, Fault::schema(), "no CommandId"))?;
        let id = self.id(request, id)?;
        let now = self.clock.now();
        let mut state = self.lock();
        let shell = state.shell(&shell_id, caller, now)?;
        let command = shell.commands.get(&id).ok_or_else(Fault::command_not_found)?;
        let backlog = command.process.largest_backlog() as u64;
        if signal != "terminate" && command.process.is_running() {
            command.process.interrupt();
        } else {
            // The process ends with the command.
            shell.commands.remove(&id);
        }
        drop(state);
        self.recorder.count(|statistics| {
            increment(&mut statistics.signals, &signal);
            statistics.commands.largest_backlog = statistics.commands.largest_backlog.max(backlog);
        });
        Ok("<rsp:SignalResponse/>".to_owned())
    }

    fn pipes(&self, request: &Request, shell_id: &str, command: Option<&str>, caller: &Caller) -> Result<Pipes, Fault> {
        let id = command.ok_or_else(|| self.against(request, Fault::schema(), "no CommandId"))?;
        let id = self.id(request, id)?;
        let now = self.clock.now();
        let mut state = self.lock();
        let shell = state.shell(shell_id, caller, now)?;
        shell.commands.get(&id).map(|command| command.process.pipes()).ok_or_else(Fault::command_not_found)
    }

    fn note_activity(&self, shell_id: &str, command_id: &str) {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some(shell) = state.shells.get_mut(shell_id) else { return };
        shell.active = now;
        let backlog = shell.commands.get(command_id).map_or(0, |command| command.process.largest_backlog()) as u64;
        drop(state);
        self.recorder.count(|statistics| {
            statistics.commands.largest_backlog = statistics.commands.largest_backlog.max(backlog);
        });
    }
}

fn fault_of(unavailable: Unavailable) -> Fault {
    match unavailable {
        Unavailable::TimedOut => Fault::timed_out(),
        Unavailable::Killed => Fault::aborted(),
        Unavailable::Busy => Fault::busy(),
        Unavailable::Closed => Fault::pipe_closed(),
    }
}
