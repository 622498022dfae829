//! One remote shell: its properties, how it describes itself, and the environment of its processes.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{SHELL, SHELL_CMD};
use crate::process::Process;
use crate::programs::{CodePage, Environment};
use crate::soap::escape;

pub(super) struct Shell {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) owner: String,
    pub(super) client: String,
    pub(super) variables: Vec<(String, String)>,
    pub(super) directory: Option<String>,
    pub(super) idle_timeout: Duration,
    pub(super) input_streams: String,
    pub(super) output_streams: String,
    pub(super) code_page: CodePage,
    pub(super) created: Instant,
    pub(super) active: Instant,
    pub(super) commands: HashMap<String, Command>,
    /// Commands ever started: they count against the user's operations until the shell is deleted.
    pub(super) operations: usize,
}

pub(super) struct Command {
    pub(super) line: String,
    pub(super) process: Process,
}

impl Shell {
    /// The `rsp:Shell` element, in the order of the recordings.
    pub(super) fn element(&self, state: Option<&str>, now: Instant) -> String {
        let name =
            self.name.as_deref().map(|name| format!("<rsp:Name>{}</rsp:Name>", escape(name))).unwrap_or_default();
        let environment = if self.variables.is_empty() {
            String::new()
        } else {
            let variable = |(name, value): &(String, String)| {
                format!("<rsp:Variable Name=\"{}\">{}</rsp:Variable>", escape(name), escape(value))
            };
            format!("<rsp:Environment>{}</rsp:Environment>", self.variables.iter().map(variable).collect::<String>())
        };
        let optional = |name: &str, value: Option<&str>| {
            value.map(|value| format!("<rsp:{name}>{}</rsp:{name}>", escape(value))).unwrap_or_default()
        };
        let clock = |time: Duration| {
            let seconds = time.as_secs();
            format!("P{}DT{}H{}M{}S", seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
        };
        format!(
            "<rsp:Shell xmlns:rsp=\"{SHELL}\"><rsp:ShellId>{}</rsp:ShellId>{name}<rsp:ResourceUri>{SHELL_CMD}</rsp:ResourceUri>\
             <rsp:Owner>{}</rsp:Owner><rsp:ClientIP>{}</rsp:ClientIP>{environment}{}<rsp:IdleTimeOut>PT{:.3}S</rsp:IdleTimeOut>\
             <rsp:InputStreams>{}</rsp:InputStreams><rsp:OutputStreams>{}</rsp:OutputStreams>{}<rsp:ShellRunTime>{}</rsp:ShellRunTime>\
             <rsp:ShellInactivity>{}</rsp:ShellInactivity></rsp:Shell>",
            self.id,
            escape(&self.owner),
            escape(&self.client),
            optional("WorkingDirectory", self.directory.as_deref()),
            self.idle_timeout.as_secs_f64(),
            escape(&self.input_streams),
            escape(&self.output_streams),
            optional("State", state),
            clock(now.saturating_duration_since(self.created)),
            clock(now.saturating_duration_since(self.active)),
        )
    }

    /// What every process of the shell starts with.
    pub(super) fn environment(&self, hostname: &str) -> Environment {
        let (domain, user) = self.owner.split_once('\\').unwrap_or((hostname, &self.owner));
        let profile = profile(&self.owner);
        let mut environment = Environment::default();
        for (name, value) in [
            ("COMPUTERNAME", hostname),
            ("ComSpec", "C:\\Windows\\system32\\cmd.exe"),
            ("NUMBER_OF_PROCESSORS", "2"),
            ("OS", "Windows_NT"),
            ("Path", "C:\\Windows\\system32;C:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\"),
            ("PATHEXT", ".COM;.EXE;.BAT;.CMD"),
            ("PROCESSOR_ARCHITECTURE", "AMD64"),
            ("PROMPT", "$P$G"),
            ("SystemDrive", "C:"),
            ("SystemRoot", "C:\\Windows"),
            ("TEMP", "C:\\Windows\\Temp"),
            ("USERDOMAIN", domain),
            ("USERNAME", user),
            ("USERPROFILE", &profile),
            ("windir", "C:\\Windows"),
        ] {
            environment.set(name, value);
        }
        for (name, value) in &self.variables {
            environment.set(name, value);
        }
        environment
    }
}

/// The home directory of a user.
pub(super) fn profile(user: &str) -> String {
    let user = user.split_once('\\').map_or(user, |(_, user)| user);
    format!("C:\\Users\\{user}")
}
