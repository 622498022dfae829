//! The permission of every call of a user, in one table. What is not in it is refused, and a test fails when a method of
//! the contract is missing.

use crate::access::Role;

/// The least role that may call each method.
pub(super) const TABLE: &[(&str, Role)] = &[
    ("/lictor.v1.AccessService/WhoAmI", Role::Viewer),
    ("/lictor.v1.AccessService/CreateUser", Role::Admin),
    ("/lictor.v1.AccessService/ListUsers", Role::Admin),
    ("/lictor.v1.AccessService/DisableUser", Role::Admin),
    ("/lictor.v1.AccessService/EnableUser", Role::Admin),
    ("/lictor.v1.AccessService/IssueUserToken", Role::Admin),
    ("/lictor.v1.AccessService/ListUserTokens", Role::Admin),
    ("/lictor.v1.AccessService/RevokeUserToken", Role::Admin),
    ("/lictor.v1.AccessService/ExportAudit", Role::Admin),
    ("/lictor.v1.BatchService/SubmitBatch", Role::Operator),
    ("/lictor.v1.BatchService/GetBatch", Role::Viewer),
    ("/lictor.v1.BatchService/ListBatches", Role::Viewer),
    ("/lictor.v1.BatchService/WatchBatch", Role::Viewer),
    ("/lictor.v1.BatchService/CancelBatch", Role::Operator),
    ("/lictor.v1.CredentialService/PutCredential", Role::Admin),
    ("/lictor.v1.CredentialService/ListCredentials", Role::Viewer),
    ("/lictor.v1.CredentialService/DeleteCredential", Role::Admin),
    ("/lictor.v1.CredentialService/TestCredential", Role::Operator),
    ("/lictor.v1.FleetService/ListAgents", Role::Viewer),
    ("/lictor.v1.FleetService/DrainAgent", Role::Admin),
    ("/lictor.v1.FleetService/RevokeAgent", Role::Admin),
    ("/lictor.v1.FleetService/CreateJoinToken", Role::Admin),
    ("/lictor.v1.FleetService/ListJoinTokens", Role::Admin),
    ("/lictor.v1.FleetService/RevokeJoinToken", Role::Admin),
    ("/lictor.v1.SecretService/PutSecret", Role::Admin),
    ("/lictor.v1.SecretService/PrepareSecret", Role::Admin),
    ("/lictor.v1.SecretService/GetSecret", Role::Viewer),
    ("/lictor.v1.SecretService/ListSecrets", Role::Viewer),
    ("/lictor.v1.SecretService/DeleteSecret", Role::Admin),
    ("/lictor.v1.SecretService/PutSecretManager", Role::Admin),
    ("/lictor.v1.SecretService/GetSecretManager", Role::Viewer),
    ("/lictor.v1.SecretService/ListSecretManagers", Role::Viewer),
    ("/lictor.v1.SecretService/DeleteSecretManager", Role::Admin),
    ("/lictor.v1.SecretService/TestSecretManager", Role::Operator),
    ("/lictor.v1.TaskService/SubmitTask", Role::Operator),
    ("/lictor.v1.TaskService/GetTask", Role::Viewer),
    ("/lictor.v1.TaskService/ListTasks", Role::Viewer),
    ("/lictor.v1.TaskService/WatchTask", Role::Viewer),
    ("/lictor.v1.TaskService/CancelTask", Role::Operator),
];

/// The least role that may call the method at this path. Nothing for paths that are no method of a user's.
pub(super) fn needed(path: &str) -> Option<Role> {
    TABLE.iter().find(|(method, _)| *method == path).map(|(_, role)| *role)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Every method of the contract but the agents', which know certificates and no roles.
    fn methods() -> BTreeSet<String> {
        let contract = FileDescriptorSet::decode(lictor_proto::DESCRIPTORS).unwrap();
        let mut methods = BTreeSet::new();
        for file in contract.file {
            for service in &file.service {
                if service.name() != "AgentService" {
                    let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                    methods.extend(service.method.iter().map(|method| path(method.name())));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_of_the_contract_has_its_permission() {
        let listed: BTreeSet<String> = TABLE.iter().map(|(method, _)| (*method).to_owned()).collect();
        assert_eq!(listed.len(), TABLE.len(), "a method is listed twice");
        assert_eq!(listed, methods());
    }

    #[test]
    fn what_is_not_listed_has_none() {
        for path in ["", "/", "/lictor.v1.TaskService/", "/lictor.v1.taskservice/GetTask", "/lictor.v1.TaskService/X"] {
            assert_eq!(needed(path), None, "{path}");
        }
        assert_eq!(needed("/lictor.v1.AgentService/Poll"), None);
    }

    #[test]
    fn what_changes_something_is_not_for_viewers() {
        for (method, role) in TABLE {
            let name = method.rsplit('/').next().unwrap_or_default();
            let reads = ["Get", "List", "Watch", "WhoAmI", "Export"].iter().any(|verb| name.starts_with(verb));
            assert!(reads || *role > Role::Viewer, "{method}");
        }
    }

    #[test]
    fn the_page_lists_every_method_with_its_role() {
        let page = include_str!("../../../docs/access.md");
        for (method, role) in TABLE {
            let row = format!("| `{}` | {} |", method.trim_start_matches("/lictor.v1."), role.name());
            assert!(page.contains(&row), "{row} is missing");
        }
    }
}
