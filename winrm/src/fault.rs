//! WS-Management faults: from codes to what they mean for the operation at hand.
//!
//! Pure tables. The reason text of a fault is localised and is only ever shown, never searched.

use std::fmt;

/// A SOAP fault that a host answered with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// The number, when the fault has one: `WSManFault/@Code`, else `MSFT_WmiError/error_Code`.
    pub code: Option<u32>,
    /// Who is to blame.
    pub role: Role,
    /// Local name of the Subcode, such as `TimedOut`.
    pub subcode: Option<String>,
    /// The text of the host, in its own language.
    pub reason: String,
    /// The `FaultDetail` URI.
    pub detail_uri: Option<String>,
    /// The host, as it calls itself.
    pub machine: Option<String>,
}

/// Who is to blame for a fault (SOAP 1.2, 5.4.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// `s:Sender`: the message as it was cannot be processed.
    Sender,
    /// `s:Receiver`, or one that we do not know.
    #[default]
    Receiver,
    /// `s:MustUnderstand` or `s:VersionMismatch`.
    NotUnderstood,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// OperationTimeout passed.
    TimedOut,
    /// The shell or the command is not known to the host.
    NotThere,
    /// The command was terminated.
    CommandTerminated,
    /// The stream of a disconnected session.
    Disconnected,
    /// Too many shells of this user.
    QuotaShells,
    /// Too many operations of this user; each shell keeps a share until it is deleted.
    QuotaOperations,
    /// Too many requests per time.
    QuotaThrottled,
    /// Too many users, or another quota.
    QuotaOther,
    /// Remote shells are switched off.
    ShellsNotAllowed,
    /// The message is larger than the host takes.
    EnvelopeTooLarge,
    /// MaxEnvelopeSize of the request is too small.
    EncodingLimit,
    /// The host did not accept the authentication.
    FailedAuthentication,
    /// The host could not unseal the message.
    CannotDecrypt,
    /// The host does not know the action.
    NotSupported,
    /// The host does not know the resource.
    ResourceNotFound,
    /// The shell belongs to another logon.
    OtherToken,
    /// The host wants the request elsewhere.
    Redirect,
    /// The service is not ready.
    Unavailable,
    /// The user may not do this.
    AccessDenied,
    /// The command has not read its input yet.
    Busy,
    /// The operation was aborted: shell or command are being torn down.
    Aborted,
    /// The user's profile was unloaded under the shell.
    ProfileUnloaded,
    /// The account or password was rejected.
    LogonRejected,
    /// A provider took too long.
    ProviderTimeout,
    /// Everything else.
    Other,
}

/// Operations on shells, for [`Fault::meaning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// wst:Create.
    Create,
    /// rsp:Command.
    Command,
    /// rsp:Send.
    Send,
    /// rsp:Receive.
    Receive,
    /// rsp:Signal.
    Signal,
    /// wst:Delete.
    Delete,
}

/// What a fault means for the operation that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// Nothing happened yet: ask again at once.
    PollAgain,
    /// It was taken all the same: do not repeat it.
    Accepted,
    /// It surely did not happen, and the shell is of no more use: take a new one.
    NeedsNewShell,
    /// It surely did not happen; it may later.
    BackOff,
    /// It did not happen because the input is not consumed yet: wait and repeat.
    InputBusy,
    /// It did not happen because the message was too large: send smaller pieces.
    SplitSmaller,
    /// What was to be ended is gone already.
    AlreadyGone,
    /// It surely did not happen and will not.
    Refused,
    /// It may or may not have happened.
    Ambiguous,
}

impl Fault {
    /// Its kind: by code, else by Subcode.
    #[must_use]
    pub fn class(&self) -> Class {
        if let Some(row) = self.row() {
            return row.class;
        }
        if self.code.is_some() {
            return Class::Other;
        }
        match self.subcode.as_deref() {
            Some("TimedOut") => Class::TimedOut,
            Some("InvalidSelectors") => Class::NotThere,
            Some("AccessDenied") => Class::AccessDenied,
            Some("EncodingLimit") => Class::EncodingLimit,
            Some("QuotaLimit") => Class::QuotaOther,
            Some("ActionNotSupported") => Class::NotSupported,
            Some("DestinationUnreachable" | "EndpointUnavailable") => Class::Unavailable,
            _ => Class::Other,
        }
    }

    /// Stable code of errors made from it: `fault.<number>` for the numbers of the table, else `fault.other`, or
    /// `fault.timed_out` and kin for faults that have only a Subcode.
    #[must_use]
    pub fn stable_code(&self) -> &'static str {
        match (self.row(), self.class()) {
            (Some(row), _) => row.stable,
            (None, Class::TimedOut) => "fault.timed_out",
            (None, Class::NotThere) => "fault.invalid_selectors",
            (None, Class::AccessDenied) => "fault.access_denied",
            (None, Class::EncodingLimit) => "fault.encoding_limit",
            (None, Class::QuotaOther) => "fault.quota_limit",
            (None, Class::NotSupported) => "fault.action_not_supported",
            (None, Class::Unavailable) => "fault.unavailable",
            _ => "fault.other",
        }
    }

    /// The name that Windows headers give the code.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.row().map(|row| row.name)
    }

    /// What it means for `operation`.
    #[must_use]
    pub fn meaning(&self, operation: Operation) -> Meaning {
        use Operation::{Command, Create, Delete, Receive, Send, Signal};
        match (self.class(), operation) {
            (Class::TimedOut, Receive) => Meaning::PollAgain,
            // The data will be processed once the command reads; a repetition would double it.
            (Class::TimedOut, Send) => Meaning::Accepted,
            (Class::TimedOut, _) => Meaning::Ambiguous,

            (Class::NotThere | Class::Aborted | Class::CommandTerminated, Signal | Delete) => Meaning::AlreadyGone,
            (Class::NotThere | Class::OtherToken | Class::ProfileUnloaded | Class::QuotaOperations, Command) => {
                Meaning::NeedsNewShell
            }
            // Deleting a shell needs its owner: that of another token is for that one to delete.
            (Class::OtherToken, _) => Meaning::Refused,
            // After Command was accepted a lost shell says nothing about how the command ended.
            (Class::NotThere | Class::Aborted | Class::ProfileUnloaded | Class::CommandTerminated, Send | Receive) => {
                Meaning::Ambiguous
            }
            (Class::Aborted | Class::ProviderTimeout | Class::CannotDecrypt, _) => Meaning::Ambiguous,
            // They tell of something that was under way.
            (Class::CommandTerminated | Class::Disconnected, _) => Meaning::Ambiguous,

            (
                Class::QuotaShells
                | Class::QuotaOperations
                | Class::QuotaThrottled
                | Class::QuotaOther
                | Class::Unavailable,
                _,
            ) => Meaning::BackOff,
            (Class::Busy, Send) => Meaning::InputBusy,
            (Class::Busy, _) => Meaning::BackOff,
            (Class::EnvelopeTooLarge, Send) => Meaning::SplitSmaller,
            (Class::Other, Create | Command | Send) if self.role == Role::Receiver => Meaning::Ambiguous,
            _ => Meaning::Refused,
        }
    }

    fn row(&self) -> Option<&'static Row> {
        let code = self.code?;
        ROWS.iter().find(|row| row.code == code)
    }
}

/// A fault of each kind: every number of the table, each Subcode that means something by itself, and one that means nothing here.
pub(crate) fn catalogue() -> Vec<Fault> {
    let numbers = ROWS.iter().map(|row| Fault { code: Some(row.code), ..Fault::default() });
    let subcodes = SUBCODES.iter().map(|subcode| Fault { subcode: Some((*subcode).to_owned()), ..Fault::default() });
    numbers.chain(subcodes).chain([Fault { code: Some(0x8007_0057), ..Fault::default() }]).collect()
}

/// The Subcodes that [`Fault::class`] knows, one of each class.
const SUBCODES: &[&str] = &[
    "TimedOut",
    "InvalidSelectors",
    "AccessDenied",
    "EncodingLimit",
    "QuotaLimit",
    "ActionNotSupported",
    "EndpointUnavailable",
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.name(), self.subcode.as_deref()) {
            (Some(code), Some(name), _) => write!(f, "fault {code} ({name})")?,
            (Some(code), None, _) => write!(f, "fault {code}")?,
            (None, _, Some(subcode)) => write!(f, "fault {subcode}")?,
            (None, _, None) => f.write_str("a fault")?,
        }
        let reason = self.reason.trim();
        if !reason.is_empty() {
            write!(f, ": {}", reason.trim_end_matches('.'))?;
        }
        Ok(())
    }
}

/// Reads a fault code: unsigned or negative decimals.
#[must_use]
pub fn parse_code(text: &str) -> Option<u32> {
    let text = text.trim();
    text.parse::<u32>().ok().or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))
}

/// One row of the table.
struct Row {
    code: u32,
    name: &'static str,
    class: Class,
    stable: &'static str,
}

macro_rules! rows {
    ($($code:literal $name:literal $class:ident;)*) => {
        &[$(Row { code: $code, name: $name, class: Class::$class, stable: concat!("fault.", $code) }),*]
    };
}

/// Names as in winerror.h and wsmerror.h.
const ROWS: &[Row] = rows! {
    5 "ERROR_ACCESS_DENIED" AccessDenied;
    170 "ERROR_BUSY" Busy;
    995 "ERROR_OPERATION_ABORTED" Aborted;
    1018 "ERROR_KEY_DELETED" ProfileUnloaded;
    1326 "ERROR_LOGON_FAILURE" LogonRejected;
    1331 "ERROR_ACCOUNT_DISABLED" LogonRejected;
    1460 "ERROR_TIMEOUT" ProviderTimeout;
    1907 "ERROR_PASSWORD_MUST_CHANGE" LogonRejected;
    1909 "ERROR_ACCOUNT_LOCKED_OUT" LogonRejected;
    2147943418 "HRESULT_FROM_WIN32(ERROR_KEY_DELETED)" ProfileUnloaded;
    2150858752 "ERROR_WSMAN_RESOURCE_NOT_FOUND" ResourceNotFound;
    2150858771 "ERROR_WSMAN_ACTION_NOT_SUPPORTED" NotSupported;
    2150858772 "ERROR_WSMAN_ENDPOINT_UNAVAILABLE" Unavailable;
    2150858790 "ERROR_WSMAN_ENVELOPE_TOO_LARGE" EnvelopeTooLarge;
    2150858793 "ERROR_WSMAN_OPERATION_TIMEDOUT" TimedOut;
    2150858805 "ERROR_WSMAN_ENCODING_LIMIT" EncodingLimit;
    2150858806 "ERROR_WSMAN_FAILED_AUTHENTICATION" FailedAuthentication;
    2150858813 "ERROR_WSMAN_INVALID_SELECTORS" NotThere;
    2150858815 "ERROR_WSMAN_QUOTA_LIMIT" QuotaOther;
    2150858823 "ERROR_WSMAN_MAX_ENVELOPE_SIZE" EnvelopeTooLarge;
    2150858824 "ERROR_WSMAN_MAX_ENVELOPE_SIZE_EXCEEDED" EnvelopeTooLarge;
    2150858843 "ERROR_WSMAN_UNEXPECTED_SELECTORS" NotThere;
    2150859001 "ERROR_WSMAN_CANNOT_DECRYPT" CannotDecrypt;
    2150859027 "ERROR_WSMAN_HTTP_NOT_FOUND_STATUS" Unavailable;
    2150859082 "ERROR_WSMAN_SHELL_ALREADY_CLOSED" NotThere;
    2150859087 "ERROR_WSMAN_COMMAND_ALREADY_CLOSED" NotThere;
    2150859161 "ERROR_WSMAN_REDIRECT_REQUESTED" Redirect;
    2150859173 "ERROR_WSMAN_QUOTA_MAX_SHELLS" QuotaShells;
    2150859174 "ERROR_WSMAN_QUOTA_MAX_OPERATIONS" QuotaOperations;
    2150859175 "ERROR_WSMAN_QUOTA_USER" QuotaThrottled;
    2150859176 "ERROR_WSMAN_QUOTA_SYSTEM" QuotaThrottled;
    2150859177 "ERROR_WSMAN_DIFFERENT_AUTHZ_TOKEN" OtherToken;
    2150859179 "ERROR_WSMAN_QUOTA_MAX_SHELLUSERS" QuotaOther;
    2150859180 "ERROR_WSMAN_REMOTESHELLS_NOT_ALLOWED" ShellsNotAllowed;
    2150859212 "ERROR_WSMAN_COMMAND_TERMINATED" CommandTerminated;
    2150859230 "ERROR_WSMAN_SERVICE_STREAM_DISCONNECTED" Disconnected;
    2150859236 "ERROR_WSMAN_QUOTA_MAX_SHELLS_PPQ" QuotaShells;
    2150859237 "ERROR_WSMAN_QUOTA_MAX_USERS_PPQ" QuotaOther;
    2150859238 "ERROR_WSMAN_QUOTA_MAX_PLUGINSHELLS_PPQ" QuotaShells;
    2150859239 "ERROR_WSMAN_QUOTA_MAX_PLUGINOPERATIONS_PPQ" QuotaOperations;
    2150859240 "ERROR_WSMAN_QUOTA_MAX_OPERATIONS_USER_PPQ" QuotaOperations;
    2150859241 "ERROR_WSMAN_QUOTA_MAX_COMMANDS_PER_SHELL_PPQ" QuotaOperations;
    2150859242 "ERROR_WSMAN_QUOTA_MIN_REQUIREMENT_NOT_AVAILABLE_PPQ" QuotaOther;
};

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: u32) -> Fault {
        Fault { code: Some(code), ..Fault::default() }
    }

    #[test]
    fn codes_are_read_signed_and_unsigned() {
        assert_eq!(parse_code("2150858793"), Some(0x8033_8029));
        assert_eq!(parse_code(" -2144108503 "), Some(0x8033_8029));
        assert_eq!(parse_code("5"), Some(5));
        assert_eq!(parse_code("4294967296"), None);
        assert_eq!(parse_code("0x80338029"), None);
    }

    #[test]
    fn the_same_code_means_something_else_at_each_operation() {
        let timed_out = fault(2_150_858_793);
        assert_eq!(timed_out.meaning(Operation::Receive), Meaning::PollAgain);
        assert_eq!(timed_out.meaning(Operation::Send), Meaning::Accepted);
        assert_eq!(timed_out.meaning(Operation::Command), Meaning::Ambiguous);
        let gone = fault(2_150_858_843);
        assert_eq!(gone.meaning(Operation::Command), Meaning::NeedsNewShell);
        assert_eq!(gone.meaning(Operation::Receive), Meaning::Ambiguous);
        assert_eq!(gone.meaning(Operation::Delete), Meaning::AlreadyGone);
        assert_eq!(fault(2_150_859_087).meaning(Operation::Signal), Meaning::AlreadyGone);
        assert_eq!(fault(995).meaning(Operation::Delete), Meaning::AlreadyGone);
        assert_eq!(fault(170).meaning(Operation::Send), Meaning::InputBusy);
        assert_eq!(fault(2_150_859_174).meaning(Operation::Command), Meaning::NeedsNewShell);
        assert_eq!(fault(2_150_859_173).meaning(Operation::Create), Meaning::BackOff);
        assert_eq!(fault(5).meaning(Operation::Create), Meaning::Refused);
        assert_eq!(fault(2_150_859_212).meaning(Operation::Command), Meaning::Ambiguous);
        assert_eq!(fault(2_150_859_230).meaning(Operation::Command), Meaning::Ambiguous);
    }

    #[test]
    fn unknown_codes_are_ambiguous_unless_the_sender_is_to_blame() {
        let unknown = fault(123_456);
        assert_eq!(unknown.meaning(Operation::Command), Meaning::Ambiguous);
        let refused = Fault { role: Role::Sender, ..unknown };
        assert_eq!(refused.meaning(Operation::Command), Meaning::Refused);
    }

    #[test]
    fn faults_without_a_number_classify_by_subcode() {
        let fault = Fault { subcode: Some("TimedOut".into()), ..Fault::default() };
        assert_eq!(fault.class(), Class::TimedOut);
        assert_eq!(fault.stable_code(), "fault.timed_out");
    }

    #[test]
    fn every_row_is_reachable_and_rows_are_sorted() {
        assert!(ROWS.is_sorted_by(|a, b| a.code < b.code));
        for row in ROWS {
            assert_eq!(fault(row.code).stable_code(), format!("fault.{}", row.code));
        }
    }
}
