//! What a caller sees of a task.
//!
//! Pure. A viewer sees what was done where, how it went and the output, but not what scripts may hold secrets in: their
//! text and arguments, standard input, values of environment variables. The command line stays: Windows itself shows it
//! to everybody who lists processes on the host. Who has a scope learns nothing of agents that belong elsewhere.

use std::time::Duration;

use lictor_proto::v1::{Task, TaskSpec, task_spec};

use crate::access::{Caller, Role};
use crate::connection::shell_settings;
use crate::failure;

/// The task as this caller may see it.
pub(super) fn shown(mut task: Task, caller: &Caller) -> Task {
    without_sealed(&mut task);
    if caller.role < Role::Operator
        && let Some(spec) = &mut task.spec
    {
        withhold(spec);
    }
    if !caller.scope.is_empty() {
        without_strangers(&mut task);
    }
    task
}

/// What is sealed or encrypted for the sake of a secret is of use to nobody who looks at tasks.
fn without_sealed(task: &mut Task) {
    if let Some(task_spec::Kind::SealSecret(seal)) = task.spec.as_mut().and_then(|spec| spec.kind.as_mut()) {
        seal.value = None;
    }
    if let Some(result) = &mut task.result {
        result.sealed_record = None;
    }
}

fn withhold(spec: &mut TaskSpec) {
    match &mut spec.kind {
        Some(task_spec::Kind::Script(script)) => {
            script.text.clear();
            script.arguments.clear();
        }
        Some(task_spec::Kind::Command(command)) => command.stdin = Default::default(),
        Some(
            task_spec::Kind::ConnectionTest(_)
            | task_spec::Kind::Diagnosis(_)
            | task_spec::Kind::Posture(_)
            | task_spec::Kind::SecretManagerTest(_)
            | task_spec::Kind::SealSecret(_),
        )
        | None => {
            return;
        }
    }
    if let Some(shell) = shell_settings(spec) {
        shell.environment.values_mut().for_each(String::clear);
    }
}

/// Agents that do not serve the task's scope are other people's: leaves them out of the candidates, and out of the
/// failure that names them all.
fn without_strangers(task: &mut Task) {
    task.candidates.retain(|candidate| candidate.code != "scope");
    let waited = task.spec.as_ref().and_then(|spec| spec.queue_timeout).and_then(|wait| Duration::try_from(wait).ok());
    if let Some(failure) = task.result.as_mut().and_then(|result| result.failure.as_mut())
        && failure.code == "no_agent"
    {
        failure.message = failure::no_agent(waited.unwrap_or_default(), &task.candidates).message;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use lictor_proto::v1::{
        Candidate, Command, KmsRecord, Script, SealSecret, SealedSecret, ShellSettings, TaskResult,
    };

    use super::*;

    fn caller(role: Role, scope: &str) -> Caller {
        let text = String::new;
        Caller { user: text(), token_id: text(), role, scope: scope.into(), source: text() }
    }

    fn task(kind: task_spec::Kind) -> Task {
        Task { spec: Some(TaskSpec { kind: Some(kind), ..TaskSpec::default() }), ..Task::default() }
    }

    fn shell() -> Option<ShellSettings> {
        let environment = HashMap::from([("NAME".to_owned(), "marker".to_owned())]);
        Some(ShellSettings { environment: environment.into_iter().collect(), ..ShellSettings::default() })
    }

    #[test]
    fn viewers_do_not_see_where_secrets_may_be() {
        let script =
            Script { text: "marker".into(), arguments: vec!["marker".into()], shell: shell(), ..Script::default() };
        let command = Command {
            command_line: "visible".into(),
            stdin: b"marker".to_vec().into(),
            shell: shell(),
            ..Command::default()
        };
        for kind in [task_spec::Kind::Script(script), task_spec::Kind::Command(command)] {
            let all = task(kind);
            assert_eq!(shown(all.clone(), &caller(Role::Operator, "")), all);
            let seen = format!("{:?}", shown(all.clone(), &caller(Role::Viewer, "")));
            // Bytes print as characters too.
            assert!(!seen.contains("marker"), "{seen}");
            assert!(seen.contains("NAME"), "{seen}");
            assert_eq!(seen.contains("visible"), format!("{all:?}").contains("visible"));
        }
    }

    #[test]
    fn what_was_sealed_is_shown_to_nobody() {
        let value = SealedSecret { encapsulated_key: vec![1], ciphertext: b"marker".to_vec() };
        let seal = SealSecret { identifier: "db".into(), value: Some(value), ..SealSecret::default() };
        let record = KmsRecord { ciphertext: b"marker".to_vec(), ..KmsRecord::default() };
        let result = TaskResult { sealed_record: Some(record), ..TaskResult::default() };
        let all = Task { result: Some(result), ..task(task_spec::Kind::SealSecret(seal)) };
        let seen = shown(all, &caller(Role::Admin, ""));
        assert_eq!(seen.result.unwrap().sealed_record, None);
        let Some(task_spec::Kind::SealSecret(seal)) = seen.spec.unwrap().kind else { panic!("another kind") };
        assert_eq!((seal.identifier.as_str(), seal.value), ("db", None));
    }

    #[test]
    fn other_peoples_agents_are_not_named() {
        let candidate = |name: &str, code: &str| Candidate {
            agent_name: name.into(),
            code: code.into(),
            reason: format!("reason of {name}"),
            ..Candidate::default()
        };
        let candidates = vec![candidate("ours", "offline"), candidate("theirs", "scope")];
        let failure = failure::no_agent(Duration::from_secs(1), &candidates);
        let task = Task {
            candidates,
            result: Some(TaskResult { failure: Some(failure), ..TaskResult::default() }),
            ..Task::default()
        };
        assert_eq!(shown(task.clone(), &caller(Role::Admin, "")), task);
        let seen = format!("{:?}", shown(task, &caller(Role::Admin, "team")));
        assert!(seen.contains("ours") && !seen.contains("theirs"), "{seen}");
    }
}
