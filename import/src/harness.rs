//! WinRM credentials of Harness as documents: one, a list of them, or several YAML documents; as the entity, as answers of its
//! API, or just the fields.
//!
//! Fields that are not known are mistakes with their line, and all mistakes of a text are told at once. A password is a
//! reference here, as Harness has it: what looks like a password itself is refused, and never repeated.

pub mod connector;
mod fields;
mod reader;

use std::sync::Arc;

use fields::Fields;
use reader::{Reader, scope_of};

use crate::Mistake;
use crate::yaml::{Kind, Node};

/// What a text holds.
#[derive(Debug, Default)]
pub struct Read {
    /// WinRM credentials, in their order.
    pub credentials: Vec<Credential>,
    /// Secrets of other types, which were passed over: type and line.
    pub others: Vec<(String, usize)>,
}

/// A credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Where it begins.
    pub line: usize,
    /// Name: the identifier, or else the name, in characters that names have here.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Where it may be used: organisation and project.
    pub scope: String,
    /// How to authenticate.
    pub auth: Auth,
    /// Who: a bare name, `user@REALM` for Kerberos, or what the document says.
    pub username: String,
    /// Domain, where the user name does not hold it.
    pub domain: String,
    /// Realm for Kerberos.
    pub realm: String,
    /// What proves it.
    pub secret: Wanted,
    /// HTTPS.
    pub use_ssl: bool,
    /// TCP port.
    pub port: u16,
    /// The certificate is not checked.
    pub skip_cert_checks: bool,
    /// Without the user's profile.
    pub use_no_profile: bool,
    /// What only Lictor knows.
    pub own: Own,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// Ways to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// NTLM.
    Ntlm,
    /// Kerberos.
    Kerberos,
    /// HTTP Basic; not in Harness.
    Basic,
    /// Kerberos, else NTLM; not in Harness.
    Negotiate,
}

/// What proves who the user is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A password, of which only a name is known.
    Password {
        /// As it stands in the document, such as `account.my_secret`.
        reference: String,
    },
    /// A keytab on agents.
    KeytabOnAgent {
        /// Its path.
        path: String,
    },
    /// A ticket that somebody else gets.
    CacheOnAgent,
}

/// The section `lictor`: what Harness does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// URL path.
    pub path: Option<String>,
    /// `auto`, `always` or `never`.
    pub message_encryption: Option<String>,
    /// Send channel bindings.
    pub send_cbt: Option<bool>,
    /// Allow Basic over plain http.
    pub allow_basic_over_http: Option<bool>,
    /// File with authorities for the hosts' certificates.
    pub host_ca_file: Option<String>,
    /// Service of the hosts' principals.
    pub spn_service: Option<String>,
    /// Host of the hosts' principals.
    pub spn_host: Option<String>,
    /// Forward a ticket.
    pub delegate: Option<bool>,
    /// New tickets each time.
    pub fresh_tickets: Option<bool>,
}

/// Reads a text. All mistakes at once.
pub fn read(file: &Arc<str>, text: &str) -> Result<Read, Vec<Mistake>> {
    let mut reader = Reader::<Credential>::new(file);
    for document in &reader.documents(text)? {
        reader.document(document, 0);
    }
    let (credentials, others) =
        reader.finish("credential", "name", |credential| (credential.name.as_str(), credential.line))?;
    Ok(Read { credentials, others })
}

impl Reader<'_, Credential> {
    /// A document, or an item of a list: unwraps what stands around credentials.
    fn document(&mut self, node: &Node, depth: usize) {
        if node.is_null() {
            return;
        }
        if let Kind::Sequence(items) = &node.kind {
            items.iter().for_each(|item| self.document(item, depth + 1));
            return;
        }
        let Some(entries) = node.entries() else {
            return self.mistake(node.line, "a credential must be a mapping");
        };
        let inner = |name: &str| entries.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| *value);
        // Answers of the API: {status, data: {secret: ..., createdAt: ...}} or {data: {content: [{secret: ...}]}}.
        if depth < 8
            && let Some(inner) = inner("data").or_else(|| inner("content")).or_else(|| inner("credentials"))
        {
            return self.document(inner, depth + 1);
        }
        match inner("secret") {
            Some(secret) if secret.entries().is_some() => {
                for (key, _) in &entries {
                    // What the API adds, and our own section beside the entity.
                    let name = key.text().unwrap_or_default();
                    if !matches!(name, "secret" | "lictor" | "createdAt" | "updatedAt" | "draft" | "governanceMetadata")
                    {
                        self.mistake(key.line, format!("unknown field {name:?}"));
                    }
                }
                self.credential(secret, inner("lictor"));
            }
            _ => self.credential(node, None),
        }
    }

    fn credential(&mut self, node: &Node, beside: Option<&Node>) {
        if self.found.len() >= MAX_CREDENTIALS {
            return self.mistake(node.line, format!("more than {MAX_CREDENTIALS} credentials"));
        }
        let before = self.mistakes.len();
        let mut secret = Fields::new(node, "");
        let kind = secret.text("type");
        if let Some(kind) = kind.as_deref().filter(|kind| *kind != "WinRmCredentials") {
            self.others.push((kind.chars().take(64).collect(), node.line));
            return;
        }
        let (name, identifier) = (secret.text("name"), secret.text("identifier"));
        let (organisation, project) = (secret.text("orgIdentifier"), secret.text("projectIdentifier"));
        let description = secret.text("description").unwrap_or_default();
        let mut remarks = Vec::new();
        if secret.take("tags").is_some_and(|tags| tags.entries().is_none_or(|tags| !tags.is_empty()) && !tags.is_null())
        {
            remarks.push("tags have no meaning here: credentials have scopes".to_owned());
        }
        // What the platform keeps for itself.
        for own in ["owner", "parentUniqueId", "accountIdentifier"] {
            secret.take(own);
        }
        let mut own_section = match secret.take("lictor").or(beside) {
            Some(section) => Fields::new(section, "lictor"),
            None => Fields::nothing("lictor"),
        };
        let mut spec = match secret.take("spec") {
            Some(spec) => Fields::new(spec, "spec"),
            // Just the fields, without a spec around them.
            None => {
                let mut flat = Fields::nothing("");
                for field in ["port", "parameters", "auth"] {
                    flat.give(field, secret.take(field));
                }
                flat
            }
        };
        let port = spec.number("port", 1..=65_535).and_then(|port| u16::try_from(port).ok());
        self.parameters(&mut spec, &mut remarks);
        let auth_node = spec.take("auth");
        if auth_node.is_none() {
            self.mistake(node.line, "there is no auth: it needs type NTLM or Kerberos, and the fields of that");
        }
        let mut auth = auth_node.map_or_else(|| Fields::nothing("auth"), |node| Fields::new(node, "auth"));
        let kind = self.auth_kind(&mut auth, auth_node.is_some());
        // The fields stand in a spec, or beside the type.
        let inner = if auth.has("principal") { None } else { auth.take("spec") };
        let mut fields = match inner {
            Some(inner) => Fields::new(inner, "auth.spec"),
            None => Fields::rest_of(&mut auth),
        };
        let use_ssl = fields.truth("useSSL");
        let skip_cert_checks = fields.truth("skipCertChecks").unwrap_or(false);
        let use_no_profile = fields.truth("useNoProfile").unwrap_or(false);
        let ssl = use_ssl.unwrap_or_else(|| {
            let ssl = port != Some(5985);
            remarks.push(format!("useSSL is not given: taken as {ssl}"));
            ssl
        });
        let port = port.unwrap_or(if ssl { 5986 } else { 5985 });
        if ssl != (port == 5986) && matches!(port, 5985 | 5986) {
            remarks.push(format!("port {port} is not the usual one {} SSL", if ssl { "with" } else { "without" }));
        }
        let who = match kind {
            Some(Auth::Kerberos) => self.kerberos(&mut fields, node.line, &mut remarks),
            Some(_) => self.user(&mut fields, node.line),
            None => None,
        };
        let realm = own_section.text("realm").unwrap_or_default();
        let name = own_section.text("name").or(identifier).or(name);
        let scope = own_section.text("scope");
        let scope = scope.unwrap_or_else(|| scope_of(organisation.as_deref(), project.as_deref()));
        let own = Own {
            path: own_section.text("path"),
            message_encryption: own_section.word("messageEncryption", &["auto", "always", "never"]),
            send_cbt: own_section.truth("sendCbt"),
            allow_basic_over_http: own_section.truth("allowBasicOverHttp"),
            host_ca_file: own_section.text("hostCaFile"),
            spn_service: own_section.text("spnService"),
            spn_host: own_section.text("spnHost"),
            delegate: own_section.truth("delegate"),
            fresh_tickets: own_section.truth("freshTickets"),
        };
        let Some(name) = name.map(|name| known_name(&name)).filter(|name| !name.is_empty()) else {
            self.mistake(node.line, "it has neither identifier nor name");
            return;
        };
        if name.len() > 64 {
            self.mistake(node.line, "its name is longer than 64 characters: give another by lictor.name");
        }
        self.check_scope(node.line, &scope);
        if description.chars().count() > 500 || description.contains(|c: char| c.is_control()) {
            self.mistake(node.line, "description must be one line of at most 500 characters");
        }
        self.check_fields([secret, spec, auth, fields, own_section]);
        let (Some(kind), Some(who)) = (kind, who) else { return };
        if kind == Auth::Basic && !ssl && own.allow_basic_over_http != Some(true) {
            remarks.push("Basic over http is refused by agents unless lictor.allowBasicOverHttp says true".to_owned());
        }
        if self.mistakes.len() > before {
            return;
        }
        self.found.push(Credential {
            line: node.line,
            name,
            description,
            scope,
            auth: kind,
            username: who.username,
            domain: who.domain,
            realm: if who.realm.is_empty() { realm } else { who.realm },
            secret: who.secret,
            use_ssl: ssl,
            port,
            skip_cert_checks,
            use_no_profile,
            own,
            remarks,
        });
    }

    fn auth_kind(&mut self, auth: &mut Fields<'_>, is_there: bool) -> Option<Auth> {
        let line = auth.line();
        match auth.text("type").as_deref() {
            Some("NTLM") => Some(Auth::Ntlm),
            Some("Kerberos") => Some(Auth::Kerberos),
            Some("Basic") => Some(Auth::Basic),
            Some("Negotiate") => Some(Auth::Negotiate),
            _ if !is_there => None,
            Some(_) => {
                self.mistake(
                    line,
                    "auth.type must be NTLM or Kerberos (or Basic or Negotiate, which Harness does not have)",
                );
                None
            }
            None => {
                self.mistake(line, "auth.type is not given: NTLM or Kerberos");
                None
            }
        }
    }

    /// `parameters` mean something to the library that a delegate uses, and nothing here.
    fn parameters(&mut self, spec: &mut Fields<'_>, remarks: &mut Vec<String>) {
        let Some(node) = spec.take("parameters").filter(|node| !node.is_null()) else { return };
        let Kind::Sequence(items) = &node.kind else {
            return self.mistake(node.line, "parameters must be a list of {parameter, value}");
        };
        for item in items {
            let mut fields = Fields::new(item, "parameters");
            let name = fields.text("parameter");
            fields.take("value");
            self.check_fields([fields]);
            match name {
                // A value may be a secret, and a name is bounded before it is shown.
                Some(name) => {
                    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                    remarks.push(format!("the parameter {name:?} has no meaning here and is passed over"));
                }
                None => self.mistake(item.line, "a parameter without its name"),
            }
        }
    }

    fn user(&mut self, fields: &mut Fields<'_>, line: usize) -> Option<Who> {
        let mut domain = fields.text("domain").unwrap_or_default();
        let given = fields.has("username");
        let username = fields.text("username").filter(|name| !name.is_empty());
        let reference = self.reference(fields, "password");
        let Some(username) = username else {
            if given {
                return None;
            }
            self.mistake(line, "auth.spec.username is not given (Username or domain cannot be null)");
            return None;
        };
        let held = match (username.split_once('\\'), username.split_once('@')) {
            (Some((held, _)), _) | (None, Some((_, held))) => Some(held),
            (None, None) => None,
        };
        if let Some(held) = held {
            if !domain.is_empty() && !domain.eq_ignore_ascii_case(held) {
                self.mistake(line, "the user name holds a domain, and auth.spec.domain is another");
            }
            domain = String::new();
        }
        self.check_text(line, "username", &username, 256);
        self.check_text(line, "domain", &domain, 255);
        Some(Who { username, domain, realm: String::new(), secret: Wanted::Password { reference: reference? } })
    }

    fn kerberos(&mut self, fields: &mut Fields<'_>, line: usize, remarks: &mut Vec<String>) -> Option<Who> {
        let given = fields.has("principal");
        let principal = fields.text("principal").filter(|principal| !principal.is_empty());
        let realm = fields.text("realm").unwrap_or_default();
        let method = fields.text("tgtGenerationMethod");
        let spec = fields.take("spec").filter(|spec| !spec.is_null());
        let mut inner = match spec {
            Some(spec) => Fields::new(spec, "auth.spec.spec"),
            // Or beside the method.
            None => {
                let mut flat = Fields::nothing("auth.spec");
                for field in ["keyPath", "password"] {
                    flat.give(field, fields.take(field));
                }
                flat
            }
        };
        let secret = match method.as_deref() {
            Some("KeyTabFilePath") => {
                let path = inner.text("keyPath").unwrap_or_default();
                if path.starts_with('/') && path.len() <= 1024 && !path.contains(|c: char| c.is_control()) {
                    remarks.push(format!(
                        "the keytab stays where it is, on the agents: {path} must be one of their kerberos.keytabs"
                    ));
                    Some(Wanted::KeytabOnAgent { path })
                } else {
                    self.mistake(line, "keyPath must be an absolute path (Invalid keytab file path)");
                    None
                }
            }
            Some("Password") => self.reference(&mut inner, "password").map(|reference| Wanted::Password { reference }),
            None | Some("None" | "none" | "") => {
                remarks.push(
                    "no ticket is got for it: one must be in the agent's default credential cache, put there by kinit, as an \
                     INIT_SCRIPT does"
                        .to_owned(),
                );
                Some(Wanted::CacheOnAgent)
            }
            Some(_) => {
                self.mistake(line, "tgtGenerationMethod must be KeyTabFilePath, Password or None");
                None
            }
        };
        self.check_fields([inner]);
        let Some(principal) = principal else {
            if given {
                return None;
            }
            self.mistake(line, "auth.spec.principal is not given");
            return None;
        };
        let username = match principal.split_once('@') {
            Some((_, held)) if !realm.is_empty() && held != realm => {
                self.mistake(line, "the principal holds a realm, and auth.spec.realm is another");
                return None;
            }
            Some(_) => principal,
            None if realm.is_empty() => {
                remarks.push("no realm is given: the agent's default realm counts".to_owned());
                principal
            }
            None => format!("{principal}@{realm}"),
        };
        if realm.chars().any(|c| c.is_lowercase()) {
            remarks.push(
                "the realm is not in capitals; realms are case-sensitive, and in capitals in Active Directory"
                    .to_owned(),
            );
        }
        if realm.len() > 255 || realm.contains(['@', '/', '\\', '"', ' ']) || realm.contains(|c: char| c.is_control()) {
            self.mistake(line, "auth.spec.realm is no realm, such as CORP.EXAMPLE");
        }
        self.check_text(line, "principal", &username, 256);
        Some(Who { username, domain: String::new(), realm, secret: secret? })
    }

    /// A password's name. Whatever does not look like a name may be the password itself.
    fn reference(&mut self, fields: &mut Fields<'_>, field: &str) -> Option<String> {
        let (line, given) = (fields.line(), fields.has(field));
        match fields.text(field).filter(|reference| !reference.is_empty()) {
            Some(reference) => match reference_name(&reference) {
                Some(_) => Some(reference),
                None => {
                    self.mistake(
                        line,
                        "password must be the name of a secret, such as account.my_secret; what stands there looks like a password, \
                         and a password does not belong into a document: put it into a file, a name in its place, and give \
                         --password-file NAME=FILE",
                    );
                    None
                }
            },
            None if given => None,
            None => {
                self.mistake(line, format!("{field} is not given: the name of a secret, such as account.my_secret"));
                None
            }
        }
    }
}

struct Who {
    username: String,
    domain: String,
    realm: String,
    secret: Wanted,
}

/// The bare name of a secret: `my_secret` for `account.my_secret`, `org.my_secret`, `<+secrets.getValue("my_secret")>`. Nothing
/// for what is no reference.
pub fn reference_name(reference: &str) -> Option<&str> {
    let inner = match reference.strip_prefix("<+secrets.getValue(").and_then(|rest| rest.strip_suffix(")>")) {
        Some(quoted) => {
            let inner = quoted.trim();
            let unquoted = |quote: char| inner.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
            unquoted('"').or_else(|| unquoted('\''))?
        }
        None => reference,
    };
    let name = inner.strip_prefix("account.").or_else(|| inner.strip_prefix("org.")).unwrap_or(inner);
    let good = name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$');
    good.then_some(name)
}

/// A name in the characters that names of credentials have here.
fn known_name(name: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.trim().chars().map(known).collect()
}

/// Bound for what one text may hold.
const MAX_CREDENTIALS: usize = 10_000;

#[cfg(test)]
mod tests;
