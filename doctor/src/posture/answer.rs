//! What the script says, from its JSON to values.
//!
//! It comes from a host that may be anything: bounded in size, lists and texts. Every item stands for itself; what is
//! missing or of another form than the script writes is not told, with the reason, and never assumed.

use serde_json::Value;

/// What was told, or why it was not.
pub type Told<T> = Result<T, String>;

/// The answer of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The firewall, as it is in effect.
    pub firewall: Told<Firewall>,
    /// Whether script blocks are logged; nothing when no policy says so or otherwise.
    pub script_block_logging: Told<Option<bool>>,
    /// The log `Security`.
    pub security_log: Told<Log>,
    /// The log `Microsoft-Windows-WinRM/Operational`.
    pub winrm_log: Told<Log>,
    /// The log `Microsoft-Windows-PowerShell/Operational`.
    pub powershell_log: Told<Log>,
    /// Session configurations of PowerShell remoting.
    pub session_configurations: Told<Vec<SessionConfiguration>>,
}

/// Windows Firewall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Its profiles.
    pub profiles: Vec<Profile>,
    /// Enabled rules that let others in to the port of WinRM.
    pub rules: Vec<Rule>,
}

/// A profile of the firewall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Domain, Private or Public.
    pub name: String,
    /// Whether it filters at all.
    pub enabled: Option<bool>,
    /// What happens to what no rule allows: `Block`, `Allow` or `NotConfigured`.
    pub inbound: String,
}

/// A rule of the firewall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its name for people.
    pub name: String,
    /// The profiles that it belongs to.
    pub profile: String,
    /// From where; empty when that is not told.
    pub remote: Vec<String>,
}

/// An event log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Whether anything is written.
    pub enabled: Option<bool>,
    /// How large it may become.
    pub bytes: Option<u64>,
}

/// A session configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionConfiguration {
    /// Its name.
    pub name: String,
    /// Whether it can be used.
    pub enabled: Option<bool>,
    /// Who may use it; empty when that is not told.
    pub sddl: String,
}

/// Bytes of output that are read.
pub const MAX_OUTPUT: usize = 1024 * 1024;
/// Items of one list. The script cuts its own at 200.
const MAX_ITEMS: usize = 500;
/// Rules at which the script stops: there may be more.
pub const MOST_RULES: usize = 200;
/// Characters of a text for people.
const MAX_TEXT: usize = 300;
/// Characters of a security descriptor.
const MAX_SDDL: usize = 64 * 1024;

/// Reads the script's standard output.
///
/// # Errors
/// Why there is no answer in it.
pub fn parse(output: &[u8]) -> Told<Answer> {
    if output.len() > MAX_OUTPUT {
        return Err(format!("the script wrote more than {MAX_OUTPUT} bytes"));
    }
    let text = String::from_utf8_lossy(output);
    // Somebody's profile may have written lines of its own.
    let line = text.lines().map(str::trim).rfind(|line| line.starts_with('{') && line.contains("\"lictor_posture\""));
    let line = line.ok_or("the script wrote no answer")?;
    let answer: Value =
        serde_json::from_str(line).map_err(|error| format!("the script's answer is no JSON: {error}"))?;
    if answer.get("lictor_posture").and_then(Value::as_u64) != Some(1) {
        return Err("the script's answer is of another version".to_owned());
    }
    let item = |name: &str| item(&answer, name);
    Ok(Answer {
        firewall: item("firewall").and_then(firewall),
        script_block_logging: item("script_block_logging").and_then(|value| match value.get("enabled") {
            Some(Value::Null) => Ok(None),
            Some(enabled) => truth(enabled).map(Some).ok_or_else(malformed),
            None => Err(malformed()),
        }),
        security_log: item("log:Security").and_then(log),
        winrm_log: item("log:Microsoft-Windows-WinRM/Operational").and_then(log),
        powershell_log: item("log:Microsoft-Windows-PowerShell/Operational").and_then(log),
        session_configurations: item("session_configurations").and_then(session_configurations),
    })
}

/// The value of an item, or why it has none.
fn item<'a>(answer: &'a Value, name: &str) -> Told<&'a Value> {
    let item = answer.get("items").and_then(|items| items.get(name)).ok_or("the script did not read it")?;
    if let Some(value) = item.get("value").filter(|value| value.is_object()) {
        return Ok(value);
    }
    let error = text(item.get("error"), MAX_TEXT);
    let what = match item.get("reason").and_then(Value::as_str) {
        Some("denied") => "the user may not read it",
        Some("missing") => "the host does not have it",
        _ => "it could not be read",
    };
    Err(if error.is_empty() { what.to_owned() } else { format!("{what}: {error}") })
}

fn malformed() -> String {
    "the script's answer has another form than it should".to_owned()
}

fn firewall(value: &Value) -> Told<Firewall> {
    let profiles = list(value.get("profiles")).ok_or_else(malformed)?.into_iter().map(|profile| Profile {
        name: text(profile.get("name"), MAX_TEXT),
        enabled: profile.get("enabled").and_then(truth),
        inbound: text(profile.get("inbound"), MAX_TEXT),
    });
    let rules = list(value.get("rules")).ok_or_else(malformed)?.into_iter().map(|rule| Rule {
        name: text(rule.get("name"), MAX_TEXT),
        profile: text(rule.get("profile"), MAX_TEXT),
        remote: list(rule.get("remote"))
            .unwrap_or_default()
            .into_iter()
            .map(|address| text(Some(address), MAX_TEXT))
            .collect(),
    });
    Ok(Firewall { profiles: profiles.collect(), rules: rules.collect() })
}

fn log(value: &Value) -> Told<Log> {
    let bytes = value.get("bytes").and_then(|bytes| bytes.as_u64().or_else(|| bytes.as_str()?.trim().parse().ok()));
    Ok(Log { enabled: value.get("enabled").and_then(truth), bytes })
}

fn session_configurations(value: &Value) -> Told<Vec<SessionConfiguration>> {
    let configurations = list(value.get("configurations")).ok_or_else(malformed)?;
    let read = |configuration: &Value| SessionConfiguration {
        name: text(configuration.get("name"), MAX_TEXT),
        enabled: configuration.get("enabled").and_then(truth),
        sddl: match configuration.get("sddl").and_then(Value::as_str) {
            Some(sddl) if sddl.len() <= MAX_SDDL => one_line(sddl),
            _ => String::new(),
        },
    };
    Ok(configurations.into_iter().map(read).collect())
}

/// A list; PowerShell may write one item without a list around it, and lists as objects with their items in `value`. More
/// than the bound is no list of the script.
fn list(value: Option<&Value>) -> Option<Vec<&Value>> {
    match value? {
        Value::Array(items) if items.len() <= MAX_ITEMS => Some(items.iter().collect()),
        Value::Array(_) => None,
        Value::Null => Some(Vec::new()),
        object @ Value::Object(members) => match members.get("value") {
            Some(inner @ Value::Array(_)) if members.contains_key("Count") => list(Some(inner)),
            _ => Some(vec![object]),
        },
        single => Some(vec![single]),
    }
}

/// PowerShell writes booleans as such, as numbers, or as words.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(word) if word.eq_ignore_ascii_case("true") || word == "1" => Some(true),
        Value::String(word) if word.eq_ignore_ascii_case("false") || word == "0" => Some(false),
        _ => None,
    }
}

/// A text on one line, cut.
fn text(value: Option<&Value>, most: usize) -> String {
    let text = match value {
        Some(Value::String(text)) => one_line(text),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    match text.char_indices().nth(most) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
pub(crate) mod tests;
