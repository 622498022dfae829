//! Which agent may take which task, and in words why not.
//!
//! Pure: looks at one agent and one task at a time.

use lictor_proto::v1::{AgentSelector, Candidate, TaskSpec, task_spec};

use super::CredentialState;
use super::agent::AgentEntry;
use super::secrets::{self, Errand, OTHER_AGENT, SECRET_MANAGER, Secrets};
use super::task::LiveTask;

/// What a task asks of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Route {
    /// Tags that the agent must all have.
    pub(crate) tags: Vec<String>,
    /// Scope of the task; empty: any agent.
    pub(crate) scope: String,
    /// Capability that the task's kind needs.
    pub(crate) capability: &'static str,
    /// How to authenticate, when the task says so itself.
    pub(crate) auth: i32,
    /// Realm of the user, when the task says so itself.
    pub(crate) realm: String,
    /// Identifiers of the secrets that the task names itself, in order.
    pub(crate) secrets: Vec<String>,
    /// The task says itself whom to trust as the host's authority.
    pub(crate) own_authority: bool,
    /// Present for work without a host and a credential.
    pub(crate) errand: Option<Errand>,
}

impl Route {
    /// Reads it from a checked specification.
    pub(crate) fn of(spec: &TaskSpec) -> Self {
        let selector = spec.selector.clone().unwrap_or_default();
        let capability = match spec.kind {
            Some(task_spec::Kind::ConnectionTest(_)) | None => "connection_test",
            Some(task_spec::Kind::Command(_)) => "command",
            Some(task_spec::Kind::Script(_)) => "script",
            Some(task_spec::Kind::Diagnosis(_)) => DIAGNOSIS,
            Some(task_spec::Kind::Posture(_)) => POSTURE,
            Some(task_spec::Kind::SecretManagerTest(_) | task_spec::Kind::SealSecret(_)) => AWS_KMS,
        };
        let connection = spec.target.as_ref().and_then(|target| target.connection.as_ref());
        let auth = connection.map(|connection| connection.auth).unwrap_or_default();
        let kerberos = connection.and_then(|connection| connection.kerberos.as_ref());
        let realm = kerberos.map(|kerberos| kerberos.realm.clone()).unwrap_or_default();
        let (secrets, own_authority) = secrets::named(spec);
        let errand = Errand::of(spec);
        let AgentSelector { tags, scope } = selector;
        Self { tags, scope, capability, auth, realm, secrets, own_authority, errand }
    }

    /// Whether the task only looks: nothing that it may have done before stands in the way of doing it again.
    pub(crate) fn only_looks(&self) -> bool {
        // What is encrypted once more does no harm: only one record of a version is kept.
        [DIAGNOSIS, POSTURE, AWS_KMS].contains(&self.capability)
    }
}

/// Why an agent cannot take a task now: stable code and words. What lasts comes before what passes.
pub(crate) fn obstacle(
    agent: &AgentEntry,
    task: &LiveTask,
    credential: Option<&CredentialState>,
    secrets: &Secrets,
) -> Option<(&'static str, String)> {
    let handed_back = task.handed_back.get(&agent.agent_id);
    let refused = match &task.hitch {
        _ if let Some(reason) = handed_back => Some(("handed_back", format!("it handed the task back: {reason}"))),
        Some(hitch) if hitch.agents.contains(&agent.agent_id) => Some((RETRY_PAUSE, hitch.words())),
        _ => None,
    };
    obstacle_on(agent, &task.route, refused, credential, secrets)
}

/// The same for what is no task yet; `refused` is that the agent handed it back, and why.
pub(super) fn obstacle_on(
    agent: &AgentEntry,
    route: &Route,
    refused: Option<(&'static str, String)>,
    credential: Option<&CredentialState>,
    secrets: &Secrets,
) -> Option<(&'static str, String)> {
    if agent.revoked.is_some() {
        return Some(("revoked", "its identity was revoked".into()));
    }
    if !serves(&agent.scope, &route.scope) {
        return Some(("scope", format!("its scope {:?} does not serve {:?}", agent.scope, route.scope)));
    }
    let missing: Vec<&str> = route.tags.iter().filter(|tag| !agent.has_tag(tag)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Some(("missing_tag", format!("it lacks the tag(s) {}", missing.join(", "))));
    }
    if let Some(obstacle) = secrets.not_for(agent, route, credential) {
        return Some(obstacle);
    }
    if refused.is_some() {
        return refused;
    }
    let Some(link) = &agent.link else {
        return Some((OFFLINE, "it is not connected".into()));
    };
    if let Some(mismatch) = agent.mismatch() {
        return Some(("version_skew", mismatch));
    }
    if !agent.capabilities.iter().any(|c| c == route.capability) {
        return Some(("missing_capability", format!("it cannot do tasks of the kind {}", route.capability)));
    }
    if let Some(obstacle) = credential.and_then(|credential| kerberos_obstacle(agent, route, credential)) {
        return Some(obstacle);
    }
    if let Some(obstacle) = secrets.lacking(agent, route, credential) {
        return Some(obstacle);
    }
    if agent.is_draining() {
        return Some(("draining", "it is draining".into()));
    }
    if link.free() == 0 {
        return Some((NO_FREE_SLOT, "all its slots are in use".into()));
    }
    None
}

fn kerberos_obstacle(
    agent: &AgentEntry,
    route: &Route,
    credential: &CredentialState,
) -> Option<(&'static str, String)> {
    let needs = &credential.needs;
    if needs.kerberos(route.auth) && !agent.capabilities.iter().any(|c| c == KERBEROS) {
        return Some(("missing_capability", format!("it cannot do {KERBEROS}, which the credential needs")));
    }
    let principal = needs.keytab_of.as_ref()?;
    if principal.is_among(&agent.kerberos_principals, &route.realm) {
        return None;
    }
    let name = principal.name(&route.realm);
    Some(("missing_keytab", format!("none of its keytabs holds a key of {name}")))
}

/// Whether waiting for this agent is in vain: what keeps it from the task does not pass.
pub(crate) fn never(
    agent: &AgentEntry,
    task: &LiveTask,
    credential: Option<&CredentialState>,
    secrets: &Secrets,
) -> bool {
    let lasting = [
        "revoked",
        "scope",
        "missing_tag",
        "handed_back",
        "missing_capability",
        "missing_keytab",
        SECRET_MANAGER,
        OTHER_AGENT,
    ];
    obstacle(agent, task, credential, secrets).is_some_and(|(code, _)| lasting.contains(&code))
}

/// The agent as a candidate; `obstacle` keeps it from the task.
pub(crate) fn candidate(agent: &AgentEntry, obstacle: Option<(&'static str, String)>) -> Candidate {
    let (eligible, code, reason) = match obstacle {
        Some((code, reason)) => (false, code, reason),
        None => (true, "eligible", "it can take the task".to_owned()),
    };
    let reason = clipped(reason, MAX_REASON_BYTES);
    Candidate { agent_id: agent.agent_id.clone(), agent_name: agent.name.clone(), eligible, code: code.into(), reason }
}

/// A text cut to so many bytes, between two characters.
pub(super) fn clipped(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// An agent of scope S serves S and everything below it; the empty scope serves all. A task without a scope asks for
/// none.
fn serves(agent: &str, task: &str) -> bool {
    agent.is_empty()
        || task.is_empty()
        || task.strip_prefix(agent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Capabilities of agents that examine hosts.
pub(crate) const DIAGNOSIS: &str = "diagnosis";
const POSTURE: &str = "posture";
/// Code of what waits until something has passed.
pub(super) const RETRY_PAUSE: &str = "retry_pause";
pub(super) const OFFLINE: &str = "offline";
pub(super) const NO_FREE_SLOT: &str = "no_free_slot";
/// Capability of agents that reach AWS KMS.
pub(super) const AWS_KMS: &str = "aws_kms";
/// Capability of agents that can do Kerberos.
const KERBEROS: &str = "kerberos";
/// A task carries the reasons of up to a thousand agents in one message.
pub(super) const MAX_REASON_BYTES: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_paths_not_prefixes() {
        for (agent, task, expected) in [
            ("", "a/b", true),
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "ab", false),
            ("a/b", "a", false),
            ("a", "", true),
        ] {
            assert_eq!(serves(agent, task), expected, "{agent:?} {task:?}");
        }
    }
}
