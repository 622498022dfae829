//! Settings under the names that a Harness delegate has for them, so that the environment of an existing `delegate.yaml` goes
//! on working. Each counts only where the agent's own setting is not given; what has no meaning here is named with a reason.
//!
//! Shows no value of a variable, but in what is told of a setting that is no secret. Called by the loader.

mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lictor_proto::token::JoinToken;
use lictor_settings::Reader;
use serde::Serialize;
use zeroize::Zeroizing;

use super::proxy::Foreign;
use super::{JOIN_TOKEN_VARIABLE, MAX_DESCRIPTION_CHARACTERS, default_ca_directories, is_link_of_a_service};
#[cfg(test)]
use names::Name;
use names::{Meaning, NAMES};

/// What was found in the environment.
#[derive(Default)]
pub(super) struct Delegate {
    /// By the first name of each, with the name that was used.
    given: BTreeMap<&'static str, (&'static str, Zeroizing<String>)>,
    unknown: BTreeSet<String>,
    in_pod: bool,
    told: Told,
    /// About proxies, also under the names that many programs share.
    pub(super) proxy: Foreign,
}

/// What is told of the delegate's names, once at start and by `check-config`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Variables that do nothing, and why.
    pub ignored: Vec<Ignored>,
    /// What was understood otherwise than it stands there.
    pub remarks: Vec<String>,
}

/// A variable that does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Delegate {
    /// Takes a variable that is meant for here.
    pub(super) fn takes(&mut self, name: &str, value: &str) -> bool {
        // Foreign names are shared with other programs, so what they say is not told of.
        let of_proxy = self.proxy.takes(name, value);
        if name == "KUBERNETES_SERVICE_HOST" {
            self.in_pod = true;
        }
        let known = NAMES.iter().find_map(|known| match known.alias {
            _ if known.name == name => Some((known.name, known.name)),
            Some(alias) if alias == name => Some((known.name, alias)),
            _ => None,
        });
        let value = value.trim();
        match known {
            // A manifest lists what it does not use, with an empty value.
            _ if value.is_empty() => {}
            Some((first, used)) => self.take(first, used, value),
            None if (name.starts_with("DELEGATE_") || name.starts_with("HARNESS_"))
                && !is_link_of_a_service(name)
                && self.unknown.len() < MAX_UNKNOWN =>
            {
                self.unknown.insert(name.chars().take(MAX_NAME).collect());
            }
            None => {}
        }
        of_proxy || known.is_some()
    }

    fn take(&mut self, first: &'static str, used: &'static str, value: &str) {
        let value = Zeroizing::new(value.to_owned());
        let Some((other, earlier)) = self.given.get(first) else {
            self.given.insert(first, (used, value));
            return;
        };
        if *earlier != value {
            let alias = if *other == first { used } else { other };
            self.told.remarks.push(format!("{first} and {alias} differ; {first} counts"));
        }
        if used == first {
            self.given.insert(first, (used, value));
        }
    }

    fn value(&self, name: &'static str) -> Option<(&'static str, &str)> {
        self.given.get(name).map(|(used, value)| (*used, value.as_str()))
    }

    /// Sets what is not set, and says what does nothing. The join token, when the environment has one under these names and
    /// nothing else gives one.
    pub(super) fn apply(
        &mut self,
        reader: &mut Reader,
        host_name: Option<&str>,
        has_token: bool,
    ) -> Option<(JoinToken, &'static str)> {
        self.apply_early(reader);
        self.control_plane(reader);
        self.name_and_tags(reader, host_name);
        self.description(reader);
        self.scope(reader);
        self.admission(reader);
        self.authorities(reader);
        if let Some((used, value)) = self.value("DELEGATE_TASK_CAPACITY") {
            let value = value.to_owned();
            self.set(reader, "slots", used, &value);
        }
        if let Some((used, true)) = self.flag(reader, "POLL_FOR_TASKS") {
            self.set(reader, "transport", used, "poll");
        }
        if self.proxy.switched_off() {
            self.ignore("PROXY_HOST", "PROXY_MANAGER is false, and only the control plane is reached through a proxy");
        }
        self.meaningless();
        self.token(reader, has_token)
    }

    /// The part of [`Delegate::apply`] that counts before INIT_SCRIPT has run: where to log and keep things.
    pub(super) fn apply_early(&mut self, reader: &mut Reader) {
        if let Some((used, level)) = self.value("LOGGING_LEVEL") {
            let level = level.to_ascii_lowercase();
            if matches!(level.as_str(), "error" | "warn" | "info" | "debug" | "trace") {
                self.set(reader, "log.level", used, &level);
            } else {
                self.ignore(used, "it is no level that the agent has: error, warn, info, debug or trace");
            }
        }
        if let Some((used, directory)) = self.value("HARNESS_WORKDIR") {
            let directory = Path::new(directory).join("lictor-agent").to_string_lossy().into_owned();
            self.set(reader, "state_dir", used, &directory);
        }
    }

    /// Where to listen, when nothing says so. Apart from the others, because it is a default of the surroundings and no setting
    /// that somebody made.
    pub(super) fn listen(&self, reader: &mut Reader) {
        // INIT_SCRIPT is none of these: who asks for the settings has it, and who reads them to run no longer.
        let unmistakable = |used: &str| {
            let ours = used.starts_with("DELEGATE_") || used.starts_with("HARNESS_") || used == "MANAGER_HOST_AND_PORT";
            ours && !used.contains("INIT_SCRIPT")
        };
        if self.in_pod() && self.given.values().any(|(used, _)| unmistakable(used)) {
            // The kubelet asks for `/api/health` at the pod's address.
            reader.set_default("http_listen", "0.0.0.0:3460", "the delegate's environment in a pod");
        }
    }

    fn in_pod(&self) -> bool {
        self.in_pod
            || self.value("DELEGATE_TYPE").is_some_and(|(_, kind)| matches!(kind, "KUBERNETES" | "HELM_DELEGATE"))
    }

    /// What is to be told, in the end.
    pub(super) fn into_told(self) -> Told {
        self.told
    }

    /// Sets the setting unless it is set, and tells when it is.
    fn set(&mut self, reader: &mut Reader, key: &str, variable: &'static str, value: &str) {
        if !reader.set_default(key, value, variable) {
            let reason = format!("`{key}` is set, and goes before it");
            self.ignore(variable, &reason);
        }
    }

    fn ignore(&mut self, name: &str, reason: &str) {
        self.told.ignored.push(Ignored { name: name.to_owned(), reason: reason.to_owned() });
    }

    fn flag(&self, reader: &mut Reader, name: &'static str) -> Option<(&'static str, bool)> {
        let (used, value) = self.value(name)?;
        match parse_flag(value) {
            Some(flag) => Some((used, flag)),
            None => {
                reader.mistake(used, "must be true or false");
                None
            }
        }
    }

    fn control_plane(&mut self, reader: &mut Reader) {
        let Some((used, value)) = self.value("MANAGER_HOST_AND_PORT") else { return };
        let with_scheme = if value.contains("://") { value.to_owned() } else { format!("https://{value}") };
        let end = with_scheme.find("://").map_or(0, |at| at + 3);
        let (address, path) = match with_scheme[end..].find(['/', '?', '#']) {
            Some(at) => with_scheme.split_at(end + at),
            None => (with_scheme.as_str(), ""),
        };
        let host = address[end..].split(':').next().unwrap_or_default().to_ascii_lowercase();
        if reader.is_set("control_plane") {
            self.set(reader, "control_plane", used, "");
        } else if host == "harness.io" || host.ends_with(".harness.io") {
            reader
                .mistake(used, "is the address of Harness's platform; put that of your own control plane in its place");
            // One mistake is enough: what is missing is said already.
            reader.set_default("control_plane", "https://control-plane.invalid", used);
        } else {
            if !matches!(path, "" | "/") {
                self.told.remarks.push(format!("{used}: its path means nothing here and is cut off; {address} counts"));
            }
            let address = address.to_owned();
            self.set(reader, "control_plane", used, &address);
        }
    }

    fn name_and_tags(&mut self, reader: &mut Reader, host_name: Option<&str>) {
        let in_pod = self.in_pod();
        let mut tags: Vec<String> = Vec::new();
        let mut tag_names: Vec<&'static str> = Vec::new();
        if let Some((used, list)) = self.value("DELEGATE_TAGS") {
            let all = list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned);
            let (good, bad): (Vec<String>, Vec<String>) = all.partition(|tag| is_tag(tag));
            for tag in bad {
                let shown: String = tag.chars().take(MAX_NAME).collect();
                self.told.remarks.push(format!("{used}: {shown:?} is left out; a tag has letters, digits and -_.:/=@"));
            }
            tags = good;
            tag_names.push(used);
        }
        if let Some((used, name)) = self.value("DELEGATE_NAME") {
            if is_tag(name) && !tags.iter().any(|tag| tag == name) {
                tags.push(name.to_owned());
                tag_names.push(used);
            }
            // Pods of a Deployment are called after it, and so usually after the delegate.
            let full = match host_name {
                Some(host) if in_pod && (host == name || host.starts_with(&format!("{name}-"))) => host.to_owned(),
                Some(host) if in_pod => format!("{name}-{host}"),
                _ => name.to_owned(),
            };
            self.set(reader, "name", used, &full);
        }
        if !tags.is_empty()
            && !reader.set_list("tags", &tags, &tag_names.join(", "))
            && let Some((used, _)) = self.value("DELEGATE_TAGS")
        {
            self.ignore(used, "`tags` is set, and goes before it");
        }
    }

    fn description(&mut self, reader: &mut Reader) {
        let Some((used, text)) = self.value("DELEGATE_DESCRIPTION") else { return };
        // A manifest may have it over several lines; the control plane takes one.
        let line: Vec<&str> = text.split(|c: char| c.is_control()).map(str::trim).filter(|t| !t.is_empty()).collect();
        let line = line.join(" ");
        let short: String = line.chars().take(MAX_DESCRIPTION_CHARACTERS).collect();
        if short.len() < line.len() {
            self.told.remarks.push(format!("{used}: is cut to {MAX_DESCRIPTION_CHARACTERS} characters"));
        }
        self.set(reader, "description", used, &short);
    }

    fn scope(&mut self, reader: &mut Reader) {
        let organisation = self.value("DELEGATE_ORG_IDENTIFIER").map(|(used, value)| (used, value.to_owned()));
        let project = self.value("DELEGATE_PROJECT_IDENTIFIER").map(|(used, value)| (used, value.to_owned()));
        match (organisation, project) {
            (Some((_, organisation)), Some((_, project))) => {
                let scope = format!("{organisation}/{project}");
                if !reader.set_default("scope", &scope, "DELEGATE_ORG_IDENTIFIER, DELEGATE_PROJECT_IDENTIFIER") {
                    self.ignore("DELEGATE_ORG_IDENTIFIER", "`scope` is set, and goes before it");
                    self.ignore("DELEGATE_PROJECT_IDENTIFIER", "`scope` is set, and goes before it");
                }
            }
            (Some((used, organisation)), None) => self.set(reader, "scope", used, &organisation),
            (None, Some((used, _))) => self.ignore(used, "a project without DELEGATE_ORG_IDENTIFIER says no scope"),
            (None, None) => {}
        }
    }

    fn admission(&mut self, reader: &mut Reader) {
        let handling = self.flag(reader, "DYNAMIC_REQUEST_HANDLING");
        let settings = [
            ("admission.memory_percent", ["MEMORY_USAGE_THRESHOLD", "DELEGATE_RESOURCE_THRESHOLD"]),
            ("admission.cpu_percent", ["CPU_USAGE_THRESHOLD", "DELEGATE_CPU_THRESHOLD"]),
        ];
        for (key, names) in settings {
            let given: Vec<(&'static str, String)> = names
                .iter()
                .filter_map(|name| self.value(name))
                .map(|(used, value)| (used, value.to_owned()))
                .collect();
            match handling {
                Some((switch, true)) => match given.first() {
                    Some((used, value)) => {
                        // It is a share, whether or not it is written with its sign.
                        self.set(reader, key, used, value.trim_end_matches('%'));
                        for (shadowed, other) in given.iter().skip(1) {
                            if other != value {
                                self.ignore(shadowed, &format!("{used} goes before it"));
                            }
                        }
                    }
                    None => {
                        reader.set_default(key, DELEGATE_THRESHOLD, switch);
                    }
                },
                Some((_, false)) | None => {
                    for (used, _) in given {
                        self.ignore(used, "it only counts with DYNAMIC_REQUEST_HANDLING=true");
                    }
                }
            }
        }
    }

    fn authorities(&mut self, reader: &mut Reader) {
        let (mut paths, mut used_names) = (Vec::new(), Vec::new());
        for name in ["ADDITIONAL_CERTS_PATH", "SHARED_CA_CERTS_PATH"] {
            let Some((used, list)) = self.value(name) else { continue };
            let list: Vec<String> =
                list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
            used_names.push(used);
            for path in list {
                if !Path::new(&path).exists() {
                    // The manifests of Harness name it whether or not the volume is there.
                    self.told.remarks.push(format!("{used}: {path:?} is not there, and is passed over"));
                } else if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        if !used_names.is_empty() && reader.is_set("ca_files") {
            for used in used_names {
                self.ignore(used, "`ca_files` is set, and goes before it");
            }
        } else if !paths.is_empty() {
            for directory in default_ca_directories() {
                if !paths.iter().any(|path| path.starts_with(directory)) {
                    paths.push(directory.to_owned());
                }
            }
            reader.set_list("ca_files", &paths, &used_names.join(", "));
        }
    }

    fn meaningless(&mut self) {
        let nothing = |name: &'static str| {
            NAMES.iter().find_map(|known| match known.meaning {
                Meaning::Nothing(reason) if known.name == name => Some(reason),
                _ => None,
            })
        };
        let found: Vec<(&'static str, &'static str)> =
            self.given.iter().filter_map(|(first, (used, _))| nothing(first).map(|reason| (*used, reason))).collect();
        for (used, reason) in found {
            self.ignore(used, reason);
        }
        for name in std::mem::take(&mut self.unknown) {
            self.ignore(&name, "it is no name of a delegate that is known here");
        }
        if self.value("TRUST_ALL_CERTIFICATES").and_then(|(_, value)| parse_flag(value)) == Some(true) {
            self.told.remarks.push(
                "TRUST_ALL_CERTIFICATES: certificates are checked all the same; use ca_files, or --skip-cert-check of a credential"
                    .to_owned(),
            );
        }
    }

    fn token(&mut self, reader: &mut Reader, has_token: bool) -> Option<(JoinToken, &'static str)> {
        let (used, text) = self.value("DELEGATE_TOKEN")?;
        if has_token || reader.is_set("join_token_file") {
            let own = if has_token { JOIN_TOKEN_VARIABLE } else { "`join_token_file`" };
            self.ignore(used, &format!("{own} is set, and goes before it"));
            return None;
        }
        match text.parse() {
            Ok(token) => Some((token, used)),
            Err(error) => {
                let text = format!(
                    "{error}. A token of Harness is of no use here: make one with `lictor token create --max-uses 0`, which any \
                     number of agents can use until it is revoked, and put it in its place"
                );
                reader.mistake(used, &text);
                None
            }
        }
    }
}

/// The one name of a variable that is meant for here under a name of others: a delegate's, or a proxy's, which many programs
/// write in small letters too. Nothing: it means nothing here.
pub(crate) fn foreign_name(name: &str) -> Option<&'static str> {
    let proxy = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].into_iter().find(|known| name.eq_ignore_ascii_case(known));
    let small = (name == "no_proxy").then_some("NO_PROXY");
    let known = NAMES.iter().find(|known| known.name == name || known.alias == Some(name)).map(|known| known.name);
    proxy.or(small).or(known)
}

/// First names of all variables that do something.
#[cfg(test)]
pub(super) fn names_that_work() -> Vec<&'static str> {
    NAMES.iter().filter(|name| matches!(name.meaning, Meaning::Works(_))).map(|name| name.name).collect()
}

/// What the control plane takes as a tag.
fn is_tag(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.:/=@".contains(c);
    (1..=128).contains(&text.chars().count()) && text.chars().all(allowed)
}

/// As the delegate reads them.
pub(super) fn parse_flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// What the delegate takes when dynamic handling is on and no threshold is given.
const DELEGATE_THRESHOLD: &str = "80";
/// Bounds on names that nobody knows.
const MAX_UNKNOWN: usize = 50;
const MAX_NAME: usize = 100;
