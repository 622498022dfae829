//! Exit codes: which exist, what they mean, and how remote exit codes become ours.
//!
//! A code from 120 up is always ours, a code below is always the remote command's. A remote code that does not fit
//! arrives as [`Exit::REMOTE_OTHER`]; the exact one is in the JSON and on standard error.

use lictor_winrm::Stage;

/// An exit code of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    pub(crate) const SUCCESS: Self = Self(0);
    /// The remote exit code is none of 0 to 118.
    pub(crate) const REMOTE_OTHER: Self = Self(119);
    pub(crate) const USAGE: Self = Self(120);
    pub(crate) const RESOLVE: Self = Self(121);
    pub(crate) const CONNECT: Self = Self(122);
    pub(crate) const TLS: Self = Self(123);
    /// The number that timeout(1) uses.
    pub(crate) const TIMED_OUT: Self = Self(124);
    pub(crate) const AUTHENTICATE: Self = Self(125);
    pub(crate) const SHELL: Self = Self(126);
    pub(crate) const RUN: Self = Self(127);
    pub(crate) const UNKNOWN: Self = Self(128);
    pub(crate) const REJECTED: Self = Self(129);
    /// The number that shells use after Ctrl-C.
    pub(crate) const CANCELLED: Self = Self(130);
    pub(crate) const SERVER_UNREACHABLE: Self = Self(131);
    pub(crate) const SERVER_DENIED: Self = Self(132);
    pub(crate) const SERVER_REFUSED: Self = Self(133);
    pub(crate) const AGENT: Self = Self(134);
    pub(crate) const LOCAL: Self = Self(135);
    /// Of the tasks of a batch, not all succeeded.
    pub(crate) const BATCH: Self = Self(136);
    /// A row of a posture check failed.
    pub(crate) const POSTURE: Self = Self(137);

    /// The number.
    pub(crate) fn code(self) -> u8 {
        self.0
    }

    /// The exit code for the exit code of a remote command.
    pub(crate) fn remote(exit_code: i32) -> Self {
        match u8::try_from(exit_code) {
            Ok(code) if code < Self::REMOTE_OTHER.0 => Self(code),
            _ => Self::REMOTE_OTHER,
        }
    }

    /// The exit code for a failure of a stage of `lictor-winrm`.
    pub(crate) fn stage(stage: Stage, may_have_started: bool) -> Self {
        match stage {
            _ if may_have_started => Self::UNKNOWN,
            Stage::Resolve => Self::RESOLVE,
            Stage::Connect => Self::CONNECT,
            Stage::Tls => Self::TLS,
            Stage::Authenticate => Self::AUTHENTICATE,
            Stage::Identify | Stage::OpenShell => Self::SHELL,
            Stage::Run | Stage::Receive | Stage::Close => Self::RUN,
        }
    }

    /// The exit code for a stage that the control plane names.
    pub(crate) fn stage_name(stage: &str, may_have_started: bool) -> Self {
        match stage {
            _ if may_have_started => Self::UNKNOWN,
            // Those that no stage of a task has are steps of a diagnosis.
            "resolve" | "host_name" | "reverse" => Self::RESOLVE,
            "connect" | "kdc_names" | "kdc_udp" | "kdc_tcp" => Self::CONNECT,
            "tls" | "certificate" => Self::TLS,
            "authenticate" | "offered" | "krb5_conf" | "realm" | "clock" | "principal" | "login" | "service" => {
                Self::AUTHENTICATE
            }
            "identify" | "open_shell" | "http" => Self::SHELL,
            "run" | "receive" | "close" | "profile" => Self::RUN,
            _ => Self::AGENT,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Shown under the long help.
pub(crate) const HELP: &str = "\
Exit codes:
    0-118  the exit code of the remote command or script (0 also: done, no rung failed)
      119  the remote exit code is 119, above it or negative; the exact one is on standard error and in the JSON
  From 120 up nothing remote is meant:
      120  usage: a flag, a file or a value that cannot be used
      121  resolve: the host's name has no address
      122  connect: nothing answers at the host's address; keytab: nor at a KDC's
      123  tls: the host's certificate or its TLS is not acceptable
      124  timed out: a deadline passed and the command was stopped
      125  authenticate: the host or a KDC refused the credential, or the way of authenticating (tried once); of a diagnosis
           anything about Kerberos
      126  identify, open_shell: what answers is no WinRM service, or gives us no shell
      127  run, receive: the host did not take the command, or ended it
      128  unknown: the command may have started and how it ended cannot be known; it is never started again by itself
      129  rejected: no agent could take the task, or its policy refused it
      130  cancelled, or interrupted by Ctrl-C
      131  the control plane cannot be reached, or its certificate is not of the given authority
      132  the control plane does not accept the user token
      133  the control plane refused the request: unknown name, wrong value
      134  the task failed for a reason of the agent or the control plane; a side of a secret manager failed its test
      135  something local failed, such as writing the output
      136  a batch has ended, and not all of its tasks succeeded
      137  posture: something on the host is not as it should be

Environment: LICTOR_PASSWORD (password, when there is no --password-file), LICTOR_SECRET (value of a secret, when there is no
--value-file), LICTOR_SERVER (--server), LICTOR_TOKEN (user token, when there is no --token-file), LICTOR_TOKEN_FILE
(--token-file), LICTOR_CA (--ca of the control plane), KRB5_CONFIG, KRB5_KTNAME, KRB5CCNAME (krb5.conf, keytab, credential
cache, where no flag names them). Passwords, tokens and values of secrets are never taken from the command line.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_codes_below_119_pass_and_others_are_marked() {
        for code in 0..=118 {
            assert_eq!(i32::from(Exit::remote(code).code()), code);
        }
        for code in [119, 120, 130, 255, 256, 3010, -1, -1_073_741_819, i32::MIN, i32::MAX] {
            assert_eq!(Exit::remote(code), Exit::REMOTE_OTHER, "{code}");
        }
    }

    #[test]
    fn a_command_that_may_have_started_is_unknown_at_every_stage() {
        for stage in [Stage::Connect, Stage::Run, Stage::Receive, Stage::Close] {
            assert_eq!(Exit::stage(stage, true), Exit::UNKNOWN);
            assert_eq!(Exit::stage_name(stage.as_str(), true), Exit::UNKNOWN);
        }
    }

    #[test]
    fn both_ways_to_name_a_stage_agree() {
        for stage in [
            Stage::Resolve,
            Stage::Connect,
            Stage::Tls,
            Stage::Identify,
            Stage::Authenticate,
            Stage::OpenShell,
            Stage::Run,
            Stage::Receive,
            Stage::Close,
        ] {
            assert_eq!(Exit::stage(stage, false), Exit::stage_name(stage.as_str(), false));
        }
    }

    #[test]
    fn help_lists_every_code() {
        for code in 119..=137 {
            assert!(HELP.contains(&format!("\n      {code}  ")), "{code}");
        }
    }
}
