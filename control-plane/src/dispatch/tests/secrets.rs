//! Which agents take tasks that need secrets, and work for the sake of secrets.

use lictor_proto::v1::KmsRecord;

use super::*;

const KMS: &[&str] = &["command", "aws_kms", "secret_sources", "task_secrets"];

/// A ledger that knows a secret in each kind of place; the credential `web` has the one that is named.
fn world(agents: &[&str], secret: &str) -> World {
    let mut world = World::new(agents);
    for (identifier, manager) in [("here", BUILT_IN), ("there", ON_AGENTS), ("wrapped", "corp"), ("ours", "platform")] {
        world.ledger.secret_stored(identifier, SecretState { manager: manager.into() });
    }
    let manager = |reach| ManagerState { agent_tags: Vec::new(), reach };
    world.ledger.manager_stored("corp", manager(Reach::AwsKms));
    world.ledger.manager_stored("platform", manager(Reach::ControlPlane));
    let needs = Needs::default().with_secret(secret);
    world.ledger.credential_stored("web", CredentialState { version: 1, rejected: false, needs });
    world
}

fn test_of(manager: &str) -> impl FnOnce(&mut LiveTask) {
    let errand = Some(Errand::Test { manager: manager.into() });
    move |task| {
        task.route = Route { capability: "aws_kms", errand, ..Route::default() };
        task.credential = String::new();
        task.claim.host = "".into();
        task.idempotent = true;
    }
}

fn sealing_by(agent: &str) -> impl FnOnce(&mut LiveTask) {
    let agent_id = agent.to_owned();
    move |task| {
        test_of("corp")(task);
        task.route.errand = Some(Errand::Seal { manager: "corp".into(), agent_id });
    }
}

#[test]
fn what_the_credentials_secret_needs_the_agent_must_be_able_to_do() {
    for (secret, needed) in [("", ""), ("here", ""), ("ours", ""), ("there", "secret_sources"), ("wrapped", "aws_kms")]
    {
        let mut world = world(&["a"], secret);
        world.connect_as("a", "i", &["command"], 1);
        world.submit("t", false);
        if needed.is_empty() {
            assert_eq!(world.assigned.len(), 1, "{secret}");
            continue;
        }
        let candidate = &world.ledger.candidates("t")[0];
        assert_eq!(candidate.code, "missing_capability", "{secret}");
        assert!(candidate.reason.contains(needed) && candidate.reason.contains(secret), "{candidate:?}");
        world.connect_as("a", "j", &["command", needed], 1);
        assert_eq!(world.assigned.len(), 1, "{secret}");
    }
}

#[test]
fn a_tasks_own_secrets_need_an_agent_that_takes_them() {
    for inherited in [false, true] {
        let mut world = world(&["a"], "");
        if inherited {
            let needs = Needs { authority: Some("here".into()), ..Needs::default() };
            world.ledger.credential_stored("web", CredentialState { version: 1, rejected: false, needs });
        }
        world.connect_as("a", "i", &["command"], 2);
        world.submit_with("t", |task| task.route.secrets.extend((!inherited).then(|| "here".to_owned())));
        assert_eq!(world.code("t"), "missing_capability");
        // Who says whom to trust does not ask the credential.
        world.submit_with("own", |task| task.route.own_authority = true);
        assert_eq!(world.assigned.len(), 1);
        world.connect_as("a", "j", &["command", "task_secrets"], 2);
        assert_eq!(world.state("t"), Some(TaskState::Assigned));
    }
}

#[test]
fn a_secret_managers_tags_choose_its_agents() {
    let mut world = world(&["a", "b"], "wrapped");
    let agent_tags = vec!["kms".to_owned(), "prod".to_owned()];
    world.ledger.manager_stored("corp", ManagerState { agent_tags, reach: Reach::AwsKms });
    let hello = |tags: &[&str]| Hello {
        instance_id: "i".into(),
        capabilities: KMS.iter().map(|&capability| capability.into()).collect(),
        tags: tags.iter().map(|&tag| tag.into()).collect(),
        ..Hello::default()
    };
    world.greet("a", hello(&["kms"]), 5);
    world.submit("t", false);
    world.submit_with("test", test_of("corp"));
    for id in ["t", "test"] {
        let candidate = &world.ledger.candidates(id)[0];
        assert_eq!(candidate.code, "secret_manager", "{candidate:?}");
        assert!(candidate.reason.contains("prod") && candidate.reason.contains("corp"), "{candidate:?}");
    }
    world.greet("b", hello(&["prod", "kms"]), 5);
    assert!(world.assigned.iter().all(|assign| assign.agent_id == "b"), "{:?}", world.assigned);
    assert_eq!(world.assigned.len(), 2);
}

#[test]
fn a_value_goes_to_the_agent_that_it_was_sealed_to() {
    let mut world = world(&["a", "b"], "");
    world.connect_as("a", "i", KMS, 5);
    world.submit_with("s", sealing_by("b"));
    assert_eq!(world.ledger.candidates("s")[0].code, "other_agent");
    world.connect_as("b", "i", KMS, 1);
    assert_eq!(world.assigned.last().map(|assign| assign.agent_id.as_str()), Some("b"));
}

#[test]
fn work_without_a_host_shares_none() {
    let mut world = world(&["a"], "");
    world.ledger.settings.limits = Limits { tasks_per_host: 1, tasks_per_credential: 1 };
    world.connect_as("a", "i", KMS, 5);
    for id in ["t1", "t2", "t3"] {
        world.submit_with(id, test_of("corp"));
    }
    assert_eq!(world.assigned.len(), 3);
    // It has no credential that could be missing, or be given.
    assert!(world.assigned.iter().all(|assign| assign.credential_version == 0));
    world.ledger.queue.check();
}

#[test]
fn no_agent_is_asked_for_what_the_control_plane_reaches_itself() {
    let mut world = world(&["a"], "");
    world.connect_as("a", "i", KMS, 5);
    world.submit_with("test", test_of("platform"));
    assert_eq!(world.code("test"), "secret_manager");
    assert_eq!(world.ledger.waiting_tests(), [("test".to_owned(), "platform".to_owned())]);
    world.ledger.done_here("test", failure::result(TaskState::Succeeded, None), world.now);
    world.turn();
    assert_eq!(world.outcome("test"), TaskState::Succeeded);
    // Once more, and for what is no test, nothing happens.
    world.ledger.done_here("test", failure::result(TaskState::Failed, None), world.now);
    world.turn();
    assert_eq!(world.outcome("test"), TaskState::Succeeded);
}

#[test]
fn what_an_agent_encrypted_is_kept_for_the_task_that_asked_alone() {
    let record = |bytes| KmsRecord { ciphertext: vec![0; bytes], ..KmsRecord::default() };
    for (sealing, bytes, kept) in [(true, 256 << 10, true), (true, 300 << 10, false), (false, 10, false)] {
        let mut world = world(&["a"], "");
        let session = world.connect_as("a", "i", KMS, 1);
        if sealing {
            world.submit_with("t", sealing_by("a"));
        } else {
            world.submit("t", false);
        }
        let result = TaskResult { sealed_record: Some(record(bytes)), ..failure::result(TaskState::Succeeded, None) };
        let end = TaskEnd { task: Some(reference("t", 1)), result: Some(result) };
        world.say("a", session, agent_event::Event::End(end)).unwrap();
        assert_eq!(world.outcome("t"), TaskState::Succeeded);
        assert_eq!(world.finished[0].result.sealed_record.is_some(), kept, "{sealing} {bytes}");
    }
}

#[test]
fn an_assignment_that_was_never_sent_goes_to_the_next_agent() {
    let mut world = world(&["a", "b"], "");
    let session = world.connect("a", "i", Vec::new(), 1);
    world.submit("t", false);
    let assign = world.assigned[0].clone();
    assert!(world.ledger.awaits(&assign, session));
    world.ledger.disconnected("a", session, world.now);
    assert!(!world.ledger.awaits(&assign, session));
    world.connect("b", "i", Vec::new(), 1);
    world.pass(LEASE);
    assert_eq!(world.state("t"), Some(TaskState::Lost));
    // Else it would end as unknown, though nobody has ever seen it.
    world.ledger.never_sent(&assign, world.now);
    world.turn();
    assert_eq!(world.assigned.last().map(|assign| (assign.agent_id.as_str(), assign.epoch)), Some(("b", 2)));
    // What is said of the first assignment now is about nothing.
    world.ledger.never_sent(&assign, world.now);
    world.ledger.assignment_failed(&assign, failure::secret_deleted("x"), world.now);
    world.turn();
    assert_eq!(world.state("t"), Some(TaskState::Assigned));
}

#[test]
fn an_assignment_that_was_put_aside_is_not_sent_once_what_was_decided_is_wrong() {
    for change in ["cancelled", "its batch cancelled", "rejected", "deleted", "changed"] {
        let mut world = world(&["a"], "");
        let session = world.connect("a", "i", Vec::new(), 1);
        if change == "its batch cancelled" {
            world.submit_batch("t", 1, 0, None, 0);
        } else {
            world.submit("t", false);
        }
        let assign = world.assigned[0].clone();
        assert!(world.ledger.awaits(&assign, session));
        match change {
            "cancelled" => assert!(world.ledger.cancel("t", "enough", world.now)),
            "its batch cancelled" => assert!(world.ledger.cancel_batch("t", "enough", world.now)),
            "rejected" => world.ledger.credential_rejected("web", 1, world.now),
            "deleted" => world.ledger.credential_deleted("web", world.now),
            _ => {
                let state = CredentialState { version: 2, rejected: false, needs: Needs::default() };
                world.ledger.credential_stored("web", state);
            }
        }
        assert!(!world.ledger.awaits(&assign, session), "{change}");
        world.ledger.never_sent(&assign, world.now);
        world.turn();
        match change {
            "cancelled" | "its batch cancelled" => assert_eq!(world.outcome(&assign.task_id), TaskState::Cancelled),
            // By the one credit there is, which the first assignment did not use.
            "changed" => {
                let again = world.assigned.last().unwrap();
                assert_eq!((again.epoch, again.credential_version), (2, 2));
            }
            _ => assert_eq!(world.outcome(&assign.task_id), TaskState::Rejected, "{change}"),
        }
    }
}

#[test]
fn a_task_cancelled_while_its_assignment_is_made_ready_is_cancelled() {
    let mut world = world(&["a"], "");
    world.connect("a", "i", Vec::new(), 2);
    for id in ["failed", "unsent"] {
        world.submit(id, false);
        let assign = world.assigned.last().unwrap().clone();
        world.ledger.cancel(id, "enough", world.now);
        if id == "failed" {
            world.ledger.assignment_failed(&assign, failure::secret_deleted("x"), world.now);
        } else {
            world.ledger.never_sent(&assign, world.now);
        }
        world.turn();
        assert_eq!(world.outcome(id), TaskState::Cancelled);
    }
}

#[test]
fn the_agent_with_the_most_room_is_chosen_and_else_every_reason_is_told() {
    let mut world = world(&["a", "b", "c"], "");
    let route =
        Route { capability: "aws_kms", errand: Some(Errand::Test { manager: "corp".into() }), ..Route::default() };
    let chosen = |world: &World| world.ledger.choose(&route).map(|agent| agent.agent_id.clone());
    let codes: Vec<String> = chosen(&world).unwrap_err().into_iter().map(|candidate| candidate.code).collect();
    assert_eq!(codes, ["offline", "offline", "offline"]);
    world.connect_as("c", "i", &["command"], 9);
    assert_eq!(chosen(&world).unwrap_err()[2].code, "missing_capability");
    world.connect_as("a", "i", KMS, 0);
    assert_eq!(chosen(&world).unwrap(), "a");
    world.connect_as("b", "i", KMS, 3);
    assert_eq!(chosen(&world).unwrap(), "b");
}
