//! A tiny host for the tests of pool and probe: HTTP/1.1 with Basic, and a few commands. It reads requests by searching
//! them, because it is no judge of what is sent; that is for the recordings and the simulated Windows host.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what is exempt in tests should be so in the host that they share"
)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::soap::uri;
use crate::target::*;

pub(crate) const PASSWORD: &str = "right";

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) connections: usize,
    /// Requests that were let in, by the last word of their action.
    pub(crate) actions: Vec<String>,
    pub(crate) rejections: usize,
    pub(crate) shells: HashSet<String>,
    commands: HashMap<String, Command>,
    pub(crate) most_shells: usize,
    /// How many requests the password is still right for, when it is changed meanwhile.
    pub(crate) lets_in: Option<usize>,
    pub(crate) open_connections: usize,
    pub(crate) create_takes: Duration,
    /// The command of the connection test does not end.
    pub(crate) names_hang: bool,
    /// Shells, and commands over all shells, that the host gives; its faults when asked for more.
    pub(crate) quota_shells: Option<usize>,
    pub(crate) quota_commands: Option<usize>,
    pub(crate) refusals: usize,
    /// The next so many requests are answered with 503, as HTTP.sys does while the service starts.
    pub(crate) starting: usize,
    /// The next so many requests are throttled.
    pub(crate) throttled: usize,
    /// The next so many Deletes are met by a connection that breaks.
    pub(crate) cut_deletes: usize,
}

#[derive(Debug, Default)]
struct Command {
    shell: String,
    line: String,
    input: Vec<u8>,
    input_ended: bool,
    ended: bool,
    receives: usize,
}

impl State {
    pub(crate) fn count(&self, action: &str) -> usize {
        self.actions.iter().filter(|seen| *seen == action).count()
    }
}

pub(crate) struct Host {
    endpoint: Endpoint,
    state: Arc<Mutex<State>>,
    /// Sent to make every connection close.
    closing: watch::Sender<()>,
    _tasks: tokio_util::task::AbortOnDropHandle<()>,
}

/// Hosts that are reached in memory, by port. Without sockets time can be paused: it then moves only when nothing else does.
static IN_MEMORY: Mutex<BTreeMap<u16, mpsc::UnboundedSender<DuplexStream>>> = Mutex::new(BTreeMap::new());
const IN_MEMORY_NAME: &str = "in-memory.invalid";

/// A connection to a host in memory, when that is what `endpoint` means.
pub(crate) fn connect(endpoint: &Endpoint) -> Option<DuplexStream> {
    let hosts = IN_MEMORY.lock().unwrap();
    let host = hosts.get(&endpoint.port()).filter(|_| endpoint.host() == IN_MEMORY_NAME)?;
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    host.send(theirs).unwrap();
    Some(ours)
}

impl Host {
    /// On loopback.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, accepted) = mpsc::unbounded_channel();
        let accept = async move { while sender.send(listener.accept().await.unwrap().0).is_ok() {} };
        Self::serving("127.0.0.1", port, accepted, accept)
    }

    /// In memory.
    pub(crate) fn in_memory() -> Self {
        let (sender, accepted) = mpsc::unbounded_channel();
        let mut hosts = IN_MEMORY.lock().unwrap();
        let port = hosts.last_key_value().map_or(1, |(port, _)| port + 1);
        hosts.insert(port, sender);
        drop(hosts);
        Self::serving(IN_MEMORY_NAME, port, accepted, std::future::ready(()))
    }

    fn serving<S>(
        name: &str,
        port: u16,
        mut accepted: mpsc::UnboundedReceiver<S>,
        accept: impl Future<Output = ()> + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let (closing, closed) = watch::channel(());
        let tasks = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let serve = async {
                while let Some(stream) = accepted.recv().await {
                    shared.lock().unwrap().connections += 1;
                    let (shared, closed) = (Arc::clone(&shared), closed.clone());
                    connections.spawn(async move {
                        shared.lock().unwrap().open_connections += 1;
                        serve(stream, &shared, closed).await;
                        shared.lock().unwrap().open_connections -= 1;
                    });
                }
            };
            tokio::join!(accept, serve);
        });
        let endpoint = Endpoint::new(Scheme::Http, name, Some(port), None).unwrap();
        Self { endpoint, state, closing, _tasks: tokio_util::task::AbortOnDropHandle::new(tasks) }
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn close_connections(&self) {
        self.closing.send(()).unwrap();
    }

    pub(crate) fn target(&self, password: &str) -> Target {
        let mut target = crate::pool::tests::target("127.0.0.1", "alice", password);
        target.endpoint = self.endpoint.clone();
        target
    }

    /// Waits until `holds`.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        for _ in 0..500 {
            if holds(&self.state()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} did not come true: {:?}", self.state());
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>, mut closed: watch::Receiver<()>) {
    closed.mark_unchanged();
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            tokio::select! {
                read = stream.read_buf(&mut buffer) => if read.unwrap_or(0) == 0 { return },
                _ = closed.changed(), if buffer.is_empty() => return,
            }
        };
        let fields = String::from_utf8(buffer[..head].to_vec()).unwrap().to_lowercase();
        let length: usize = between(&fields, "content-length: ", "\r\n").parse().unwrap();
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let authorization = String::from_utf8(buffer[..head].to_vec()).unwrap();
        let body = String::from_utf8(buffer[head..head + length].to_vec()).unwrap();
        buffer.drain(..head + length);
        let expected = STANDARD.encode(format!("alice:{PASSWORD}"));
        let identify = fields.contains("wsmanidentify: unauthenticated");
        let mut right = authorization.contains(&expected);
        if !identify && let Some(left) = &mut state.lock().unwrap().lets_in {
            right &= *left > 0;
            *left = left.saturating_sub(1);
        }
        if !identify && !right {
            state.lock().unwrap().rejections += 1;
            let answer =
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"WSMAN\"\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            continue;
        }
        let starting = state.lock().unwrap().starting;
        if starting > 0 {
            state.lock().unwrap().starting = starting - 1;
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            continue;
        }
        let Some((status, content)) = answer(&body, state).await else { return };
        let message = between(&body, "<wsa:MessageID>", "</wsa:MessageID>");
        let envelope = format!(
            "<s:Envelope xmlns:s='{}' xmlns:a='{}' xmlns:x='{}' xmlns:w='{}' xmlns:r='{}'><s:Header><a:RelatesTo>{message}</a:RelatesTo>\
             </s:Header><s:Body>{content}</s:Body></s:Envelope>",
            uri::SOAP,
            uri::ADDRESSING,
            uri::TRANSFER,
            uri::WSMAN,
            uri::SHELL
        );
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/soap+xml;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
            envelope.len()
        );
        if stream.write_all(&[head.into_bytes(), envelope.into_bytes()].concat()).await.is_err() {
            return;
        }
    }
}

/// Status and body, or nothing to close the connection.
async fn answer(body: &str, state: &Mutex<State>) -> Option<(u16, String)> {
    if body.contains("wsmid:Identify") {
        return Some((
            200,
            format!(
                "<i:IdentifyResponse xmlns:i='{}'><i:ProductVendor>Test</i:ProductVendor><i:ProductVersion>1</i:ProductVersion></i:IdentifyResponse>",
                uri::IDENTITY
            ),
        ));
    }
    let action = between(body, "<wsa:Action s:mustUnderstand=\"true\">", "</wsa:Action>");
    let action = action.rsplit('/').next().unwrap().to_owned();
    state.lock().unwrap().actions.push(action.clone());
    let shell = between(body, "<wsman:Selector Name=\"ShellId\">", "<").to_owned();
    let id = between(body, "CommandId=\"", "\"").to_owned();
    if action != "Create" && !state.lock().unwrap().shells.contains(&shell) {
        return Some((500, fault(2_150_858_843)));
    }
    {
        let mut state = state.lock().unwrap();
        let count = match action.as_str() {
            _ if state.throttled > 0 => {
                state.throttled -= 1;
                Some((2_150_859_175, true))
            }
            "Create" => state.quota_shells.map(|most| (2_150_859_173, state.shells.len() >= most)),
            "Command" => state.quota_commands.map(|most| (2_150_859_174, state.commands.len() >= most)),
            _ => None,
        };
        if let Some((code, true)) = count {
            state.refusals += 1;
            return Some((500, fault(code)));
        }
    }
    let content = match action.as_str() {
        "Create" => {
            let takes = state.lock().unwrap().create_takes;
            tokio::time::sleep(takes).await;
            let shell = Uuid::new_v4().to_string().to_uppercase();
            let mut state = state.lock().unwrap();
            state.shells.insert(shell.clone());
            state.most_shells = state.most_shells.max(state.shells.len());
            format!(
                "<x:ResourceCreated><a:ReferenceParameters><w:SelectorSet><w:Selector Name='ShellId'>{shell}</w:Selector>\
                 </w:SelectorSet></a:ReferenceParameters></x:ResourceCreated>"
            )
        }
        "Delete" => {
            let mut state = state.lock().unwrap();
            if state.cut_deletes > 0 {
                state.cut_deletes -= 1;
                return None;
            }
            state.shells.remove(&shell);
            // It gives back its share of the quota.
            state.commands.retain(|_, command| command.shell != shell);
            String::new()
        }
        "Command" => {
            let line = between(body, "<rsp:Command>", "<").to_owned();
            if line == "refuse" {
                return Some((500, fault(5)));
            }
            if line == "swallow" {
                return None;
            }
            let broken = line == "vanish";
            state.lock().unwrap().commands.insert(id.clone(), Command { shell, line, ..Command::default() });
            if broken {
                return None;
            }
            format!("<r:CommandResponse><r:CommandId>{id}</r:CommandId></r:CommandResponse>")
        }
        "Send" => {
            let data =
                between(body, if body.contains("End=\"true\"") { "End=\"true\">" } else { "\">" }, "</rsp:Stream>");
            let data = STANDARD.decode(data.rsplit('>').next().unwrap()).unwrap();
            let mut state = state.lock().unwrap();
            let command = state.commands.get_mut(&id).unwrap();
            command.input.extend(data);
            command.input_ended |= body.contains("End=\"true\"");
            "<r:SendResponse/>".to_owned()
        }
        "Signal" => {
            let code = between(body, "signal/", "<").to_owned();
            if let Some(command) = state.lock().unwrap().commands.get_mut(&id)
                && (code == "terminate" || matches!(command.line.as_str(), "polite" | "quiet"))
            {
                command.ended = true;
            }
            "<r:SignalResponse/>".to_owned()
        }
        "Receive" => return receive(&id, state).await,
        other => panic!("{other}"),
    };
    Some((200, content))
}

async fn receive(id: &str, state: &Mutex<State>) -> Option<(u16, String)> {
    let (line, input, receives, ended) = {
        let mut state = state.lock().unwrap();
        let Some(command) = state.commands.get_mut(id) else { return Some((500, fault(2_150_858_843))) };
        command.receives += 1;
        (command.line.clone(), command.input.clone(), command.receives, command.ended)
    };
    if matches!(line.as_str(), "echo" | "quiet") {
        return long_poll(id, state).await;
    }
    let hangs = line != "hostname" || state.lock().unwrap().names_hang;
    let (output, code) = match line.as_str() {
        "cat" => (input, Some(0)),
        "break" if receives == 1 => return None,
        "break" => (b"rest".to_vec(), Some(3)),
        "hang" | "polite" | "hostname" if hangs && !ended => {
            tokio::time::sleep(Duration::from_millis(30)).await;
            return Some((500, fault(2_150_858_793)));
        }
        "hang" | "polite" => (Vec::new(), Some(-1_073_741_510)),
        "slow" if receives < 3 => (format!("{receives}").into_bytes(), None),
        line => (line.as_bytes().to_vec(), Some(0)),
    };
    Some((200, received(id, &output, code)))
}

/// A Receive as hosts do it: it waits for output or the end. `echo` gives its input out, `quiet` does nothing.
async fn long_poll(id: &str, state: &Mutex<State>) -> Option<(u16, String)> {
    for _ in 0..2000 {
        {
            let mut state = state.lock().unwrap();
            let Some(command) = state.commands.get_mut(id) else { return Some((500, fault(995))) };
            let output = if command.line == "echo" { std::mem::take(&mut command.input) } else { Vec::new() };
            let ended = command.ended || command.input_ended && output.is_empty();
            if !output.is_empty() {
                return Some((200, received(id, &output, None)));
            }
            if ended {
                return Some((200, received(id, &[], Some(if command.ended { -1_073_741_510 } else { 0 }))));
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Some((500, fault(2_150_858_793)))
}

fn received(id: &str, output: &[u8], code: Option<i32>) -> String {
    let stream = format!("<r:Stream Name='stdout' CommandId='{id}'>{}</r:Stream>", STANDARD.encode(output));
    let (word, code) = match code {
        Some(code) => ("Done", format!("<r:ExitCode>{code}</r:ExitCode>")),
        None => ("Running", String::new()),
    };
    let command_state =
        format!("<r:CommandState CommandId='{id}' State='{}/CommandState/{word}'>{code}</r:CommandState>", uri::SHELL);
    format!("<r:ReceiveResponse>{stream}{command_state}</r:ReceiveResponse>")
}

fn fault(code: u32) -> String {
    format!(
        "<s:Fault><s:Code><s:Value>s:Sender</s:Value></s:Code><s:Reason><s:Text>no</s:Text></s:Reason><s:Detail>\
         <f:WSManFault xmlns:f='{}' Code='{code}'/></s:Detail></s:Fault>",
        uri::WSMAN_FAULT
    )
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner)
}
