//! The process between the agent and the bootstrap script: what the script sees as its parent.
//!
//! A script that signals its parent meets this one, which takes no notice; one that kills it outright goes on as the
//! agent's own child. It begins a session of its own, so that no terminal reaches the script, and holds the script and
//! what the script reports, both files in memory, open for bash to find under /proc. It must never be handed a secret
//! in another way. Started by `stage`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// What it is told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Descriptor of the script.
    #[arg(long)]
    script: i32,
    /// Descriptor of the report.
    #[arg(long)]
    report: i32,
    /// The bash to run it with.
    #[arg(long)]
    shell: std::path::PathBuf,
    /// How many files it may have open.
    #[arg(long)]
    open_files: Option<u64>,
}

impl Arguments {
    /// Words for a command line.
    pub(super) fn words(script: i32, report: i32, shell: &Path, open_files: Option<u64>) -> Vec<std::ffi::OsString> {
        let mut words: Vec<std::ffi::OsString> = vec![COMMAND.into()];
        words.extend([format!("--script={script}").into(), format!("--report={report}").into()]);
        words.extend(["--shell".into(), shell.as_os_str().to_owned()]);
        words.extend(open_files.map(|files| format!("--open-files={files}").into()));
        words
    }
}

/// Runs the script, and returns its exit status as a shell would.
///
/// # Errors
/// When there is no bash to run it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    // It fails only for who leads a group already, and then nothing is lost but the session.
    let _led = setsid();
    if let Some(files) = arguments.open_files {
        // As the pod has it: the agent's own bound makes programs that close every possible file very slow.
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).context("failed to bound open files")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        // Taken notice of by nobody, and back to their defaults in the shell.
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::alarm(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let _taken: Vec<_> = kinds.into_iter().map(signal).collect();
        let mut command = Command::new(&arguments.shell);
        command.arg("-c").arg(prelude(arguments)).arg("INIT_SCRIPT").stdin(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("{} cannot be run", arguments.shell.display()))?;
        anyhow::Ok(child.wait().await?)
    })?;
    if let Some(signal) = status.signal() {
        let report = OpenOptions::new().append(true).open(format!("/proc/self/fd/{}", arguments.report));
        // Then the exit status has to say it.
        let _told = report.and_then(|mut report| write!(report, "=signal={signal}\0"));
    }
    Ok(status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}

/// What bash does around the script. The script is sourced, so that it may end as it likes: at its end, by `exit` or by
/// `return`. Everything it gets is opened by name at the moment it is needed, so that no child of the script inherits
/// it; where the system does not let one process look at another's descriptors, they stay open.
fn prelude(arguments: &Arguments) -> String {
    let Arguments { script, report, .. } = arguments;
    format!(
        r#"unset BASH_ENV ENV
__lictor_failed=0
__lictor_files=/proc/$PPID/fd
if [[ -r $__lictor_files/{script} ]]; then exec {script}<&- {report}>&-; else __lictor_files=/proc/self/fd; fi
__lictor_report=$__lictor_files/{report}
__lictor_end() {{
  builtin set +eux
  builtin trap - ERR
  builtin local __lictor_name IFS=$' \t\n'
  [[ ${{__lictor_ended-}} ]] || {{
    __lictor_ended=1
    builtin printf '=failed=%s\0' "$__lictor_failed"
    for __lictor_name in $(builtin compgen -e); do
      [[ $__lictor_name == IFS ]] || builtin printf '%s=%s\0' "$__lictor_name" "${{!__lictor_name-}}"
    done
    builtin printf '=end=\0'
  }} >>"$__lictor_report"
}}
printf '=pid=%s\0' "$$" >>"$__lictor_report"
trap '{{ __lictor_end; }} 2>/dev/null' EXIT
trap '{{ [[ ${{BASH_SOURCE[0]-}} ]] && {{ ((__lictor_failed++)) || builtin printf "=first=%s\0" "$LINENO" >>"$__lictor_report"; }}; }} 2>/dev/null' ERR
. "$__lictor_files/{script}"
{{ __lictor_status=$?; __lictor_end; builtin exit "$__lictor_status"; }} 2>/dev/null
"#
    )
}

/// The command's name, which nobody is meant to type.
pub(crate) const COMMAND: &str = "bootstrap-shim";
