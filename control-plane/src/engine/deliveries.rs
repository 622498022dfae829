//! The secrets that an assignment carries beside one of the credential's own: which they are, and what an agent needs to have each
//! of them in clear.
//!
//! INVARIANT: a value of the built-in store, and what a secret manager authenticates with, leave these functions only sealed to the
//! agent that the task was given to. In between they are in memory that is zeroed.

use std::collections::{BTreeSet, HashMap};

use lictor_proto::sealing::{Binding, seal};
use lictor_proto::v1::{
    Failure, KmsMaterial, KmsRecord, SealedSecret, SecretDelivery, SecretKind, SecretManager, SecretMaterial, TaskSpec,
    secret_material, task_spec,
};
use prost::Message as _;
use serde_json::json;
use tracing::info;
use zeroize::{Zeroize as _, Zeroizing};

use super::credentials::scope_of;
use super::fetching::Wish;
use super::kms_access::{live_manager, place, wipe};
use super::{Engine, Refusal};
use crate::access::{Caller, within};
use crate::audit::{Action, Actor, Event};
use crate::clock::Now;
use crate::dispatch::{Assign, Errand, ManagerState, Reach, SecretState, Secrets};
use crate::failure;
use crate::managers::is_platform;
use crate::oidc::Holder;
use crate::platform::Place;
use crate::store::credentials::CredentialRecord;
use crate::store::managers;
use crate::store::secrets::{self, Body};
use crate::store::{StoreError, Writer};
use crate::validate::quoted;

/// What secrets an assignment carries.
#[derive(Default)]
pub(super) struct Carried {
    /// What proves the user, when agents need not ask anybody else for it.
    pub(super) proof: Option<SealedSecret>,
    /// Else the identifier of the delivery that does.
    pub(super) proof_delivered: String,
    pub(super) deliveries: Vec<SecretDelivery>,
    used: Vec<Used>,
}

impl Carried {
    /// The secrets of the shell's variables, with the versions that are handed over.
    pub(super) fn of_shell(&self) -> Vec<(&str, u64)> {
        let of_shell = self.used.iter().filter(|used| used.why.contains(&Why::Environment));
        of_shell.map(|used| (used.identifier.as_str(), used.version)).collect()
    }

    fn bytes(&self) -> usize {
        self.deliveries.iter().map(SecretDelivery::encoded_len).sum()
    }
}

/// What came of gathering them.
pub(super) enum Gathered {
    Ready(Carried),
    /// The control plane has to ask for these values first.
    Waits(Vec<Wish>),
    Failed(Failure),
}

/// A secret left the control plane, or the way to it did.
struct Used {
    identifier: String,
    version: u64,
    why: Vec<Why>,
}

/// What a task has a secret for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// It proves the credential's user.
    Credential,
    /// It is the value of a variable.
    Environment,
    /// It holds whom to trust as the host's authority.
    Authority,
    /// A secret manager authenticates with it.
    Manager,
    /// Whether an agent may read what its secret manager keeps is tried with it.
    Test,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Environment => "environment",
            Self::Authority => "authority",
            Self::Manager => "manager",
            Self::Test => "test",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Credential | Self::Manager | Self::Test => "credential",
            Self::Environment => "shell.secret_environment",
            Self::Authority => "target.connection.ca_secret",
        }
    }
}

/// Why something is not delivered: a failure of the task.
pub(super) type Undelivered = Box<Failure>;

/// The value of one secret as far as the control plane has it.
enum Found {
    Value(Zeroizing<Vec<u8>>),
    Source(String),
    Kms(Box<KmsMaterial>, Vec<(String, u64)>),
    Wish(Wish),
}

impl Found {
    /// What is delivered of it; else what the control plane has to ask for first.
    fn material(self, used: &mut Vec<Used>) -> Result<secret_material::Material, Wish> {
        match self {
            Self::Value(value) => Ok(secret_material::Material::Value(value.to_vec())),
            Self::Source(source) => Ok(secret_material::Material::Source(source)),
            Self::Kms(material, keys) => {
                let managers =
                    keys.into_iter().map(|(identifier, version)| Used { identifier, version, why: vec![Why::Manager] });
                used.extend(managers);
                Ok(secret_material::Material::Kms(*material))
            }
            Self::Wish(wish) => Err(wish),
        }
    }
}

impl Engine {
    /// Gathers the secrets of an assignment; `spec` is complete.
    pub(super) async fn gather(
        &mut self,
        assign: &Assign,
        spec: &TaskSpec,
        credential: Option<&CredentialRecord>,
        now: Now,
    ) -> Result<Gathered, StoreError> {
        let mut carried = Carried::default();
        let mut wishes = Vec::new();
        if let Some(errand) = Errand::of(spec) {
            return self.gather_for_errand(assign, &errand, now).await;
        }
        for (identifier, why) in wanted(spec, credential) {
            let (version, found) =
                match self.find((identifier.as_str(), None), &why, spec, &assign.agent_id, now).await? {
                    Ok(found) => found,
                    Err(failure) => return Ok(Gathered::Failed(*failure)),
                };
            if let Found::Value(value) = &found
                && let Some(credential) = credential.filter(|_| why.contains(&Why::Credential))
            {
                let binding = binding(assign, &credential.name, credential.version);
                match self.seal_to(assign, &binding, value) {
                    Ok(sealed) => carried.proof = Some(sealed),
                    Err(reason) => return Ok(Gathered::Failed(failure::secret_unusable(&identifier, &reason))),
                }
                if why.len() == 1 {
                    carried.used.push(Used { identifier, version, why });
                    continue;
                }
            }
            let material = match found.material(&mut carried.used) {
                Ok(material) => material,
                Err(wish) => {
                    wishes.push(wish);
                    continue;
                }
            };
            if why.contains(&Why::Credential) && carried.proof.is_none() {
                carried.proof_delivered.clone_from(&identifier);
            }
            match self.deliver(assign, &identifier, version, material) {
                Ok(delivery) => carried.deliveries.push(delivery),
                Err(reason) => return Ok(Gathered::Failed(failure::secret_unusable(&identifier, &reason))),
            }
            carried.used.push(Used { identifier, version, why });
        }
        if !wishes.is_empty() {
            return Ok(Gathered::Waits(wishes));
        }
        let bytes = carried.bytes();
        if bytes > MAX_DELIVERIES_BYTES {
            return Ok(Gathered::Failed(failure::secrets_too_large(bytes, MAX_DELIVERIES_BYTES)));
        }
        Ok(Gathered::Ready(carried))
    }

    /// Adds the secrets that a running command was given for its variables, in the versions that it was given: what it prints is masked
    /// by them. What cannot be had so is left out, and then the agent does not follow the command.
    pub(super) async fn gather_masks(
        &mut self,
        assign: &Assign,
        spec: &TaskSpec,
        given: Vec<(String, u64)>,
        carried: &mut Carried,
        now: Now,
    ) -> Result<(), StoreError> {
        let Assign { agent_id, task_id, .. } = assign;
        for (identifier, version) in given {
            // Each comes once: what proves the user now is needed as it is now.
            if carried.deliveries.iter().any(|delivery| delivery.identifier == identifier) {
                continue;
            }
            let why = vec![Why::Environment];
            let delivery = match self.find((identifier.as_str(), Some(version)), &why, spec, agent_id, now).await? {
                Ok((_, found)) => match found.material(&mut carried.used) {
                    Ok(material) => self.deliver(assign, &identifier, version, material),
                    // The Welcome waits for nobody.
                    Err(_) => Err("its value is not at hand".to_owned()),
                },
                Err(failure) => Err(failure.message),
            };
            match delivery {
                Ok(delivery) if carried.bytes() + delivery.encoded_len() <= MAX_DELIVERIES_BYTES => {
                    carried.deliveries.push(delivery);
                    carried.used.push(Used { identifier, version, why });
                }
                Ok(_) => {
                    info!(task_id, agent_id, secret = identifier, version, "No room for a secret of a running command")
                }
                Err(reason) => {
                    info!(
                        task_id,
                        agent_id,
                        secret = identifier,
                        version,
                        reason,
                        "A running command cannot be masked"
                    );
                }
            }
        }
        Ok(())
    }

    /// The way to a secret manager, for work on it.
    async fn gather_for_errand(&mut self, assign: &Assign, errand: &Errand, now: Now) -> Result<Gathered, StoreError> {
        let identifier = errand.manager();
        let Some(manager) = live_manager(self.database().await?, identifier).await? else {
            return Ok(Gathered::Failed(failure::manager_unusable(identifier, "it was deleted")));
        };
        let (access, keys) = match self.access(&manager, Holder::Agent(&assign.agent_id), now).await? {
            Ok(found) => found,
            Err(failure) => return Ok(Gathered::Failed(*failure)),
        };
        // Where nothing may be written, reading can be tested with something that was written before.
        let example = match errand {
            Errand::Test { .. } => self.example(identifier, &assign.agent_id).await?,
            Errand::Seal { .. } => None,
        };
        let mut all = Vec::new();
        let mut carried = Carried::default();
        if let Some((place, record)) = example {
            let used = Used { identifier: place.identifier.clone(), version: place.version, why: vec![Why::Test] };
            carried.used.push(used);
            let material = KmsMaterial { record: Some(record), access: Some(access.clone()) };
            all.push((place.identifier, place.version, secret_material::Material::Kms(material)));
        }
        let material = secret_material::Material::Kms(KmsMaterial { record: None, access: Some(access) });
        all.insert(0, (format!("manager:{identifier}"), manager.manager.version, material));
        for (name, version, material) in all {
            match self.deliver(assign, &name, version, material) {
                Ok(delivery) => carried.deliveries.push(delivery),
                Err(reason) => return Ok(Gathered::Failed(failure::manager_unusable(identifier, &reason))),
            }
        }
        let used = keys.into_iter().map(|(identifier, version)| Used { identifier, version, why: vec![Why::Manager] });
        carried.used.extend(used);
        Ok(Gathered::Ready(carried))
    }

    /// A secret that this manager keeps and this agent may have; any for the control plane itself.
    pub(super) async fn example(
        &mut self,
        manager: &str,
        agent_id: &str,
    ) -> Result<Option<(Place, KmsRecord)>, StoreError> {
        let serves = self.parts.ledger.agent(agent_id).map_or(String::new(), |agent| agent.scope.clone());
        let database = self.database().await?;
        for identifier in secrets::kept_by(database, manager).await?.into_iter().take(EXAMPLES) {
            let Some(secret) = secrets::secret(database, &identifier).await? else { continue };
            if !within(&serves, &secret.scope) {
                continue;
            }
            let version = secrets::version(database, &identifier, secret.version).await?;
            if let Some(Body::Kms(record)) = version.map(|version| version.body) {
                return Ok(Some((place(&record, &identifier, secret.version), record)));
            }
        }
        Ok(None)
    }

    /// One secret, where the value of its newest version is, or of the version asked for.
    async fn find(
        &mut self,
        (identifier, wanted): (&str, Option<u64>),
        why: &[Why],
        spec: &TaskSpec,
        agent_id: &str,
        now: Now,
    ) -> Result<Result<(u64, Found), Undelivered>, StoreError> {
        let unusable = |reason: &str| Ok(Err(Box::new(failure::secret_unusable(identifier, reason))));
        let database = self.database().await?;
        let record = secrets::secret(database, identifier).await?;
        let Some(record) = record.filter(|record| record.deleted_at.is_none()) else {
            return Ok(Err(Box::new(failure::secret_deleted(identifier))));
        };
        if !within(&record.scope, scope_of(spec)) {
            return unusable("it belongs to another scope by now");
        }
        if why.contains(&Why::Environment) && record.kind != SecretKind::Text {
            return unusable("it is a file, and variables hold text");
        }
        let number = wanted.unwrap_or(record.version);
        let Some(version) = secrets::version(database, identifier, number).await? else {
            return unusable(if wanted.is_some() {
                "the version of it that was given out is no longer kept"
            } else {
                "its newest version is missing"
            });
        };
        let found = match version.body {
            Body::BuiltIn(envelope) => match self.opened(identifier, number, &envelope) {
                Ok(value) => Found::Value(value),
                Err(error) => return unusable(&error.to_string()),
            },
            Body::Agent(source) => Found::Source(source),
            Body::Kms(kms) => {
                let Some(manager) = live_manager(self.database().await?, &version.manager).await? else {
                    return Ok(Err(Box::new(failure::manager_unusable(&version.manager, "it was deleted"))));
                };
                if !within(&manager.manager.scope, &record.scope) {
                    let reason = "it belongs to another scope than its secrets by now";
                    return Ok(Err(Box::new(failure::manager_unusable(&version.manager, reason))));
                }
                if is_platform(&manager.manager) {
                    let place = place(&kms, identifier, number);
                    match self.fetching.value(&place, now) {
                        Some(value) => Found::Value(value),
                        None => Found::Wish(Wish { place, manager: Box::new(manager), record: Box::new(kms) }),
                    }
                } else {
                    match self.access(&manager, Holder::Agent(agent_id), now).await? {
                        Ok((access, keys)) => {
                            let material = KmsMaterial { record: Some(kms), access: Some(access) };
                            Found::Kms(Box::new(material), keys)
                        }
                        Err(failure) => return Ok(Err(failure)),
                    }
                }
            }
        };
        Ok(Ok((number, found)))
    }

    fn deliver(
        &self,
        assign: &Assign,
        identifier: &str,
        version: u64,
        material: secret_material::Material,
    ) -> Result<SecretDelivery, String> {
        let plain = encoded(material);
        let name = format!("secret:{identifier}");
        let sealed = self.seal_to(assign, &binding(assign, &name, version), &plain)?;
        Ok(SecretDelivery { identifier: identifier.to_owned(), version, sealed: Some(sealed) })
    }

    fn seal_to(&self, assign: &Assign, binding: &Binding<'_>, plain: &[u8]) -> Result<SealedSecret, String> {
        let agent = self.parts.ledger.agent(&assign.agent_id).ok_or("the agent has vanished")?;
        seal(&agent.sealing_key, binding, plain).map_err(|error| error.to_string())
    }

    /// Which secrets left the control plane, for whom and what for.
    pub(super) async fn audit_used(&mut self, assign: &Assign, carried: &Carried, now: Now) -> Result<(), StoreError> {
        for used in &carried.used {
            let why: Vec<&str> = used.why.iter().map(|why| why.name()).collect();
            let details = json!({
                "agent_id": assign.agent_id,
                "epoch": assign.epoch,
                "task_id": assign.task_id,
                "version": used.version,
                "why": why,
            });
            self.audit_use(&used.identifier, details, now).await?;
        }
        Ok(())
    }

    pub(super) async fn audit_use(
        &mut self,
        identifier: &str,
        details: serde_json::Value,
        now: Now,
    ) -> Result<(), StoreError> {
        let event = Event {
            action: Action::SecretUsed,
            actor: Actor::ControlPlane,
            object: ("secret", identifier),
            outcome: "ok",
            details,
        };
        self.audit(&event, now).await
    }
}

/// Secrets that tasks name, what for and in which scope; each once, since those of a batch name the same ones, mostly.
pub(super) struct Named(BTreeSet<(String, Why, String)>);

impl Named {
    pub(super) fn by<'a>(specs: impl IntoIterator<Item = &'a TaskSpec>) -> Self {
        let mut named = BTreeSet::new();
        for spec in specs {
            for (identifier, whys) in wanted(spec, None) {
                let scope = scope_of(spec);
                named.extend(whys.into_iter().map(|why| (identifier.clone(), why, scope.to_owned())));
            }
        }
        Self(named)
    }
}

impl Engine {
    /// Whether tasks may use the secrets that they name: those of their own scope or of one above it.
    pub(super) async fn may_use_secrets(
        &mut self,
        named: Named,
        by: &Caller,
    ) -> Result<Result<(), Refusal>, StoreError> {
        for (identifier, why, of_tasks) in named.0 {
            let database = self.database().await?;
            let found = secrets::secret(database, &identifier).await?.filter(|record| record.deleted_at.is_none());
            let refusal = match found {
                Some(record) if within(&record.scope, &of_tasks) => {
                    if why != Why::Environment || record.kind == SecretKind::Text {
                        continue;
                    }
                    Refusal::Invalid(format!(
                        "shell.secret_environment: {identifier} is a file, and variables hold text"
                    ))
                }
                Some(record) if by.sees(&record.scope) => Refusal::Invalid(format!(
                    "{}: {identifier} is for tasks of the scope {:?}; give the task that scope or one below it",
                    why.field(),
                    record.scope
                )),
                // Somebody else's secret and none look the same.
                _ => Refusal::NotFound(format!(
                    "{}: there is no secret {}; store it with `lictor secret put`",
                    why.field(),
                    quoted(&identifier)
                )),
            };
            return Ok(Err(refusal));
        }
        Ok(Ok(()))
    }
}

/// What routing has to know of secrets and their managers.
pub(super) async fn known_secrets(database: &mut Writer) -> Result<Secrets, StoreError> {
    let mut known = HashMap::new();
    for (identifier, manager) in secrets::managers_of_all(database).await? {
        known.insert(identifier, SecretState { manager });
    }
    let mut managers_known = HashMap::new();
    for record in managers::all(database).await? {
        managers_known.insert(record.manager.identifier.clone(), manager_state(&record.manager));
    }
    Ok(Secrets::new(known, managers_known))
}

/// What routing has to know of a secret manager.
pub(super) fn manager_state(manager: &SecretManager) -> ManagerState {
    let reach = if is_platform(manager) { Reach::ControlPlane } else { Reach::AwsKms };
    ManagerState { agent_tags: manager.agent_tags.clone(), reach }
}

/// The secrets of a task, each once, with everything that it is for. `spec` is complete.
fn wanted(spec: &TaskSpec, credential: Option<&CredentialRecord>) -> Vec<(String, Vec<Why>)> {
    let mut wanted: Vec<(String, Vec<Why>)> = Vec::new();
    let mut want = |identifier: &str, why: Why| {
        if identifier.is_empty() {
            return;
        }
        match wanted.iter_mut().find(|(known, _)| known == identifier) {
            Some((_, whys)) if whys.contains(&why) => {}
            Some((_, whys)) => whys.push(why),
            None => wanted.push((identifier.to_owned(), vec![why])),
        }
    };
    if let Some(credential) = credential {
        want(&credential.secret_identifier, Why::Credential);
    }
    let shell = match &spec.kind {
        Some(task_spec::Kind::Command(command)) => command.shell.as_ref(),
        Some(task_spec::Kind::Script(script)) => script.shell.as_ref(),
        _ => None,
    };
    for identifier in shell.into_iter().flat_map(|shell| shell.secret_environment.values()) {
        want(identifier, Why::Environment);
    }
    if let Some(connection) = spec.target.as_ref().and_then(|target| target.connection.as_ref()) {
        want(&connection.ca_secret, Why::Authority);
    }
    wanted
}

fn binding<'a>(assign: &'a Assign, credential: &'a str, credential_version: u64) -> Binding<'a> {
    let Assign { agent_id, task_id, epoch, .. } = assign;
    Binding { agent_id, task_id, epoch: *epoch, credential, credential_version }
}

/// The material as bytes; what it was made from is zeroed.
fn encoded(material: secret_material::Material) -> Zeroizing<Vec<u8>> {
    let mut material = SecretMaterial { material: Some(material) };
    let plain = Zeroizing::new(material.encode_to_vec());
    match &mut material.material {
        Some(secret_material::Material::Value(value)) => value.zeroize(),
        Some(secret_material::Material::Kms(kms)) => kms.access.iter_mut().for_each(wipe),
        Some(secret_material::Material::Source(_)) | None => {}
    }
    plain
}

/// Secrets of a manager that are looked at for one that an agent may have.
const EXAMPLES: usize = 20;
/// Of one assignment.
const MAX_DELIVERIES_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{KmsAccess, KmsAccessKey, kms_access};

    use super::*;

    #[test]
    fn material_is_encoded_as_it_is() {
        let access = KmsAccess {
            credentials: Some(kms_access::Credentials::AccessKey(KmsAccessKey {
                access_key_id: "id".into(),
                secret_access_key: "marker".into(),
            })),
            ..KmsAccess::default()
        };
        let kms = KmsMaterial { record: None, access: Some(access) };
        let bytes = encoded(secret_material::Material::Kms(kms.clone()));
        let again = SecretMaterial::decode(bytes.as_slice()).unwrap();
        assert_eq!(again.material, Some(secret_material::Material::Kms(kms)));
    }
}
