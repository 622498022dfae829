//! The parts of an installation: control plane, agents, simulated Windows hosts and the users' command line.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Certificates, Disk, Output, Process, Streaming, binary, eventually};

/// The user that every simulated host knows.
pub const USER: &str = r"CORP\alice";

/// That user's password; a word that occurs nowhere else, so that a leak can be found by searching.
pub const PASSWORD: &str = "Pa55-Marker-ümlaut";

/// A control plane with a join token, and a directory that everything writes into.
#[derive(Debug)]
pub struct Stack {
    /// The control plane.
    pub control_plane: ControlPlane,
    /// Certificates for hosts that listen on TLS.
    pub certificates: Certificates,
    directory: TempDir,
}

impl Stack {
    /// Starts a control plane with `environment` on top of what the tests need.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(environment: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("lictor-e2e-").tempdir()?;
        let certificates = Certificates::create(directory.path())?;
        let control_plane = ControlPlane::start(directory.path(), environment)?;
        Ok(Self { control_plane, certificates, directory })
    }

    /// Where everything is written.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves everything where it is, for people to look at, and says where.
    pub fn keep(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }

    /// Makes a join token with `arguments` of `lictor token create`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn join_token(&self, arguments: &[&str]) -> Result<String> {
        let output = self.lictor(&[&["token", "create"], arguments].concat())?;
        if output.code != 0 {
            bail!("token create failed: {}", output.stderr);
        }
        Ok(output.text().trim().to_owned())
    }

    /// Starts an agent and waits until it is connected.
    ///
    /// # Errors
    /// When it does not connect.
    pub fn agent(&self, name: &str, environment: &[(&str, &str)]) -> Result<Agent> {
        let token = self.join_token(&[])?;
        let mut agent = Agent::spawn(self, name, &token, environment)?;
        agent.wait_connected()?;
        Ok(agent)
    }

    /// The same with a configuration file.
    ///
    /// # Errors
    /// When it does not connect.
    pub fn agent_with_config(&self, name: &str, file: &Path) -> Result<Agent> {
        let token = self.join_token(&[])?;
        let mut agent = Agent::spawn(self, name, &token, &[(CONFIG_FILE, file.to_str().context("UTF-8")?)])?;
        agent.wait_connected()?;
        Ok(agent)
    }

    /// Starts a simulated Windows host.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn windows(&self, name: &str, options: &WindowsOptions<'_>) -> Result<Windows> {
        Windows::start(self, name, options)
    }

    /// Stores a credential for [`USER`] with `arguments` of `lictor credential put`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn credential(&self, name: &str, password: &str, arguments: &[&str]) -> Result<()> {
        let file = self.directory().join(format!("password-{name}"));
        std::fs::write(&file, password)?;
        let file = file.to_str().context("the path is UTF-8")?;
        let put = ["credential", "put", name, "--user", USER, "--password-file", file];
        let output = self.lictor(&[&put, arguments].concat())?;
        if output.code != 0 {
            bail!("credential put failed: {}", output.stderr);
        }
        Ok(())
    }

    /// Runs `lictor` to its end as the administrator, within 60 s.
    ///
    /// # Errors
    /// When it takes longer.
    pub fn lictor(&self, arguments: &[&str]) -> Result<Output> {
        Output::of(&mut self.lictor_command(arguments)?, Duration::from_secs(60))
    }

    /// The same with more in its environment.
    ///
    /// # Errors
    /// When it takes longer.
    pub fn lictor_in(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Output> {
        let mut command = self.lictor_command(arguments)?;
        command.envs(environment.iter().copied());
        Output::of(&mut command, Duration::from_secs(60))
    }

    /// Runs `lictor --output json` and parses what it prints.
    ///
    /// # Errors
    /// When it does not print JSON.
    pub fn lictor_json(&self, arguments: &[&str]) -> Result<Value> {
        self.lictor(&[&["--output", "json"], arguments].concat())?.json()
    }

    /// Starts `lictor`, to be read while it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn lictor_streaming(&self, arguments: &[&str]) -> Result<Streaming> {
        Streaming::start(&mut self.lictor_command(arguments)?)
    }

    /// Submits a task and returns its identifier.
    ///
    /// # Errors
    /// When the submission fails.
    pub fn submit(&self, arguments: &[&str]) -> Result<String> {
        let task = self.lictor_json(&[&["task", "submit"], arguments].concat())?;
        task["task_id"].as_str().map(str::to_owned).with_context(|| format!("no task_id in {task}"))
    }

    /// The task as JSON.
    ///
    /// # Errors
    /// When it cannot be shown.
    pub fn task(&self, task_id: &str) -> Result<Value> {
        self.lictor_json(&["task", "show", task_id])
    }

    /// Waits until the task is in one of `states` and returns it.
    ///
    /// # Errors
    /// When it is not within `deadline`; the task is in the error.
    pub fn task_in(&self, task_id: &str, states: &[&str], deadline: Duration) -> Result<Value> {
        eventually(&format!("task {task_id} is {states:?}"), deadline, || {
            let task = self.task(task_id)?;
            if task["state"].as_str().is_some_and(|state| states.contains(&state)) {
                Ok(task)
            } else {
                bail!("{task:#}")
            }
        })
    }

    fn lictor_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("lictor")?);
        command
            .env("LICTOR_SERVER", format!("https://{}", self.control_plane.address))
            .env("LICTOR_TOKEN_FILE", self.control_plane.state.join("admin-token"))
            .env("LICTOR_CA", self.control_plane.state.join("ca.pem"))
            .args(arguments);
        Ok(command)
    }
}

/// A control plane that can be killed and started again on the same address and state.
#[derive(Debug)]
pub struct ControlPlane {
    /// Its process.
    pub process: Process,
    /// Where it listens, `127.0.0.1:port`.
    pub address: String,
    /// Its state directory.
    pub state: PathBuf,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    http_address: String,
}

impl ControlPlane {
    fn start(directory: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        // The address must outlive a restart, so a free port is picked here instead of by the process.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let state = directory.join("control-plane");
        let (process, http_address) = Self::spawn(directory, &address, &state, &environment)?;
        Ok(Self { process, address, state, directory: directory.to_owned(), environment, http_address })
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after [`ControlPlane::kill`].
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart(&mut self) -> Result<()> {
        (self.process, self.http_address) =
            Self::spawn(&self.directory, &self.address, &self.state, &self.environment)?;
        Ok(())
    }

    /// Where its HTTP endpoint listens.
    #[must_use]
    pub fn http_address(&self) -> &str {
        &self.http_address
    }

    /// GET on its HTTP endpoint: status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http("GET", &self.http_address, path)
    }

    fn spawn(
        directory: &Path,
        address: &str,
        state: &Path,
        environment: &[(String, String)],
    ) -> Result<(Process, String)> {
        let ready = directory.join("control-plane.ready");
        let _ = std::fs::remove_file(&ready);
        let mut command = Command::new(binary("lictor-control-plane")?);
        command
            .arg("run")
            .arg("--ready-file")
            .arg(&ready)
            .env("LICTOR_CONTROL_PLANE_LISTEN", address)
            .env("LICTOR_CONTROL_PLANE_HTTP_LISTEN", "127.0.0.1:0")
            .env("LICTOR_CONTROL_PLANE_STATE_DIR", state)
            .env("LICTOR_CONTROL_PLANE_LOG__LEVEL", "debug")
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start("control-plane", &mut command, &directory.join("control-plane.log"))?;
        let http_address = process.ready(&ready)?["http_address"].as_str().context("no http_address")?.to_owned();
        Ok((process, http_address))
    }
}

/// An agent that can be killed and started again on the same state.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub process: Process,
    /// Its state directory.
    pub state: PathBuf,
    ready: PathBuf,
    server: String,
    name: String,
    token_file: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    /// What the program is started by.
    entrance: Vec<String>,
    http_address: String,
}

impl Agent {
    /// Starts an agent without waiting for its connection.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(stack: &Stack, name: &str, token: &str, environment: &[(&str, &str)]) -> Result<Self> {
        Self::spawn_by(stack, name, token, environment, Vec::new())
    }

    /// The same, its state on a disk that is mounted there.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_on(disk: &Disk, stack: &Stack, name: &str, token: &str, environment: &[(&str, &str)]) -> Result<Self> {
        Self::spawn_by(stack, name, token, environment, disk.entrance())
    }

    /// The same, started by the program and arguments of `entrance`, which the agent's own follow and which must become it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_by(
        stack: &Stack,
        name: &str,
        token: &str,
        environment: &[(&str, &str)],
        entrance: Vec<String>,
    ) -> Result<Self> {
        let directory = stack.directory();
        let token_file = directory.join(format!("{name}.token"));
        std::fs::write(&token_file, token)?;
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let state = directory.join(name);
        let ready = directory.join(format!("{name}.ready"));
        let log = directory.join(format!("{name}.log"));
        let server = format!("https://{}", stack.control_plane.address);
        let process = Self::launch(&entrance, name, &server, &token_file, &state, (&ready, &log), &environment)?;
        Ok(Self {
            process,
            state,
            ready,
            server,
            name: name.to_owned(),
            token_file,
            log,
            environment,
            entrance,
            http_address: String::new(),
        })
    }

    /// Waits until it is connected for the first time since its start.
    ///
    /// # Errors
    /// When it does not connect.
    pub fn wait_connected(&mut self) -> Result<()> {
        let ready = self.process.ready(&self.ready)?;
        ready["http_address"].as_str().context("no http_address")?.clone_into(&mut self.http_address);
        Ok(())
    }

    /// Starts it again after its end, without waiting for its connection.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        let _ = std::fs::remove_file(&self.ready);
        self.process = Self::launch(
            &self.entrance,
            &self.name,
            &self.server,
            &self.token_file,
            &self.state,
            (&self.ready, &self.log),
            &self.environment,
        )?;
        Ok(())
    }

    /// Where its HTTP endpoint listens.
    #[must_use]
    pub fn http_address(&self) -> &str {
        &self.http_address
    }

    /// GET on its HTTP endpoint: status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http("GET", &self.http_address, path)
    }

    /// GET from the address that its log names while it is not connected yet.
    ///
    /// # Errors
    /// When it names none, or does not answer.
    pub fn get_early(&self, path: &str) -> Result<(u16, String)> {
        let log = self.process.log();
        let named = log.rsplit("http_address=").next().filter(|rest| rest.len() < log.len());
        let address = named.and_then(|rest| rest.split_whitespace().next()).context("no address in the log yet")?;
        http("GET", address, path)
    }

    fn launch(
        entrance: &[String],
        name: &str,
        server: &str,
        token_file: &Path,
        state: &Path,
        (ready, log): (&Path, &Path),
        environment: &[(String, String)],
    ) -> Result<Process> {
        let program = binary("lictor-agent")?;
        let config = environment.iter().find_map(|(name, value)| (name == CONFIG_FILE).then_some(value.as_str()));
        let mut command = match entrance {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command
            .arg("run")
            .arg("--ready-file")
            .arg(ready)
            .args(config.iter().flat_map(|file| ["--config", file]))
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .env_remove("KRB5_CONFIG")
            .env_remove("KRB5CCNAME")
            .env("LICTOR_AGENT_CONTROL_PLANE", server)
            .env("LICTOR_AGENT_JOIN_TOKEN_FILE", token_file)
            .env("LICTOR_AGENT_NAME", name)
            .env("LICTOR_AGENT_STATE_DIR", state)
            .env("LICTOR_AGENT_HTTP_LISTEN", "127.0.0.1:0")
            .env("LICTOR_AGENT_LOG__LEVEL", "debug")
            // What else runs on the machine of the tests is none of their business.
            .env("LICTOR_AGENT_ADMISSION__MEMORY_PERCENT", "off")
            .envs(environment.iter().map(|(name, value)| (name, value)));
        Process::start(name, &mut command, log)
    }
}

/// How a simulated Windows host is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct WindowsOptions<'a> {
    /// Listen on TLS.
    pub tls: bool,
    /// Take Kerberos tickets for the keys in this keytab, by the schemes `Negotiate` and `Kerberos` unless `arguments` name others. All
    /// hosts are called `localhost`; for a service name of its own, the client must be told the host's name in it.
    pub keytab: Option<&'a Path>,
    /// Whose tickets are taken, and as which user: `alice@REALM=CORP\alice`, `*@REALM=CORP\*`.
    pub principals: &'a [&'a str],
    /// More arguments of `winsim`.
    pub arguments: &'a [&'a str],
}

/// A simulated Windows host.
#[derive(Debug)]
pub struct Windows {
    /// Its process.
    pub process: Process,
    /// Its WinRM port on 127.0.0.1.
    pub port: String,
    admin: String,
}

impl Windows {
    fn start(stack: &Stack, name: &str, options: &WindowsOptions<'_>) -> Result<Self> {
        let directory = stack.directory();
        let password = directory.join("host-password");
        std::fs::write(&password, PASSWORD)?;
        let ready = directory.join(format!("{name}.ready"));
        let mut command = Command::new(binary("winsim")?);
        command
            .args(["--listen", "127.0.0.1:0", "--hostname", name, "--user", USER, "--password-file"])
            .arg(&password)
            .arg("--ready-file")
            .arg(&ready);
        if options.tls {
            command.arg("--tls-cert").arg(&stack.certificates.certificate);
            command.arg("--tls-key").arg(&stack.certificates.key);
        }
        if let Some(keytab) = options.keytab {
            command.arg("--keytab").arg(keytab);
            if !options.arguments.contains(&"--auth") {
                command.args(["--auth", "negotiate,kerberos"]);
            }
        }
        for principal in options.principals {
            command.args(["--principal", principal]);
        }
        command.args(options.arguments);
        let mut process = Process::start(name, &mut command, &directory.join(format!("{name}.log")))?;
        let ready = process.ready(&ready)?;
        let address = ready["address"].as_str().context("no address")?;
        let port = address.rsplit(':').next().context("no port")?.to_owned();
        let admin = ready["admin_address"].as_str().context("no admin_address")?.to_owned();
        Ok(Self { process, port, admin })
    }

    /// Its counters.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn statistics(&self) -> Result<Value> {
        let (status, body) = http("GET", &self.admin, "/statistics")?;
        if status != 200 {
            bail!("statistics answered {status}");
        }
        Ok(serde_json::from_str(&body)?)
    }

    /// The shells that are open on it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn shells(&self) -> Result<Value> {
        let (_, body) = http("GET", &self.admin, "/shells")?;
        Ok(serde_json::from_str(&body)?)
    }

    /// One counter, by JSON pointer.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn count(&self, pointer: &str) -> Result<u64> {
        let statistics = self.statistics()?;
        match statistics.pointer(pointer) {
            Some(value) => value.as_u64().with_context(|| format!("{pointer} is no number in {statistics:#}")),
            // Operations appear with their first request.
            None if pointer.starts_with("/operations/") => Ok(0),
            None => bail!("no {pointer} in {statistics:#}"),
        }
    }

    /// Refused logons of all users.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn failed_logons(&self) -> Result<u64> {
        let statistics = self.statistics()?;
        let users = statistics["authentication"]["failed_logons"].as_object().context("failed_logons")?;
        Ok(users.values().filter_map(Value::as_u64).sum())
    }

    /// Sets every counter to zero.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn reset(&self) -> Result<()> {
        let (status, body) = http("POST", &self.admin, "/reset")?;
        if status >= 300 {
            bail!("reset answered {status}: {body}");
        }
        Ok(())
    }

    /// Makes something happen to it; `winsim --help` lists what there is. It has happened when this returns.
    ///
    /// # Errors
    /// When it does not take the order.
    pub fn order(&self, order: &Value) -> Result<()> {
        let (status, body) = http_with("POST", &self.admin, "/control", &order.to_string())?;
        if status != 200 {
            bail!("{order} answered {status}: {body}");
        }
        Ok(())
    }
}

/// GET on a plain HTTP endpoint: status and body.
///
/// # Errors
/// When it does not answer.
pub fn get(address: &str, path: &str) -> Result<(u16, String)> {
    http("GET", address, path)
}

fn http(method: &str, address: &str, path: &str) -> Result<(u16, String)> {
    http_with(method, address, path, "")
}

fn http_with(method: &str, address: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut socket = TcpStream::connect(address).with_context(|| format!("failed to connect to {address}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP header")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?.parse()?;
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        bail!("{address}{path} answered in chunks, which this harness does not read");
    }
    Ok((status, body.to_owned()))
}

/// Stands for a flag of the agent among its variables; the program itself does not look at it.
const CONFIG_FILE: &str = "LICTOR_TESTS_AGENT_CONFIG";
