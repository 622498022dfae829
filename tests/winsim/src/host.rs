//! The host behind the protocol: its shells and commands, and what each operation does with them.
//!
//! Called by the HTTP layer with requests whose header is in order and whose user is known. Deals with no bytes of HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::envelope::{self, Operation, Request, duration, guid, is_true};
use crate::fault::Fault;
use crate::options::Options;
use crate::process::{Pipes, Process, Stream, Unavailable};
use crate::programs::{CodePage, Machine, Session, cmd};
use crate::soap::{escape, namespace};
use crate::statistics::{Recorder, Statistics, increment};

mod shell;

use self::shell::{Command, Shell, profile};

const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
const SHELL_CMD: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd";
const CONFIG: &str = "http://schemas.microsoft.com/wbem/wsman/1/config";
/// The IdleTimeOut of a shell that asks for none.
const IDLE_TIMEOUT: Duration = Duration::from_secs(7200);
/// What cmd.exe takes on its command line, less the `cmd.exe /C ""` around it.
const COMMAND_LINE: usize = 8191 - 13;
/// Results of Enumerate that nobody has pulled yet.
const MAX_ENUMERATIONS: usize = 64;
/// What an envelope costs around the streams, generously.
const ENVELOPE: usize = 2048;

/// One simulated host.
pub(crate) struct Host {
    pub(crate) options: Arc<Options>,
    pub(crate) recorder: Recorder,
    machine: Arc<Machine>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shells: HashMap<String, Shell>,
    enumerations: BTreeMap<String, Vec<String>>,
}

/// Who asks, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) client: String,
}

/// One open shell, as the administration listener shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellInfo {
    /// Its ShellId.
    pub id: String,
    /// Who created it.
    pub owner: String,
    /// The address it was created from.
    pub client: String,
    /// Its commands that nobody has signalled yet: CommandId, command line, and whether it still runs.
    pub commands: Vec<CommandInfo>,
}

/// One command of a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandInfo {
    /// Its CommandId.
    pub id: String,
    /// Command and arguments, joined.
    pub line: String,
    /// Whether the process has not ended.
    pub running: bool,
}

impl Host {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        let machine = Arc::new(Machine::new(&options.hostname));
        Self { options, recorder: Recorder::default(), machine, state: Mutex::default() }
    }

    /// Does what a request asks for and returns the envelope of the answer.
    pub(crate) async fn perform(&self, request: &Request, caller: &Caller) -> Result<Vec<u8>, Fault> {
        self.sweep();
        for violation in &request.tolerated {
            self.recorder.violation(format!("{}: {violation}", request.operation.name()));
        }
        if self.options.denied_users.iter().any(|user| user.eq_ignore_ascii_case(&caller.user)) {
            return Err(Fault::access_denied());
        }
        let body = match (request.resource.as_str(), request.operation) {
            (CONFIG, Operation::Get) => self.config(),
            (SHELL, Operation::Enumerate) => self.enumerate(request, caller)?,
            (SHELL, Operation::Pull) => self.pull(request)?,
            (SHELL, Operation::Release) => self.release(request)?,
            (SHELL_CMD, Operation::Create) => self.create(request, caller)?,
            (SHELL_CMD | SHELL, Operation::Get) => self.get(request, caller)?,
            (SHELL_CMD | SHELL, Operation::Delete) => self.delete(request, caller)?,
            (SHELL_CMD | SHELL, Operation::Command) => self.command(request, caller)?,
            (SHELL_CMD | SHELL, Operation::Send) => self.send(request, caller).await?,
            (SHELL_CMD | SHELL, Operation::Receive) => self.receive(request, caller).await?,
            (SHELL_CMD | SHELL, Operation::Signal) => self.signal(request, caller)?,
            (SHELL_CMD | SHELL | CONFIG, _) => {
                return Err(self.against(request, Fault::action_not_supported(), "wrong resource"));
            }
            _ => return Err(Fault::resource_not_found(&request.resource)),
        };
        let action = format!("{}Response", request.action);
        Ok(envelope::response(&action, Some(&request.message_id), &body))
    }

    /// All open shells.
    pub(crate) fn shells(&self) -> Vec<ShellInfo> {
        let state = self.lock();
        let mut shells: Vec<ShellInfo> = state
            .shells
            .values()
            .map(|shell| ShellInfo {
                id: shell.id.clone(),
                owner: shell.owner.clone(),
                client: shell.client.clone(),
                commands: shell
                    .commands
                    .iter()
                    .map(|(id, command)| CommandInfo {
                        id: id.clone(),
                        line: command.line.clone(),
                        running: command.process.is_running(),
                    })
                    .collect(),
            })
            .collect();
        shells.sort_by(|one, other| one.id.cmp(&other.id));
        shells
    }

    /// What was counted, and what runs now.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut statistics = self.recorder.snapshot();
        let state = self.lock();
        let commands = state.shells.values().flat_map(|shell| shell.commands.values());
        statistics.commands.running = commands.filter(|command| command.process.is_running()).count() as u64;
        statistics
    }

    /// Removes shells that nobody has used for their IdleTimeOut.
    pub(crate) fn sweep(&self) {
        let mut state = self.lock();
        let before = state.shells.len();
        state.shells.retain(|_, shell| shell.active.elapsed() < shell.idle_timeout);
        let expired = (before - state.shells.len()) as u64;
        drop(state);
        if expired > 0 {
            self.recorder.count(|statistics| {
                statistics.shells.expired += expired;
                statistics.shells.open = statistics.shells.open.saturating_sub(expired);
            });
        }
    }

    /// Removes everything, as the end of the service does.
    pub(crate) fn clear(&self) {
        let shells = std::mem::take(&mut self.lock().shells);
        self.recorder.count(|statistics| statistics.shells.open = 0);
        drop(shells);
    }

    fn create(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        if !request.selectors.is_empty() {
            return Err(self.against(request, Fault::unexpected_selectors(), "selectors"));
        }
        let code_page = self.create_options(request)?;
        let mut shell = Shell {
            id: guid(),
            name: request.body.attribute("Name").map(str::to_owned),
            owner: caller.user.clone(),
            client: caller.client.clone(),
            variables: Vec::new(),
            directory: None,
            idle_timeout: IDLE_TIMEOUT,
            input_streams: String::new(),
            output_streams: String::new(),
            code_page,
            created: Instant::now(),
            active: Instant::now(),
            commands: HashMap::new(),
            operations: 0,
        };
        if let Some(id) = request.body.attribute("ShellId") {
            shell.id = self.id(request, id)?;
        }
        for element in &request.body.children {
            let text = element.text.trim();
            if element.namespace != namespace::SHELL {
                return Err(self.against(request, Fault::wrong_namespace(), &element.name));
            }
            match element.name.as_str() {
                "Environment" => {
                    for variable in &element.children {
                        let name = variable.attribute("Name").filter(|_| variable.is(namespace::SHELL, "Variable"));
                        let name = name.ok_or_else(|| self.against(request, Fault::schema(), "Environment"))?;
                        shell.variables.push((name.to_owned(), variable.text.clone()));
                    }
                }
                "WorkingDirectory" => shell.directory = Some(text.to_owned()),
                "Lifetime" => {
                    duration(text).ok_or_else(|| self.against(request, Fault::schema(), "Lifetime"))?;
                }
                "IdleTimeOut" => {
                    shell.idle_timeout =
                        duration(text).ok_or_else(|| self.against(request, Fault::schema(), "IdleTimeOut"))?;
                    if shell.idle_timeout < self.options.min_idle_timeout {
                        return Err(self.against(
                            request,
                            Fault::unsupported_timeout(),
                            "IdleTimeOut below the minimum",
                        ));
                    }
                }
                "InputStreams" => shell.input_streams = text.to_owned(),
                "OutputStreams" => shell.output_streams = text.to_owned(),
                other => return Err(self.against(request, Fault::schema(), &format!("unknown element {other}"))),
            }
        }
        if !shell.input_streams.split_whitespace().all(|name| name == "stdin")
            || streams(&shell.output_streams).is_none()
        {
            return Err(self.against(request, Fault::invalid_parameter(), "unknown streams"));
        }
        let mut state = self.lock();
        if state.shells.values().filter(|other| other.owner == caller.user).count() >= self.options.max_shells_per_user
        {
            return Err(Fault::too_many_shells(self.options.max_shells_per_user));
        }
        if state.shells.contains_key(&shell.id) {
            drop(state);
            return Err(self.against(request, Fault::already_exists(), "ShellId in use"));
        }
        let body = format!(
            "<x:ResourceCreated><a:Address>{}</a:Address><a:ReferenceParameters><w:ResourceURI>{SHELL_CMD}</w:ResourceURI>\
             <w:SelectorSet><w:Selector Name=\"ShellId\">{}</w:Selector></w:SelectorSet></a:ReferenceParameters></x:ResourceCreated>{}",
            escape(&request.to),
            shell.id,
            shell.element(None),
        );
        state.shells.insert(shell.id.clone(), shell);
        drop(state);
        self.recorder.count(|statistics| {
            statistics.shells.opened += 1;
            statistics.shells.open += 1;
        });
        Ok(body)
    }

    fn create_options(&self, request: &Request) -> Result<CodePage, Fault> {
        let mut code_page = CodePage::Oem437;
        for option in &request.options {
            match option.name.to_uppercase().as_str() {
                "WINRS_NOPROFILE" => self.boolean_option(request, &option.value)?,
                "WINRS_CODEPAGE" => {
                    code_page = match option.value.parse::<u32>() {
                        Ok(65001) => CodePage::Utf8,
                        Ok(_) => CodePage::Oem437,
                        Err(_) => return Err(self.against(request, Fault::invalid_option(false), "WINRS_CODEPAGE")),
                    }
                }
                _ => self.unknown_option(request, &option.name, option.must_comply)?,
            }
        }
        Ok(code_page)
    }

    fn command(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
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
        let mut state = self.lock();
        let operations: usize =
            state.shells.values().filter(|shell| shell.owner == caller.user).map(|shell| shell.operations).sum();
        let shell = state.shell(&shell_id, caller)?;
        if operations >= self.options.max_operations_per_user {
            return Err(Fault::too_many_operations(self.options.max_operations_per_user));
        }
        if shell.commands.contains_key(&id) {
            drop(state);
            return Err(self.against(request, Fault::already_exists(), "CommandId in use"));
        }
        let (machine, user, environment) =
            (Arc::clone(&self.machine), caller.user.clone(), shell.environment(&self.machine.hostname));
        let directory = shell.directory.clone().unwrap_or_else(|| profile(&caller.user));
        let (code_page, started) = (shell.code_page, line.clone());
        let process = Process::start(|pipes| async move {
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

    async fn send(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
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

    async fn receive(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
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

    fn signal(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
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
        let mut state = self.lock();
        let shell = state.shell(&shell_id, caller)?;
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

    fn delete(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        let shell_id = self.shell_id(request)?;
        let mut state = self.lock();
        state.shell(&shell_id, caller)?;
        let shell = state.shells.remove(&shell_id);
        drop(state);
        // Its processes end here.
        drop(shell);
        self.recorder.count(|statistics| {
            statistics.shells.deleted += 1;
            statistics.shells.open = statistics.shells.open.saturating_sub(1);
        });
        Ok(String::new())
    }

    fn get(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        let shell_id = self.shell_id(request)?;
        Ok(self.lock().shell(&shell_id, caller)?.element(Some("Connected")))
    }

    fn enumerate(&self, request: &Request, caller: &Caller) -> Result<String, Fault> {
        if !request.selectors.is_empty() {
            return Err(self.against(request, Fault::unexpected_selectors(), "selectors"));
        }
        let mut state = self.lock();
        let items: Vec<String> = state
            .shells
            .values()
            .filter(|shell| shell.owner == caller.user)
            .map(|shell| shell.element(Some("Connected")))
            .collect();
        if request.body.child(namespace::MANAGEMENT, "OptimizeEnumeration").is_some() {
            return Ok(format!(
                "<n:EnumerateResponse><n:EnumerationContext></n:EnumerationContext><w:Items>{}</w:Items><w:EndOfSequence/></n:EnumerateResponse>",
                items.concat()
            ));
        }
        if state.enumerations.len() >= MAX_ENUMERATIONS {
            state.enumerations.pop_first();
        }
        let context = format!("uuid:{}", guid());
        state.enumerations.insert(context.clone(), items);
        Ok(format!("<n:EnumerateResponse><n:EnumerationContext>{context}</n:EnumerationContext></n:EnumerateResponse>"))
    }

    fn pull(&self, request: &Request) -> Result<String, Fault> {
        let items = self.take_enumeration(request)?;
        Ok(format!("<n:PullResponse><n:Items>{}</n:Items><n:EndOfSequence/></n:PullResponse>", items.concat()))
    }

    fn release(&self, request: &Request) -> Result<String, Fault> {
        self.take_enumeration(request)?;
        Ok(String::new())
    }

    fn take_enumeration(&self, request: &Request) -> Result<Vec<String>, Fault> {
        let context =
            request.body.child(namespace::ENUMERATION, "EnumerationContext").map(|element| element.text.trim());
        context.and_then(|context| self.lock().enumerations.remove(context)).ok_or_else(Fault::invalid_parameter)
    }

    /// `winrm get winrm/config`, as far as clients look at it.
    fn config(&self) -> String {
        let options = &self.options;
        format!(
            "<cfg:Config xmlns:cfg=\"{CONFIG}\"><cfg:MaxEnvelopeSizekb>{}</cfg:MaxEnvelopeSizekb><cfg:MaxTimeoutms>{}</cfg:MaxTimeoutms>\
             <cfg:MaxBatchItems>32000</cfg:MaxBatchItems><cfg:MaxProviderRequests>4294967295</cfg:MaxProviderRequests>\
             <cfg:Service><cfg:MaxConcurrentOperationsPerUser>{}</cfg:MaxConcurrentOperationsPerUser>\
             <cfg:EnumerationTimeoutms>240000</cfg:EnumerationTimeoutms><cfg:MaxConnections>300</cfg:MaxConnections>\
             <cfg:MaxPacketRetrievalTimeSeconds>120</cfg:MaxPacketRetrievalTimeSeconds>\
             <cfg:AllowUnencrypted>{}</cfg:AllowUnencrypted></cfg:Service>\
             <cfg:Winrs><cfg:AllowRemoteShellAccess>true</cfg:AllowRemoteShellAccess><cfg:IdleTimeout>7200000</cfg:IdleTimeout>\
             <cfg:MaxShellsPerUser>{}</cfg:MaxShellsPerUser></cfg:Winrs></cfg:Config>",
            options.max_envelope_size / 1024,
            options.max_operation_timeout.as_millis(),
            options.max_operations_per_user,
            options.allow_unencrypted,
            options.max_shells_per_user,
        )
    }

    /// The one selector of a request on a shell.
    fn shell_id(&self, request: &Request) -> Result<String, Fault> {
        match request.selectors.as_slice() {
            [(name, id)] if name.eq_ignore_ascii_case("ShellId") => Uuid::try_parse(id)
                .map(|_| id.to_uppercase())
                .map_err(|_| self.against(request, Fault::invalid_shell_id(), "the ShellId is not a GUID")),
            [] => Err(self.against(request, Fault::insufficient_selectors(), "no ShellId")),
            _ => Err(self.against(request, Fault::unexpected_selectors(), "unknown selectors")),
        }
    }

    fn pipes(&self, request: &Request, shell_id: &str, command: Option<&str>, caller: &Caller) -> Result<Pipes, Fault> {
        let id = command.ok_or_else(|| self.against(request, Fault::schema(), "no CommandId"))?;
        let id = self.id(request, id)?;
        let mut state = self.lock();
        let shell = state.shell(shell_id, caller)?;
        shell.commands.get(&id).map(|command| command.process.pipes()).ok_or_else(Fault::command_not_found)
    }

    fn note_activity(&self, shell_id: &str, command_id: &str) {
        let mut state = self.lock();
        let Some(shell) = state.shells.get_mut(shell_id) else { return };
        shell.active = Instant::now();
        let backlog = shell.commands.get(command_id).map_or(0, |command| command.process.largest_backlog()) as u64;
        drop(state);
        self.recorder.count(|statistics| {
            statistics.commands.largest_backlog = statistics.commands.largest_backlog.max(backlog);
        });
    }

    fn operation_timeout(&self, request: &Request) -> Duration {
        request.operation_timeout.min(self.options.max_operation_timeout)
    }

    fn id(&self, request: &Request, id: &str) -> Result<String, Fault> {
        Uuid::try_parse(id)
            .map(|_| id.to_uppercase())
            .map_err(|_| self.against(request, Fault::invalid_parameter(), "an id that is no GUID"))
    }

    fn no_options(&self, request: &Request) -> Result<(), Fault> {
        request.options.iter().try_for_each(|option| self.unknown_option(request, &option.name, option.must_comply))
    }

    fn boolean_option(&self, request: &Request, value: &str) -> Result<(), Fault> {
        if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") || value == "0" || value == "1" {
            Ok(())
        } else {
            Err(self.against(request, Fault::invalid_option(false), "an option that is neither TRUE nor FALSE"))
        }
    }

    /// Windows ignores options it does not know unless it must comply.
    fn unknown_option(&self, request: &Request, name: &str, must_comply: bool) -> Result<(), Fault> {
        let fault = self.against(request, Fault::invalid_option(true), &format!("unknown option {name}"));
        if must_comply { Err(fault) } else { Ok(()) }
    }

    /// Notes a violation and passes its fault on.
    fn against(&self, request: &Request, fault: Fault, what: &str) -> Fault {
        self.recorder.violation(format!("{}: {what}", request.operation.name()));
        fault
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves a shell half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shell(&mut self, id: &str, caller: &Caller) -> Result<&mut Shell, Fault> {
        let shell = self.shells.get_mut(id).ok_or_else(Fault::shell_not_found)?;
        if shell.owner != caller.user {
            return Err(Fault::other_owner());
        }
        shell.active = Instant::now();
        Ok(shell)
    }
}

/// The names of output streams, at least one.
fn streams(names: &str) -> Option<Vec<Stream>> {
    let streams = names
        .split_whitespace()
        .map(|name| match name {
            "stdout" => Some(Stream::Stdout),
            "stderr" => Some(Stream::Stderr),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    (!streams.is_empty()).then_some(streams)
}

fn fault_of(unavailable: Unavailable) -> Fault {
    match unavailable {
        Unavailable::TimedOut => Fault::timed_out(),
        Unavailable::Killed => Fault::aborted(),
        Unavailable::Busy => Fault::busy(),
        Unavailable::Closed => Fault::pipe_closed(),
    }
}

#[cfg(test)]
mod tests;
