//! Checks of what is asked about writing secrets through agents, and about tests of secret managers.

use lictor_proto::v1::{AgentSelector, PrepareSecretRequest, TestSecretManagerRequest};

use super::{Checker, NAME, SCOPE, Violations, is_name, is_scope};

/// A checked request for an agent to seal to.
pub(crate) fn prepared_secret(request: PrepareSecretRequest) -> Result<PrepareSecretRequest, Violations> {
    let mut checker = Checker::default();
    checker.check(is_name(&request.identifier), "identifier", NAME);
    checker.check(request.manager.is_empty() || is_name(&request.manager), "manager", NAME);
    checker.check(is_scope(&request.scope), "scope", SCOPE);
    checker.finish(request)
}

/// A checked request for a test: which secret manager, and which agents may run it.
pub(crate) fn manager_test(request: TestSecretManagerRequest) -> Result<(String, AgentSelector), Violations> {
    let mut checker = Checker::default();
    checker.check(is_name(&request.identifier), "identifier", NAME);
    let selector = request.selector.unwrap_or_default();
    checker.selector(&selector);
    checker.finish((request.identifier, selector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_named() {
        let request = PrepareSecretRequest { identifier: "a b".into(), manager: "/".into(), scope: "/".into() };
        let text = prepared_secret(request).unwrap_err().to_string();
        for field in ["identifier:", "manager:", "scope:"] {
            assert!(text.contains(field), "{text}");
        }
        let good = PrepareSecretRequest { identifier: "db".into(), ..PrepareSecretRequest::default() };
        prepared_secret(good).unwrap();
        let selector = AgentSelector { tags: vec![String::new()], scope: "a//b".into() };
        let request = TestSecretManagerRequest { identifier: String::new(), selector: Some(selector) };
        let text = manager_test(request).unwrap_err().to_string();
        for field in ["identifier:", "selector.tags:", "selector.scope:"] {
            assert!(text.contains(field), "{text}");
        }
    }
}
