//! Connectors of Harness for AWS KMS as documents: one, a list of them, or several YAML documents; as the entity, as answers of
//! its API, or just the fields.
//!
//! What they authenticate with stays what it is in Harness, a reference to a secret. What looks like a secret access key itself is
//! refused, and never repeated. Unknown fields are mistakes with their line, and all mistakes of a text are told at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fields::Fields;
use super::reader::{Reader, scope_of};
use super::{known_name, reference_name};
use crate::Mistake;
use crate::yaml::{Kind, Node};

/// What a text holds.
#[derive(Debug, Default)]
pub struct Connectors {
    /// Secret managers, in their order.
    pub managers: Vec<Manager>,
    /// Connectors of other types, which were passed over: type and line.
    pub others: Vec<(String, usize)>,
}

/// A connector of the type `AwsKms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// Where it begins.
    pub line: usize,
    /// The identifier, or else the name, in characters that identifiers have here.
    pub identifier: String,
    /// Name shown to people; may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Where it may be used: organisation and project.
    pub scope: String,
    /// Delegate selectors.
    pub agent_tags: Vec<String>,
    /// The key.
    pub key: Value,
    /// Its region; empty when the document has none.
    pub region: String,
    /// Endpoint of KMS; not in Harness.
    pub endpoint: String,
    /// Endpoint of STS; not in Harness.
    pub sts_endpoint: String,
    /// Who uses the key.
    pub who: Who,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// A text, or the secret that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The text.
    Text(String),
    /// The secret.
    Secret(Reference),
}

/// A secret that a connector refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its identifier, in characters that identifiers have here.
    pub identifier: String,
    /// Where it belongs in Harness: the account (empty), the organisation, or the project.
    pub scope: String,
}

/// Kinds of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// `ManualConfig`: the access key of an IAM user.
    AccessKey {
        /// Its id.
        id: Value,
        /// Its secret.
        secret: Reference,
    },
    /// `AssumeIAMRole`: the machine that the agent runs on.
    MachineRole,
    /// `AssumeSTSRole`: a role that the machine assumes.
    AssumeRole {
        /// Its ARN.
        role_arn: String,
        /// What its trust policy asks for; may be empty.
        external_id: String,
        /// How long a session lasts, in seconds.
        duration_sec: Option<u32>,
    },
    /// `OidcAuthentication`: a role that trusts tokens of the control plane.
    Oidc {
        /// Its ARN.
        role_arn: String,
        /// The control plane itself calls AWS, not an agent.
        by_platform: bool,
        /// How long a session lasts, in seconds.
        duration_sec: Option<u32>,
    },
}

impl Manager {
    /// The secrets that it refers to.
    pub fn references(&self) -> Vec<&Reference> {
        let mut references = Vec::new();
        if let Value::Secret(reference) = &self.key {
            references.push(reference);
        }
        if let Who::AccessKey { id, secret } = &self.who {
            if let Value::Secret(reference) = id {
                references.push(reference);
            }
            references.push(secret);
        }
        references
    }
}

/// Reads a text. All mistakes at once.
pub fn read(file: &Arc<str>, text: &str) -> Result<Connectors, Vec<Mistake>> {
    let mut reader = Reader::<Manager>::new(file);
    for document in &reader.documents(text)? {
        reader.document(document, 0);
    }
    let (managers, others) =
        reader.finish("connector", "identifier", |manager| (manager.identifier.as_str(), manager.line))?;
    Ok(Connectors { managers, others })
}

impl Reader<'_, Manager> {
    /// A document, or an item of a list: unwraps what stands around connectors.
    fn document(&mut self, node: &Node, depth: usize) {
        if node.is_null() {
            return;
        }
        if let Kind::Sequence(items) = &node.kind {
            items.iter().for_each(|item| self.document(item, depth + 1));
            return;
        }
        let Some(entries) = node.entries() else {
            return self.mistake(node.line, "a connector must be a mapping");
        };
        let inner = |name: &str| entries.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| *value);
        // Answers of the API: {status, data: {connector: ..., createdAt: ...}} or {data: {content: [{connector: ...}]}}.
        if depth < 8
            && inner("connector").is_none()
            && let Some(inner) = inner("data").or_else(|| inner("content")).or_else(|| inner("connectors"))
        {
            return self.document(inner, depth + 1);
        }
        match inner("connector") {
            Some(connector) if connector.entries().is_some() => {
                for (key, _) in &entries {
                    let name = key.text().unwrap_or_default();
                    if !BESIDE.contains(&name) {
                        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                        self.mistake(key.line, format!("unknown field {name:?}"));
                    }
                }
                self.connector(connector, inner("lictor"));
            }
            Some(_) => self.mistake(node.line, "connector must be a mapping"),
            None => self.connector(node, None),
        }
    }

    fn connector(&mut self, node: &Node, beside: Option<&Node>) {
        if self.found.len() >= MAX_CONNECTORS {
            return self.mistake(node.line, format!("more than {MAX_CONNECTORS} connectors"));
        }
        let before = self.mistakes.len();
        let mut connector = Fields::new(node, "");
        match connector.text("type").as_deref() {
            Some("AwsKms") => {}
            Some(kind) => {
                self.others.push((kind.chars().filter(|c| !c.is_control()).take(64).collect(), node.line));
                return;
            }
            None => return self.mistake(node.line, "type is not given: AwsKms"),
        }
        let (name, identifier) = (connector.text("name"), connector.text("identifier"));
        let (organisation, project) = (connector.text("orgIdentifier"), connector.text("projectIdentifier"));
        let description = connector.text("description").unwrap_or_default();
        let mut remarks = Vec::new();
        let tags = self.tags(&mut connector);
        // What the platform keeps for itself.
        for own in ["owner", "parentUniqueId", "accountIdentifier"] {
            connector.take(own);
        }
        let mut own = match connector.take("lictor").or(beside) {
            Some(section) => Fields::new(section, "lictor"),
            None => Fields::nothing("lictor"),
        };
        let harness_scope = scope_of(organisation.as_deref(), project.as_deref());
        let place = Place { organisation: organisation.unwrap_or_default(), own: harness_scope.clone() };
        let spec_node = connector.take("spec");
        if spec_node.is_none() {
            self.mistake(node.line, "there is no spec: it needs kmsArn and credential");
        }
        let mut spec = spec_node.map_or_else(|| Fields::nothing("spec"), |node| Fields::new(node, "spec"));
        let mut agent_tags = self.selectors(&mut spec, "spec");
        let key = self.key(&mut spec, spec_node.map_or(node.line, |spec| spec.line), &place, &mut remarks);
        let region = spec.text("region").unwrap_or_default();
        if spec.truth("default") == Some(true) {
            remarks.push("there is no default secret manager here: each secret names its own, --manager".to_owned());
        }
        if spec.truth("ignoreTestConnection") == Some(true) {
            remarks
                .push("ignoreTestConnection has no meaning here: nothing is tested unless you ask for it".to_owned());
        }
        let on_delegate = spec.truth("executeOnDelegate");
        let who = match spec.take("credential") {
            Some(credential) => self.credential(credential, &mut agent_tags, on_delegate, &place, &mut remarks),
            None => {
                if spec_node.is_some() {
                    self.mistake(spec.line(), "spec.credential is not given: its type and the fields of that");
                }
                None
            }
        };
        let identifier = own.text("identifier").or(identifier).or_else(|| name.clone());
        let scope = own.text("scope").unwrap_or(harness_scope);
        let (endpoint, sts_endpoint) =
            (own.text("endpoint").unwrap_or_default(), own.text("stsEndpoint").unwrap_or_default());
        self.check_fields([connector, spec, own]);
        let Some(identifier) = identifier.map(|text| known_name(&text)).filter(|text| !text.is_empty()) else {
            return self.mistake(node.line, "it has neither identifier nor name");
        };
        if identifier.len() > 64 {
            self.mistake(node.line, "its identifier is longer than 64 characters: give another by lictor.identifier");
        }
        if matches!(identifier.as_str(), "built-in" | "agent") {
            self.mistake(
                node.line,
                format!("{identifier} is a secret manager that is always there: give another by lictor.identifier"),
            );
        }
        self.check_scope(node.line, &scope);
        agent_tags.sort();
        agent_tags.dedup();
        for (field, text, most) in [
            ("name", name.as_deref().unwrap_or_default(), 128),
            ("description", description.as_str(), 500),
            ("spec.region", region.as_str(), 64),
            ("lictor.endpoint", endpoint.as_str(), 2048),
            ("lictor.stsEndpoint", sts_endpoint.as_str(), 2048),
        ] {
            self.check_text(node.line, field, text, most);
        }
        let (Some(key), Some(who)) = (key, who) else { return };
        if self.mistakes.len() > before {
            return;
        }
        let manager = Manager {
            line: node.line,
            identifier,
            name: name.unwrap_or_default(),
            description,
            tags,
            scope,
            agent_tags,
            key,
            region,
            endpoint,
            sts_endpoint,
            who,
            remarks,
        };
        self.found.push(manager);
    }

    fn tags(&mut self, connector: &mut Fields<'_>) -> BTreeMap<String, String> {
        let Some(node) = connector.take("tags").filter(|node| !node.is_null()) else { return BTreeMap::new() };
        let Some(entries) = node.entries() else {
            self.mistake(node.line, "tags must be a mapping");
            return BTreeMap::new();
        };
        let mut tags = BTreeMap::new();
        for (key, value) in entries {
            match (key.text(), value.text()) {
                (Some(key), Some(value))
                    if (1..=64).contains(&key.chars().count())
                        && value.chars().count() <= 128
                        && !key.contains(|c: char| c.is_control())
                        && !value.contains(|c: char| c.is_control()) =>
                {
                    tags.insert(key.to_owned(), value.to_owned());
                }
                _ => self.mistake(
                    key.line,
                    "a tag has a key of 1 to 64 characters and a text of at most 128, each one line",
                ),
            }
        }
        if tags.len() > MAX_TAGS {
            self.mistake(node.line, format!("more than {MAX_TAGS} tags"));
        }
        tags
    }

    /// Delegate selectors, which are tags of agents here.
    fn selectors(&mut self, fields: &mut Fields<'_>, path: &str) -> Vec<String> {
        let Some(node) = fields.take("delegateSelectors").filter(|node| !node.is_null()) else { return Vec::new() };
        let Kind::Sequence(items) = &node.kind else {
            self.mistake(node.line, format!("{path}.delegateSelectors must be a list"));
            return Vec::new();
        };
        let good = |text: &&str| (1..=128).contains(&text.chars().count()) && !text.contains(|c: char| c.is_control());
        let mut selectors = Vec::new();
        for item in items {
            match item.text().filter(good) {
                Some(text) if selectors.len() < MAX_SELECTORS => selectors.push(text.to_owned()),
                Some(_) => {
                    self.mistake(node.line, format!("{path}.delegateSelectors has more than {MAX_SELECTORS} of them"));
                    break;
                }
                None => self.mistake(item.line, format!("{path}.delegateSelectors must be names of one line")),
            }
        }
        selectors
    }

    /// The key: as it is, or the name of a secret with it.
    fn key(&mut self, spec: &mut Fields<'_>, line: usize, place: &Place, remarks: &mut Vec<String>) -> Option<Value> {
        let given = spec.has("kmsArn");
        let Some(text) = spec.text("kmsArn").filter(|text| !text.is_empty()) else {
            if !given {
                self.mistake(line, "spec.kmsArn is not given: the key's ARN, or the name of a secret with it");
            }
            return None;
        };
        if is_key(&text) {
            return Some(Value::Text(text));
        }
        match place.reference(&text, remarks) {
            Some(reference) => Some(Value::Secret(reference)),
            None => {
                self.mistake(line, "spec.kmsArn must be an ARN, or the name of a secret such as account.kms_arn");
                None
            }
        }
    }

    fn credential(
        &mut self,
        node: &Node,
        agent_tags: &mut Vec<String>,
        on_delegate: Option<bool>,
        place: &Place,
        remarks: &mut Vec<String>,
    ) -> Option<Who> {
        let mut credential = Fields::new(node, "spec.credential");
        let kind = credential.text("type");
        let mut fields = match credential.take("spec") {
            Some(spec) => Fields::new(spec, "spec.credential.spec"),
            None => Fields::rest_of(&mut credential),
        };
        agent_tags.extend(self.selectors(&mut fields, "spec.credential.spec"));
        let line = node.line;
        let is_oidc = matches!(kind.as_deref(), Some("OidcAuthentication" | "OIDC" | "Oidc"));
        let who = match kind.as_deref() {
            Some("ManualConfig") => self.access_key(&mut fields, line, place, remarks),
            Some("AssumeIAMRole") => Some(Who::MachineRole),
            Some("AssumeSTSRole") => self.assumed_role(&mut fields, line),
            Some(_) if is_oidc => self.oidc(&mut fields, line, on_delegate),
            _ => {
                self.mistake(
                    line,
                    "spec.credential.type must be ManualConfig, AssumeIAMRole, AssumeSTSRole or OidcAuthentication",
                );
                // Fields of a type that is not known are not known either.
                return None;
            }
        };
        if on_delegate == Some(false) && !is_oidc {
            remarks.push(
                "executeOnDelegate is false, and has no meaning here for this type of credential: an agent calls AWS"
                    .to_owned(),
            );
        }
        if matches!(who, Some(Who::MachineRole)) && agent_tags.is_empty() {
            remarks.push(
                "it has no delegate selectors: every agent of its scope is asked, whatever machine it runs on"
                    .to_owned(),
            );
        }
        self.check_fields([credential, fields]);
        who
    }

    fn access_key(
        &mut self,
        fields: &mut Fields<'_>,
        line: usize,
        place: &Place,
        remarks: &mut Vec<String>,
    ) -> Option<Who> {
        let id = match fields.text("accessKey").filter(|text| !text.is_empty()) {
            // These look like names of secrets, too.
            Some(text) if is_access_key_id(&text) => Some(Value::Text(text)),
            Some(text) => place.reference(&text, remarks).map(Value::Secret),
            None => None,
        };
        if id.is_none() {
            self.mistake(
                line,
                "accessKey must be the name of a secret, such as account.aws_access_key, or an access key id",
            );
        }
        let secret = fields.text("secretKey").filter(|text| !text.is_empty() && !is_secret_access_key(text));
        let secret = secret.and_then(|text| place.reference(&text, remarks));
        if secret.is_none() {
            self.mistake(
                line,
                "secretKey must be the name of a secret, such as account.aws_secret_key. A secret access key does not belong into a \
                 document: store it with `lictor secret put`, and put its name there",
            );
        }
        Some(Who::AccessKey { id: id?, secret: secret? })
    }

    fn assumed_role(&mut self, fields: &mut Fields<'_>, line: usize) -> Option<Who> {
        let role_arn = self.role(fields, &["roleArn"], line, "You must provide RoleARN if AssumeStsRole is selected");
        let external_id = fields.text("externalName").unwrap_or_default();
        self.check_text(line, "externalName", &external_id, 1224);
        let duration_sec = fields.number("assumeStsRoleDuration", 900..=43_200);
        Some(Who::AssumeRole { role_arn: role_arn?, external_id, duration_sec })
    }

    fn oidc(&mut self, fields: &mut Fields<'_>, line: usize, on_delegate: Option<bool>) -> Option<Who> {
        let names = ["iamRoleArn", "iamRole", "roleArn"];
        let role_arn = self.role(fields, &names, line, "iamRoleArn is not given");
        let given = fields.word("connectivity", &["Delegate", "Platform", "delegate", "platform", "agent"]);
        let duration_sec = fields.number("assumeStsRoleDuration", 900..=43_200);
        let by_platform = match given.as_deref() {
            Some(word) => word.eq_ignore_ascii_case("platform"),
            None => on_delegate == Some(false),
        };
        Some(Who::Oidc { role_arn: role_arn?, by_platform, duration_sec })
    }

    /// The ARN of a role, under one of some names.
    fn role(&mut self, fields: &mut Fields<'_>, names: &[&str], line: usize, missing: &str) -> Option<String> {
        let given = names.iter().any(|name| fields.has(name));
        let mut role = None;
        for name in names {
            role = role.or(fields.text(name).filter(|text| !text.is_empty()));
        }
        let Some(role) = role else {
            // What is there and no text was told.
            self.mistake(line, if given { "the ARN of the role is empty" } else { missing });
            return None;
        };
        if role.starts_with("arn:") && role.len() <= 2048 && !role.contains(|c: char| c.is_control() || c == ' ') {
            return Some(role);
        }
        self.mistake(line, "the role must be an ARN such as arn:aws:iam::111122223333:role/lictor");
        None
    }
}

/// Where a connector stands in Harness: what names of secrets are relative to.
struct Place {
    organisation: String,
    own: String,
}

impl Place {
    /// The secret of a name. Nothing for what is no name.
    fn reference(&self, text: &str, remarks: &mut Vec<String>) -> Option<Reference> {
        let name = reference_name(text)?;
        let prefix = |prefix: &str| text.contains(&format!("{prefix}.{name}"));
        let scope = match (prefix("account"), prefix("org")) {
            (true, _) => String::new(),
            (false, true) => self.organisation.clone(),
            (false, false) => self.own.clone(),
        };
        let identifier = known_name(name);
        if identifier != name {
            remarks.push(format!("the secret {name} is called {identifier} here, where identifiers have no $"));
        }
        (identifier.len() <= 64).then_some(Reference { identifier, scope })
    }
}

/// A key of KMS by itself, in a form that no name of a secret has.
fn is_key(text: &str) -> bool {
    let plain = text.len() <= 2048 && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_id = |id: &str| {
        id.len() == 36
            && id.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    };
    plain && (text.starts_with("arn:") || text.starts_with("alias/") || text.starts_with("mrk-") || is_id(text))
}

/// The id of an access key, which is no secret.
fn is_access_key_id(text: &str) -> bool {
    text.len() == 20
        && (text.starts_with("AKIA") || text.starts_with("ASIA"))
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// What may be a secret access key, though a name could be written like that.
fn is_secret_access_key(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+".contains(&byte))
}

/// What the API adds beside the entity, and our own section.
const BESIDE: &[&str] = &[
    "connector",
    "lictor",
    "createdAt",
    "lastModifiedAt",
    "status",
    "activityDetails",
    "harnessManaged",
    "gitDetails",
    "entityValidityDetails",
    "governanceMetadata",
    "isFavorite",
    "favorite",
    "parentEntityReference",
];

/// Bounds for what one text may hold.
const MAX_CONNECTORS: usize = 1_000;
const MAX_SELECTORS: usize = 32;
const MAX_TAGS: usize = 32;

#[cfg(test)]
mod tests;
