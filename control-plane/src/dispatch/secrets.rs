//! What secrets ask of an agent beyond the task's kind: that it reaches what keeps them, and may.
//!
//! Pure. Of secrets and secret managers the ledger knows only what routing needs. What is not known to it is no obstacle: the
//! assignment fails and says why, rather than that a task waits for something that will not come.

use std::collections::HashMap;

use lictor_proto::v1::{Candidate, SealSecret, TaskResult, TaskSpec, task_spec};

use super::agent::{AgentEntry, SessionId};
use super::link::bounded;
use super::routing::{self, AWS_KMS, Route};
use super::task::Phase;
use super::{Assign, CredentialState, Ledger, MAX_CANDIDATES};
use crate::clock::Now;

/// What the ledger knows of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretState {
    /// Identifier of its secret manager.
    pub(crate) manager: String,
}

/// What the ledger knows of a secret manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManagerState {
    /// Tags that agents must all have.
    pub(crate) agent_tags: Vec<String>,
    pub(crate) reach: Reach,
}

/// Who gets at what a secret manager keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The control plane, which hands values on.
    ControlPlane,
    /// Agents, on which the values are.
    Sources,
    /// Agents, by AWS KMS.
    AwsKms,
}

/// Work for the sake of secrets, for which there is neither a host nor a credential.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Errand {
    /// A test of this secret manager.
    Test { manager: String },
    /// A value that was sealed to this agent goes under this secret manager's key.
    Seal { manager: String, agent_id: String },
}

impl Errand {
    pub(crate) fn manager(&self) -> &str {
        let (Self::Test { manager } | Self::Seal { manager, .. }) = self;
        manager
    }

    pub(crate) fn of(spec: &TaskSpec) -> Option<Self> {
        match &spec.kind {
            Some(task_spec::Kind::SecretManagerTest(test)) => Some(Self::Test { manager: test.manager.clone() }),
            Some(task_spec::Kind::SealSecret(SealSecret { manager, seal_id, .. })) => {
                let agent_id = sealed_to(seal_id).unwrap_or_default().to_owned();
                Some(Self::Seal { manager: manager.clone(), agent_id })
            }
            _ => None,
        }
    }
}

/// Names one writing of a secret. The agent's id is in it, so that whoever has the task knows whom it is for.
pub(crate) fn seal_id(unique: &str, agent_id: &str) -> String {
    format!("{unique}@{agent_id}")
}

/// The agent that a value was sealed to.
pub(crate) fn sealed_to(seal_id: &str) -> Option<&str> {
    seal_id.split_once('@').map(|(_, agent_id)| agent_id).filter(|agent_id| !agent_id.is_empty())
}

/// Identifiers of the secrets that a task names itself, each once, and whether it says itself whom to trust as the host's
/// authority.
pub(super) fn named(spec: &TaskSpec) -> (Vec<String>, bool) {
    let shell = match &spec.kind {
        Some(task_spec::Kind::Command(command)) => command.shell.as_ref(),
        Some(task_spec::Kind::Script(script)) => script.shell.as_ref(),
        _ => None,
    };
    let connection = spec.target.as_ref().and_then(|target| target.connection.as_ref());
    let authority = connection.map_or("", |connection| connection.ca_secret.as_str());
    let environment = shell.into_iter().flat_map(|shell| shell.secret_environment.values());
    let mut named: Vec<String> = environment.cloned().collect();
    named.extend((!authority.is_empty()).then(|| authority.to_owned()));
    named.sort_unstable();
    named.dedup();
    let own_authority = connection.is_some_and(|own| !own.ca_pem.is_empty() || !own.ca_secret.is_empty());
    (named, own_authority)
}

/// All secrets and secret managers.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    secrets: HashMap<String, SecretState>,
    managers: HashMap<String, ManagerState>,
}

impl Secrets {
    pub(crate) fn new(secrets: HashMap<String, SecretState>, managers: HashMap<String, ManagerState>) -> Self {
        Self { secrets, managers }
    }

    pub(crate) fn manager(&self, identifier: &str) -> Option<&ManagerState> {
        match identifier {
            BUILT_IN => Some(&OURS),
            ON_AGENTS => Some(&THEIRS),
            _ => self.managers.get(identifier),
        }
    }

    pub(super) fn secret_stored(&mut self, identifier: &str, state: SecretState) {
        self.secrets.insert(identifier.to_owned(), state);
    }

    pub(super) fn secret_deleted(&mut self, identifier: &str) {
        self.secrets.remove(identifier);
    }

    pub(super) fn manager_stored(&mut self, identifier: &str, state: ManagerState) {
        self.managers.insert(identifier.to_owned(), state);
    }

    pub(super) fn manager_deleted(&mut self, identifier: &str) {
        self.managers.remove(identifier);
    }

    /// Why an agent may not take a task for the sake of its secrets, as far as that was settled when it was set up.
    pub(super) fn not_for(
        &self,
        agent: &AgentEntry,
        route: &Route,
        credential: Option<&CredentialState>,
    ) -> Option<(&'static str, String)> {
        if let Some(Errand::Seal { agent_id, .. }) = &route.errand
            && *agent_id != agent.agent_id
        {
            return Some((OTHER_AGENT, "the value was sealed to another agent".into()));
        }
        for identifier in self.managers_of(route, credential) {
            let Some(manager) = self.manager(identifier) else { continue };
            if route.errand.is_some() && manager.reach == Reach::ControlPlane {
                return Some((SECRET_MANAGER, format!("the control plane itself reaches {identifier}")));
            }
            let missing: Vec<&str> =
                manager.agent_tags.iter().filter(|tag| !agent.has_tag(tag)).map(String::as_str).collect();
            if !missing.is_empty() {
                let missing = missing.join(", ");
                let words = format!("it lacks the tag(s) {missing}, which the secret manager {identifier} asks for");
                return Some((SECRET_MANAGER, words));
            }
        }
        None
    }

    /// What an agent's program lacks that the secrets of a task need.
    pub(super) fn lacking(
        &self,
        agent: &AgentEntry,
        route: &Route,
        credential: Option<&CredentialState>,
    ) -> Option<(&'static str, String)> {
        let lacks = |capability: &str| !agent.capabilities.iter().any(|own| own == capability);
        let names_some = !route.secrets.is_empty() || inherited_authority(route, credential).is_some();
        if names_some && lacks(TASK_SECRETS) {
            let words = format!("it cannot do {TASK_SECRETS}, which the task's own secrets need");
            return Some(("missing_capability", words));
        }
        for (identifier, secret) in self.secrets_of(route, credential) {
            let needed = match self.manager(&secret.manager).map(|manager| manager.reach) {
                Some(Reach::Sources) => SECRET_SOURCES,
                Some(Reach::AwsKms) => AWS_KMS,
                Some(Reach::ControlPlane) | None => continue,
            };
            if lacks(needed) {
                let words = format!("it cannot do {needed}, which the secret {identifier} needs");
                return Some(("missing_capability", words));
            }
        }
        None
    }

    fn managers_of<'a>(
        &'a self,
        route: &'a Route,
        credential: Option<&'a CredentialState>,
    ) -> impl Iterator<Item = &'a str> {
        let errand = route.errand.as_ref().map(Errand::manager);
        errand.into_iter().chain(self.secrets_of(route, credential).map(|(_, secret)| secret.manager.as_str()))
    }

    /// Secrets that a task needs, those that its credential names included.
    fn secrets_of<'a>(
        &'a self,
        route: &'a Route,
        credential: Option<&'a CredentialState>,
    ) -> impl Iterator<Item = (&'a str, &'a SecretState)> {
        let proof = credential.and_then(|credential| credential.needs.secret.as_deref());
        let authority = inherited_authority(route, credential);
        let named = route.secrets.iter().map(String::as_str).chain(proof).chain(authority);
        named.filter_map(|identifier| Some((identifier, self.secrets.get(identifier)?)))
    }
}

impl Ledger {
    /// Secrets and secret managers, as the database has them.
    pub(crate) fn know(&mut self, secrets: Secrets) {
        self.secrets = secrets;
    }

    pub(crate) fn secret_stored(&mut self, identifier: &str, state: SecretState) {
        self.secrets.secret_stored(identifier, state);
    }

    /// Tasks that wait for it are rejected once an agent takes them.
    pub(crate) fn secret_deleted(&mut self, identifier: &str) {
        self.secrets.secret_deleted(identifier);
    }

    pub(crate) fn manager_stored(&mut self, identifier: &str, state: ManagerState) {
        self.secrets.manager_stored(identifier, state);
    }

    pub(crate) fn manager_deleted(&mut self, identifier: &str) {
        self.secrets.manager_deleted(identifier);
    }

    /// Whether nothing but a slot, or the moment until it polls again, keeps an agent from this; `obstacle` is what does.
    pub(super) fn is_fit(
        &self,
        agent: &AgentEntry,
        route: &Route,
        credential: Option<&CredentialState>,
        obstacle: Option<(&'static str, String)>,
    ) -> bool {
        match obstacle {
            None | Some((routing::NO_FREE_SLOT, _)) => true,
            Some((routing::OFFLINE, _)) => {
                self.is_between_polls(&agent.agent_id)
                    && agent.capabilities.iter().any(|c| c == route.capability)
                    && self.secrets.lacking(agent, route, credential).is_none()
            }
            Some(_) => false,
        }
    }

    /// The agent with the most room that fits, or every agent and why it does not. One whose slots are all in use fits when
    /// there is no other: what is asked here is done a little later.
    pub(crate) fn choose(&self, route: &Route) -> Result<&AgentEntry, Vec<Candidate>> {
        let obstacle = |agent: &AgentEntry| routing::obstacle_on(agent, route, None, None, &self.secrets);
        let room = |agent: &AgentEntry| agent.link.as_ref().map_or(0, |link| link.free());
        let fitting = self.agents.values().filter(|agent| self.is_fit(agent, route, None, obstacle(agent)));
        if let Some(agent) = fitting.max_by_key(|agent| room(agent)) {
            return Ok(agent);
        }
        let candidate = |agent| self.polling.candidate(routing::candidate(agent, obstacle(agent)));
        let mut all: Vec<Candidate> = self.agents.values().map(candidate).collect();
        all.sort_by(|a, b| a.agent_name.cmp(&b.agent_name));
        all.truncate(MAX_CANDIDATES);
        Err(all)
    }

    /// Whether an assignment that was put aside can still be sent as it was decided: the task is with that agent and nobody cancelled
    /// it, the session goes on, and no host has rejected the credential since, nor was it changed or deleted.
    pub(crate) fn awaits(&self, assign: &Assign, session: SessionId) -> bool {
        let task = self.tasks.get(&assign.task_id).filter(|task| task.phase != Phase::Queued);
        let Some(task) = task.filter(|task| task.epoch == assign.epoch && task.cancel.is_none()) else { return false };
        let as_decided = match self.credentials.get(&task.credential) {
            Some(state) => state.version == assign.credential_version && !state.rejected,
            None => task.route.errand.is_some(),
        };
        as_decided && self.session_of(&assign.agent_id) == Some(session)
    }

    /// The control plane has done a waiting task itself.
    pub(crate) fn done_here(&mut self, task_id: &str, result: TaskResult, now: Now) {
        if self.tasks.get(task_id).is_some_and(|task| task.phase == Phase::Queued) {
            self.finish(task_id, bounded(result), Vec::new(), false, now);
        }
    }

    /// Waiting tests of secret managers.
    pub(crate) fn waiting_tests(&self) -> Vec<(String, String)> {
        let tests = self.tasks.values().filter(|task| task.phase == Phase::Queued);
        tests
            .filter_map(|task| match &task.route.errand {
                Some(Errand::Test { manager }) => Some((task.task_id.clone(), manager.clone())),
                _ => None,
            })
            .collect()
    }

    /// An assignment is put aside until what it carries is there, or is sent after that.
    pub(crate) fn mark_unsent(&mut self, assign: &Assign, unsent: bool) {
        if let Some(task) = self.tasks.get_mut(&assign.task_id).filter(|task| task.epoch == assign.epoch) {
            task.unsent = unsent;
        }
    }

    /// An assignment was put aside, and when it was ready it could not be sent any more: the agent has never heard of it.
    pub(crate) fn never_sent(&mut self, assign: &Assign, now: Now) {
        if self.takes_back(assign, now) {
            self.enqueue(&assign.task_id, now);
        }
    }
}

/// The secret that holds the host's authority, where the task leaves that to its credential.
fn inherited_authority<'a>(route: &Route, credential: Option<&'a CredentialState>) -> Option<&'a str> {
    credential.filter(|_| !route.own_authority).and_then(|credential| credential.needs.authority.as_deref())
}

/// The control plane's own store.
pub(crate) const BUILT_IN: &str = "built-in";
/// Files and variables on agents.
pub(crate) const ON_AGENTS: &str = "agent";
static OURS: ManagerState = ManagerState { agent_tags: Vec::new(), reach: Reach::ControlPlane };
static THEIRS: ManagerState = ManagerState { agent_tags: Vec::new(), reach: Reach::Sources };
/// Codes of obstacles.
pub(super) const SECRET_MANAGER: &str = "secret_manager";
pub(super) const OTHER_AGENT: &str = "other_agent";
/// Capability of agents on which secrets may be.
const SECRET_SOURCES: &str = "secret_sources";
/// Capability of agents that take secrets beside the credential's.
const TASK_SECRETS: &str = "task_secrets";

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{Command, ConnectionSettings, ShellSettings, Target};

    use super::*;

    #[test]
    fn the_agent_is_found_in_a_seal_id() {
        assert_eq!(sealed_to(&seal_id("u", "a1")), Some("a1"));
        for bad in ["", "u", "u@"] {
            assert_eq!(sealed_to(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_secret_of_a_task_is_named_once() {
        let environment = [("A", "x"), ("B", "y"), ("C", "x")].map(|(name, secret)| (name.into(), secret.into()));
        let shell = ShellSettings { secret_environment: environment.into(), ..ShellSettings::default() };
        let connection = ConnectionSettings { ca_secret: "y".into(), ..ConnectionSettings::default() };
        let mut spec = TaskSpec {
            target: Some(Target { host: "web1".into(), connection: Some(connection) }),
            kind: Some(task_spec::Kind::Command(Command { shell: Some(shell), ..Command::default() })),
            ..TaskSpec::default()
        };
        assert_eq!(named(&spec), (vec!["x".to_owned(), "y".to_owned()], true));
        spec.target = None;
        assert_eq!(named(&spec), (vec!["x".to_owned(), "y".to_owned()], false));
        assert_eq!(named(&TaskSpec::default()), (Vec::new(), false));
    }
}
