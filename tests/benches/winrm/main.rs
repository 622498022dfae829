//! What `lictor-winrm` costs beside a bare HTTP client, measured on one simulated host: `scripts/bench`, docs/benchmarks.md.
//!
//! Never a test: nothing here fails for being slow. One simulated host and four clients (ours and the bare one, Basic and
//! sealed NTLM) are processes of their own, so that the CPU time of each can be told. The clients are alive all the time
//! and take turns, A/B/A/B, so that whatever else the machine does hits both alike; what is printed are medians of rounds
//! and the ratio of the two clients in each round.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

mod client;
mod figures;
mod ours;
mod raw;
mod volume;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lictor_tests::{Process, binary};
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Target,
    Timeouts, TlsPolicy,
};

use client::{Client, Round};
use figures::{cpu_time, median};

const USER: &str = "CORP\\bench";
const PASSWORD: &str = "correct horse battery";
/// The command whose rate is measured: the least that a host can do.
const COMMAND: &str = "echo ok";

const USAGE: &str = "usage: scripts/bench [--rounds N] [--seconds S] [--mib N] [--only rate|volume]";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["client", kind, auth, port] => client::serve(kind, &target(auth, port.parse()?)?),
        ["stream", auth, port, bytes] => ours::stream(&target(auth, port.parse()?)?, bytes.parse()?),
        others => Plan::of(others)?.run(),
    }
}

/// What was asked for.
struct Plan {
    rounds: usize,
    round: Duration,
    mib: u64,
    rate: bool,
    volume: bool,
}

impl Plan {
    fn of(arguments: &[&str]) -> Result<Self> {
        let mut plan = Self { rounds: 9, round: Duration::from_secs(2), mib: 200, rate: true, volume: true };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            let value = rest.next().context(USAGE)?;
            match (*option, *value) {
                ("--rounds", count) => plan.rounds = count.parse().context(USAGE)?,
                ("--seconds", seconds) => plan.round = Duration::try_from_secs_f64(seconds.parse().context(USAGE)?)?,
                ("--mib", mib) => plan.mib = mib.parse().context(USAGE)?,
                ("--only", "rate") => plan.volume = false,
                ("--only", "volume") => plan.rate = false,
                _ => bail!(USAGE),
            }
        }
        Ok(plan)
    }

    fn run(&self) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let password = directory.path().join("password");
        std::fs::write(&password, PASSWORD)?;
        let cpus = Cpus::available();
        println!("{}", cpus.describe());
        let (host, port) = start_host(directory.path(), &password, &cpus)?;
        if self.rate {
            for (auth, title) in [("basic", "Basic, plain bodies"), ("negotiate", "NTLM inside SPNEGO, sealed bodies")]
            {
                println!(
                    "\n{title}: `{COMMAND}`, one connection, one shell, {} rounds of {:?}",
                    self.rounds, self.round
                );
                self.compare(auth, port, &host, &cpus)?;
            }
        }
        if self.volume {
            println!("\n{} MiB of output, read as it comes", self.mib);
            for auth in ["basic", "negotiate"] {
                volume::library(auth, port, self.mib, &cpus)?;
                volume::program(auth, port, self.mib, &password, &cpus)?;
            }
        }
        Ok(())
    }

    /// The two clients in turns.
    fn compare(&self, auth: &str, port: u16, host: &Process, cpus: &Cpus) -> Result<()> {
        let mut ours = Client::start("ours", auth, port, cpus)?;
        let mut raw = Client::start("raw", auth, port, cpus)?;
        // Both past their first allocations and the host past its own.
        for client in [&mut ours, &mut raw] {
            client.round(self.round.min(Duration::from_millis(500)))?;
        }
        let mut pairs: Vec<(Measured, Measured)> = Vec::new();
        for number in 0..self.rounds {
            // Who goes first changes, since the second of a pair may find a warmer or a busier machine.
            let pair = if number % 2 == 0 {
                let first = self.measure(&mut ours, host)?;
                (first, self.measure(&mut raw, host)?)
            } else {
                let first = self.measure(&mut raw, host)?;
                (self.measure(&mut ours, host)?, first)
            };
            pairs.push(pair);
        }
        report(&pairs);
        Ok(())
    }

    fn measure(&self, client: &mut Client, host: &Process) -> Result<Measured> {
        let before = cpu_time(host.pid())?;
        let round = client.round(self.round)?;
        Ok(Measured { host_cpu: cpu_time(host.pid())?.saturating_sub(before), round })
    }
}

/// One round of one client.
struct Measured {
    round: Round,
    /// CPU time of the host during the round.
    host_cpu: Duration,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.round.commands as f64 / self.round.wall.as_secs_f64()
    }

    fn cpu_per_command(&self) -> f64 {
        self.round.cpu.as_secs_f64() * 1e6 / self.round.commands as f64
    }

    fn host_cpu_per_command(&self) -> f64 {
        self.host_cpu.as_secs_f64() * 1e6 / self.round.commands as f64
    }

    fn exchanges_per_command(&self) -> f64 {
        self.round.exchanges as f64 / self.round.commands as f64
    }
}

fn report(pairs: &[(Measured, Measured)]) {
    let row = |name: &str, value: fn(&Measured) -> f64| {
        let ours = median(pairs.iter().map(|(ours, _)| value(ours)));
        let raw = median(pairs.iter().map(|(_, raw)| value(raw)));
        let ratios: Vec<f64> = pairs.iter().map(|(ours, raw)| value(ours) / value(raw)).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let ratio = median(ratios.iter().copied());
        println!("  {name:<32} {ours:>10.1} {raw:>10.1} {ratio:>8.2}   {least:.2} to {most:.2}");
    };
    println!("  {:<32} {:>10} {:>10} {:>8}   ratios of rounds", "median of rounds", "lictor", "bare", "ratio");
    row("commands per second", Measured::rate);
    row("client CPU per command, us", Measured::cpu_per_command);
    row("commands per second of CPU", |measured| 1e6 / measured.cpu_per_command());
    row("host CPU per command, us", Measured::host_cpu_per_command);
    row("HTTP exchanges per command", Measured::exchanges_per_command);
}

/// Where processes run: the host on one processor, the client on another, so that neither takes time from the other.
struct Cpus {
    pinned: Option<(usize, usize)>,
}

impl Cpus {
    fn available() -> Self {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let works = Command::new("taskset").args(["-c", "0", "true"]).status().is_ok_and(|status| status.success());
        Self { pinned: (works && count > 1).then(|| (0, count - 1)) }
    }

    fn describe(&self) -> String {
        match self.pinned {
            Some((host, client)) => format!("host on processor {host}, clients in turns on processor {client}"),
            None => "processes not pinned: taskset is missing, or there is one processor".to_owned(),
        }
    }

    fn host(&self, program: &Path) -> Command {
        Self::on(self.pinned.map(|(host, _)| host), program)
    }

    fn client(&self, program: &Path) -> Command {
        Self::on(self.pinned.map(|(_, client)| client), program)
    }

    fn on(cpu: Option<usize>, program: &Path) -> Command {
        match cpu {
            Some(cpu) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &cpu.to_string()]).arg(program);
                command
            }
            None => Command::new(program),
        }
    }
}

/// One host for everything. Its quota of operations is out of the way: it would measure how shells are replaced.
fn start_host(directory: &Path, password: &Path, cpus: &Cpus) -> Result<(Process, u16)> {
    let ready = directory.join("ready");
    let mut command = cpus.host(&binary("winsim")?);
    command
        .env("LOG", "error")
        .args(["--auth", "basic,negotiate", "--allow-unencrypted", "--max-operations-per-user", "1000000000"])
        .args(["--user", USER, "--password-file"])
        .arg(password)
        .arg("--ready-file")
        .arg(&ready);
    let mut host = Process::start("winsim", &mut command, &directory.join("winsim.log"))?;
    let ready = host.ready(&ready)?;
    let address = ready["address"].as_str().context("no address")?;
    let port = address.rsplit(':').next().context("no port")?.parse()?;
    Ok((host, port))
}

fn target(auth: &str, port: u16) -> Result<Target> {
    Ok(Target {
        endpoint: Endpoint::new(Scheme::Http, "127.0.0.1", Some(port), None)?,
        auth: match auth {
            "basic" => AuthKind::Basic,
            "negotiate" => AuthKind::Negotiate,
            _ => bail!("unknown authentication {auth}"),
        },
        credential: Credential::password(USER, Secret::new(PASSWORD.to_owned())),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: true,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    })
}
