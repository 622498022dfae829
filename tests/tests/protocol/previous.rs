//! What is left of a message on its way to or from a side of the previous minor version.
//!
//! Judged by the previous contract alone, as it is kept in `proto/baseline`: what is not in it is dropped, and enum values that
//! it does not know become 0, as generated code takes them. It must know nothing of the present contract but the types that
//! it hands back.
#![expect(clippy::expect_used, reason = "the image is part of the tree; without it there is nothing to test")]

use std::path::Path;
use std::sync::LazyLock;

use lictor_proto::v1::{AgentEvent, ServerEvent, agent_event};
use lictor_proto::version::Contract;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, Value};

/// An event from or to an agent of the previous version, or to a control plane of it.
pub(crate) fn of_agent(event: &AgentEvent) -> AgentEvent {
    let mut event = cross(event, "lictor.v1.AgentEvent");
    if let Some(agent_event::Event::Hello(hello)) = &mut event.event {
        hello.capabilities.retain(|capability| CAPABILITIES.contains(&capability.as_str()));
    }
    event
}

/// The same in the other direction.
pub(crate) fn of_server(event: &ServerEvent) -> ServerEvent {
    cross(event, "lictor.v1.ServerEvent")
}

/// Passes a message through the previous contract.
fn cross<M: Message + Default>(message: &M, name: &str) -> M {
    let descriptor = PREVIOUS.get_message_by_name(name).expect("the previous contract has the message");
    stripped(descriptor, &message.encode_to_vec())
}

fn stripped<M: Message + Default>(descriptor: MessageDescriptor, bytes: &[u8]) -> M {
    let mut dynamic = DynamicMessage::decode(descriptor, bytes).expect("the previous contract reads the message");
    strip(&mut dynamic);
    M::decode(dynamic.encode_to_vec().as_slice()).expect("the present contract reads the message")
}

fn strip(message: &mut DynamicMessage) {
    message.take_unknown_fields().for_each(drop);
    for (field, value) in message.fields_mut() {
        let kind = field.kind();
        match value {
            Value::List(values) => values.iter_mut().for_each(|value| strip_value(&kind, value)),
            // Keys are never messages or enums; the kind of a map is that of its entries.
            Value::Map(values) => {
                let entry = kind.as_message().expect("a map has entries").map_entry_value_field().kind();
                values.values_mut().for_each(|value| strip_value(&entry, value));
            }
            value => strip_value(&kind, value),
        }
    }
}

fn strip_value(kind: &Kind, value: &mut Value) {
    match (kind, value) {
        (Kind::Message(_), Value::Message(message)) => strip(message),
        (Kind::Enum(known), Value::EnumNumber(number)) if known.get_value(*number).is_none() => *number = 0,
        _ => {}
    }
}

fn read() -> DescriptorPool {
    let previous = Contract { minor: Contract::OURS.minor - 1, ..Contract::OURS };
    let image = format!("../proto/baseline/{previous}.json");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(image)).expect("the image is there");
    let set = DescriptorPool::global().get_message_by_name("google.protobuf.FileDescriptorSet").expect("well known");
    let mut json = serde_json::Deserializer::from_str(&text);
    // buf adds notes of its own.
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let set =
        DynamicMessage::deserialize_with_options(set, &mut json, &options).expect("the image is a FileDescriptorSet");
    DescriptorPool::decode(set.encode_to_vec().as_slice()).expect("the image is whole")
}

static PREVIOUS: LazyLock<DescriptorPool> = LazyLock::new(read);

/// What agents of the previous version could do.
const CAPABILITIES: &[&str] = &["connection_test", "command", "script", "kerberos"];

#[cfg(test)]
mod tests {
    use super::*;
    use lictor_proto::v1::{
        Assignment, Diagnosis, Failure, Heartbeat, Hello, PostureRow, Rung, RungOutcome, Suspect, TaskEnd, TaskRef,
        TaskResult, TaskSpec, TaskState, server_event, task_spec,
    };

    fn end(result: TaskResult) -> AgentEvent {
        let task = Some(TaskRef { task_id: "t".into(), epoch: 3 });
        AgentEvent { event: Some(agent_event::Event::End(TaskEnd { task, result: Some(result) })) }
    }

    #[test]
    fn what_the_previous_contract_knows_passes_as_it_is() {
        let failure = Failure { stage: "connect".into(), code: "connect.refused".into(), ..Failure::default() };
        let rung = Rung { outcome: RungOutcome::Failed.into(), failure: Some(failure.clone()), ..Rung::default() };
        let told = end(TaskResult {
            outcome: TaskState::Failed.into(),
            exit_code: Some(7),
            output_bytes: u64::MAX,
            rungs: vec![rung],
            failure: Some(failure),
            ..TaskResult::default()
        });
        assert_eq!(of_agent(&told), told);
        let told = AgentEvent {
            event: Some(agent_event::Event::Heartbeat(Heartbeat { sequence: 9, ..Heartbeat::default() })),
        };
        assert_eq!(of_agent(&told), told);
    }

    #[test]
    fn what_it_does_not_know_is_gone() {
        let failure = Failure { code: "x".into(), suspects: vec![Suspect::default()], ..Failure::default() };
        let rung = Rung { outcome: RungOutcome::Unknown.into(), failure: Some(failure), ..Rung::default() };
        let told =
            end(TaskResult { rungs: vec![rung], posture_rows: vec![PostureRow::default()], ..TaskResult::default() });
        let failure = Failure { code: "x".into(), ..Failure::default() };
        let rung = Rung { failure: Some(failure), ..Rung::default() };
        assert_eq!(of_agent(&told), end(TaskResult { rungs: vec![rung], ..TaskResult::default() }));

        let spec = |kind| Some(TaskSpec { kind, idempotent: true, ..TaskSpec::default() });
        let given = |spec| ServerEvent {
            event: Some(server_event::Event::Assignment(Assignment { spec, ..Assignment::default() })),
        };
        let diagnosis = Some(task_spec::Kind::Diagnosis(Diagnosis::default()));
        assert_eq!(of_server(&given(spec(diagnosis))), given(spec(None)));
    }

    #[test]
    fn nobody_of_the_previous_version_says_which_it_is_or_can_do_what_came_later() {
        let capabilities = vec!["command".to_owned(), "diagnosis".to_owned()];
        let hello = Hello { contract: "0.2".into(), slots: 4, capabilities, ..Hello::default() };
        let crossed = of_agent(&AgentEvent { event: Some(agent_event::Event::Hello(hello)) });
        let expected = Hello { slots: 4, capabilities: vec!["command".into()], ..Hello::default() };
        assert_eq!(crossed, AgentEvent { event: Some(agent_event::Event::Hello(expected)) });
    }

    /// An event that nobody knows is heard as an event without content.
    #[test]
    fn an_event_of_the_future_is_one_without_content() {
        let descriptor = PREVIOUS.get_message_by_name("lictor.v1.ServerEvent").unwrap();
        // Field 99, a message of two bytes.
        assert_eq!(stripped::<ServerEvent>(descriptor, &[0x9a, 0x06, 0x02, 0x08, 0x01]), ServerEvent { event: None });
    }
}
