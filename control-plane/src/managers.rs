//! The rules of secret managers: what one authenticates with is kept in the built-in store, and nowhere else.
//!
//! A manager whose keys another manager keeps would depend on that one, and one that keeps its own could never be opened. Pure: the engine
//! looks up what a check begins with, and refuses what breaks a rule with the whole chain. Knows no value.

use std::collections::{BTreeMap, BTreeSet};

use lictor_proto::v1::{AwsKms, SecretKind, SecretManager, TextOrSecret, aws_kms, secret_manager};

use crate::access::within;
use crate::store::secrets::{BUILT_IN, ON_AGENT};

/// What has to be known of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Identifier of the manager that keeps it.
    pub(crate) manager: String,
    pub(crate) scope: String,
    pub(crate) kind: SecretKind,
}

/// Secrets and secret managers, as far as chains lead from those in question.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relations {
    pub(crate) secrets: BTreeMap<String, Kept>,
    pub(crate) managers: BTreeMap<String, SecretManager>,
}

/// Which rule is broken. The text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// There is no such secret.
    #[error("{field}: there is no secret {secret:?}; store it in the built-in store first")]
    Unknown { field: &'static str, secret: String },
    /// It is for others.
    #[error(
        "{field}: the secret {secret:?} is for the scope {theirs:?}; the secret manager has the scope {ours:?}, and may use what has \
         that scope or one above it"
    )]
    Elsewhere { field: &'static str, secret: String, theirs: String, ours: String },
    /// A file.
    #[error("{field}: the secret {secret:?} is a file, and must be a text")]
    File { field: &'static str, secret: String },
    /// It is not in the built-in store.
    #[error(
        "what a secret manager authenticates with must be kept in the built-in store, but {field} leads elsewhere: {}; \
         store {secret:?} in the built-in store{}", .chain.join(" -> "), cycle(chain)
    )]
    Chain { field: &'static str, secret: String, chain: Vec<String> },
}

impl Relations {
    /// Checks one manager, which is among them.
    pub(crate) fn check(&self, identifier: &str) -> Result<(), Broken> {
        let Some(manager) = self.managers.get(identifier) else { return Ok(()) };
        for (field, secret) in references(manager) {
            let secret = secret.to_owned();
            let Some(kept) = self.secrets.get(&secret) else { return Err(Broken::Unknown { field, secret }) };
            if kept.manager != BUILT_IN {
                let chain = self.chain(identifier, &secret);
                return Err(Broken::Chain { field, secret, chain });
            }
            if kept.kind != SecretKind::Text {
                return Err(Broken::File { field, secret });
            }
            if !within(&kept.scope, &manager.scope) {
                let (theirs, ours) = (kept.scope.clone(), manager.scope.clone());
                return Err(Broken::Elsewhere { field, secret, theirs, ours });
            }
        }
        Ok(())
    }

    /// The way from a manager over one of its secrets: back to a manager that is on it already, if it leads there, else to its end.
    fn chain(&self, identifier: &str, secret: &str) -> Vec<String> {
        let mut way = vec![manager_named(identifier)];
        let mut seen = BTreeSet::from([identifier]);
        let mut longest = Vec::new();
        self.walk(secret, &mut way, &mut seen, &mut longest);
        longest
    }

    /// True when it came back to where it had been; `found` is the way then. Each manager is entered once, which bounds it.
    fn walk<'a>(
        &'a self,
        secret: &str,
        way: &mut Vec<String>,
        seen: &mut BTreeSet<&'a str>,
        found: &mut Vec<String>,
    ) -> bool {
        let depth = way.len();
        way.push(format!("secret {secret}"));
        let keeper = self.secrets.get(secret).map(|kept| kept.manager.as_str());
        let mut back = false;
        if let Some(keeper) = keeper {
            way.push(manager_named(keeper));
            back = way.iter().take(depth).any(|before| *before == manager_named(keeper));
            if back {
                found.clone_from(way);
            } else if seen.insert(keeper) {
                for (_, next) in self.managers.get(keeper).into_iter().flat_map(references) {
                    back = self.walk(next, way, seen, found);
                    if back {
                        break;
                    }
                }
            }
        }
        if !back && found.is_empty() {
            found.clone_from(way);
        }
        way.truncate(depth);
        back
    }
}

/// The fields of a manager that name secrets, and which.
pub(crate) fn references(manager: &SecretManager) -> impl Iterator<Item = (&'static str, &str)> {
    let Some(secret_manager::Kind::AwsKms(kms)) = &manager.kind else { return Vec::new().into_iter() };
    let mut found = vec![("aws_kms.key", of(kms.key.as_ref()))];
    if let Some(aws_kms::Credentials::AccessKey(access_key)) = &kms.credentials {
        found.push(("aws_kms.access_key.access_key_id", of(access_key.access_key_id.as_ref())));
        found.push(("aws_kms.access_key.secret_access_key", access_key.secret_access_key.as_str()));
    }
    found.retain(|(_, secret)| !secret.is_empty());
    found.into_iter()
}

fn of(text_or_secret: Option<&TextOrSecret>) -> &str {
    text_or_secret.map_or("", |either| either.secret.as_str())
}

/// Whether the control plane itself reaches it, and so sees its values.
pub(crate) fn is_platform(manager: &SecretManager) -> bool {
    let Some(secret_manager::Kind::AwsKms(AwsKms { credentials: Some(credentials), .. })) = &manager.kind else {
        return false;
    };
    match credentials {
        aws_kms::Credentials::Oidc(oidc) => oidc.connectivity() == lictor_proto::v1::Connectivity::Platform,
        aws_kms::Credentials::AccessKey(_)
        | aws_kms::Credentials::MachineRole(_)
        | aws_kms::Credentials::AssumeRole(_) => false,
    }
}

/// Whether an identifier belongs to a manager that is there without being made.
pub(crate) fn is_reserved(identifier: &str) -> bool {
    identifier == BUILT_IN || identifier == ON_AGENT
}

fn manager_named(identifier: &str) -> String {
    format!("secret-manager {identifier}")
}

fn cycle(chain: &[String]) -> &'static str {
    match chain.split_last() {
        Some((last, before)) if before.contains(last) => ", since nothing in a circle can be opened first",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{AwsAccessKey, AwsOidc, Connectivity};

    use super::*;

    /// A manager that authenticates with this secret.
    fn manager(identifier: &str, scope: &str, secret: &str) -> SecretManager {
        let access_key = AwsAccessKey {
            access_key_id: Some(TextOrSecret { text: "key id".into(), secret: String::new() }),
            secret_access_key: secret.into(),
        };
        let kms = AwsKms { credentials: Some(aws_kms::Credentials::AccessKey(access_key)), ..AwsKms::default() };
        SecretManager {
            identifier: identifier.into(),
            scope: scope.into(),
            kind: Some(secret_manager::Kind::AwsKms(kms)),
            ..SecretManager::default()
        }
    }

    fn relations(managers: &[SecretManager], secrets: &[(&str, &str)]) -> Relations {
        let kept = |manager: &str| Kept { manager: manager.into(), scope: String::new(), kind: SecretKind::Text };
        Relations {
            secrets: secrets.iter().map(|(secret, manager)| ((*secret).to_owned(), kept(manager))).collect(),
            managers: managers.iter().map(|manager| (manager.identifier.clone(), manager.clone())).collect(),
        }
    }

    fn refused(relations: &Relations, identifier: &str) -> String {
        relations.check(identifier).unwrap_err().to_string()
    }

    #[test]
    fn what_the_built_in_store_keeps_is_good() {
        let relations = relations(&[manager("corp", "", "aws-key")], &[("aws-key", BUILT_IN)]);
        assert_eq!(relations.check("corp"), Ok(()));
        assert_eq!(relations.check("no such one"), Ok(()));
    }

    #[test]
    fn a_manager_that_keeps_its_own_key_is_refused() {
        let text = refused(&relations(&[manager("corp", "", "aws-key")], &[("aws-key", "corp")]), "corp");
        assert!(text.contains("secret-manager corp -> secret aws-key -> secret-manager corp;"), "{text}");
        assert!(text.contains("nothing in a circle"), "{text}");
    }

    #[test]
    fn a_circle_of_two_is_shown_whole() {
        let both = [manager("a", "", "x"), manager("b", "", "y")];
        let text = refused(&relations(&both, &[("x", "b"), ("y", "a")]), "a");
        let chain = "secret-manager a -> secret x -> secret-manager b -> secret y -> secret-manager a;";
        assert!(text.contains(chain), "{text}");
    }

    #[test]
    fn a_chain_that_ends_in_the_built_in_store_is_refused_too() {
        let both = [manager("a", "", "x"), manager("b", "", "y")];
        let text = refused(&relations(&both, &[("x", "b"), ("y", BUILT_IN)]), "a");
        let chain = "secret-manager a -> secret x -> secret-manager b -> secret y -> secret-manager built-in;";
        assert!(text.contains(chain) && !text.contains("circle"), "{text}");
    }

    #[test]
    fn a_circle_behind_the_manager_and_a_dead_end_are_shown() {
        let three = [manager("a", "", "x"), manager("b", "", "y"), manager("c", "", "z")];
        let text = refused(&relations(&three, &[("x", "b"), ("y", "c"), ("z", "b")]), "a");
        assert!(text.contains("secret-manager b -> secret y -> secret-manager c -> secret z -> secret-manager b;"));
        let text = refused(&relations(&three, &[("x", "b")]), "a");
        assert!(text.contains("secret-manager a -> secret x -> secret-manager b -> secret y;"), "{text}");
    }

    #[test]
    fn what_is_on_agents_is_no_way_around() {
        let text = refused(&relations(&[manager("corp", "", "k")], &[("k", ON_AGENT)]), "corp");
        assert!(text.contains("secret-manager corp -> secret k -> secret-manager agent;"), "{text}");
    }

    #[test]
    fn every_reference_is_looked_at() {
        let mut corp = manager("corp", "", "good");
        let Some(secret_manager::Kind::AwsKms(kms)) = &mut corp.kind else { unreachable!() };
        kms.key = Some(TextOrSecret { text: String::new(), secret: "arn".into() });
        let Some(aws_kms::Credentials::AccessKey(access_key)) = &mut kms.credentials else { unreachable!() };
        access_key.access_key_id = Some(TextOrSecret { text: String::new(), secret: "id".into() });
        let found: Vec<&str> = references(&corp).map(|(_, secret)| secret).collect();
        assert_eq!(found, ["arn", "id", "good"]);
        for secret in ["arn", "id", "good"] {
            let all = ["arn", "id", "good"].map(|each| (each, if each == secret { "corp" } else { BUILT_IN }));
            assert!(refused(&relations(&[corp.clone()], &all), "corp").contains(&format!("-> secret {secret} ->")));
        }
    }

    #[test]
    fn secrets_of_others_unknown_ones_and_files_are_refused() {
        let mut relations = relations(&[manager("corp", "team/a", "k")], &[("k", BUILT_IN)]);
        for (scope, good) in [("", true), ("team", true), ("team/a", true), ("team/b", false), ("team/a/b", false)] {
            relations.secrets.get_mut("k").unwrap().scope = scope.to_owned();
            assert_eq!(relations.check("corp").is_ok(), good, "{scope}");
        }
        assert!(refused(&relations, "corp").contains("is for the scope \"team/a/b\""));
        relations.secrets.get_mut("k").unwrap().kind = SecretKind::File;
        assert!(refused(&relations, "corp").contains("must be a text"));
        relations.secrets.clear();
        assert!(refused(&relations, "corp").contains("there is no secret \"k\""));
    }

    #[test]
    fn the_control_plane_reaches_only_what_says_so() {
        let oidc = |connectivity: Connectivity| {
            let oidc = AwsOidc { connectivity: connectivity.into(), ..AwsOidc::default() };
            let kms = AwsKms { credentials: Some(aws_kms::Credentials::Oidc(oidc)), ..AwsKms::default() };
            SecretManager { kind: Some(secret_manager::Kind::AwsKms(kms)), ..SecretManager::default() }
        };
        assert!(is_platform(&oidc(Connectivity::Platform)));
        assert!(!is_platform(&oidc(Connectivity::Agent)) && !is_platform(&oidc(Connectivity::Unspecified)));
        assert!(!is_platform(&manager("a", "", "x")) && !is_platform(&SecretManager::default()));
    }
}
