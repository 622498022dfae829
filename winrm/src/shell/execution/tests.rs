use super::*;
use crate::shell::OutputStream;

const ID: Uuid = Uuid::from_u128(0xB097_3E54);

fn execution(stdin: Option<&'static [u8]>, piece: usize) -> Execution {
    let invocation = Invocation { command_line: "sort".into(), stdin: stdin.map(Bytes::from_static) };
    Execution::new(&invocation, ID, piece)
}

fn accept(execution: &mut Execution) {
    assert_eq!(execution.turn(), Turn::Command);
    execution.answer(Response::CommandStarted(ID.to_string().to_uppercase())).unwrap();
}

fn output(data: &'static str) -> Received {
    Received {
        command_id: Some(ID.to_string()),
        output: vec![(OutputStream::Stdout, Bytes::from_static(data.as_bytes()))],
        state: Some(State::Running),
        exit_code: None,
    }
}

fn done(code: i32) -> Received {
    Received { state: Some(State::Done), exit_code: Some(code), output: vec![], ..output("") }
}

fn fault(code: u32) -> Response {
    Response::Fault(Fault { code: Some(code), ..Fault::default() })
}

const TIMED_OUT: u32 = 2_150_858_793;
const NOT_THERE: u32 = 2_150_858_843;
const TOO_LARGE: u32 = 2_150_858_790;
const BUSY: u32 = 170;

#[test]
fn a_short_command_is_one_command_and_one_receive() {
    let mut execution = execution(None, 4096);
    accept(&mut execution);
    assert_eq!(execution.turn(), Turn::Receive { patience: Duration::MAX });
    execution.answer(Response::Received(Received { output: output("hi\n").output, ..done(-1) })).unwrap();
    assert_eq!(
        execution.event(),
        Some(Event::Output { stream: OutputStream::Stdout, data: Bytes::from_static(b"hi\n") })
    );
    assert_eq!(execution.event(), Some(Event::Done { exit_code: -1, output_gap: false }));
    assert_eq!(execution.event(), None);
    assert_eq!(execution.turn(), Turn::Finished);
}

#[test]
fn an_operation_timeout_polls_again_without_end() {
    let mut execution = execution(None, 4096);
    accept(&mut execution);
    for _ in 0..1000 {
        assert!(matches!(execution.turn(), Turn::Receive { .. }));
        execution.answer(fault(TIMED_OUT)).unwrap();
        assert_eq!(execution.event(), None);
    }
    execution.answer(Response::Received(done(0))).unwrap();
    assert_eq!(execution.event(), Some(Event::Done { exit_code: 0, output_gap: false }));
}

#[test]
fn input_is_split_and_ended_once() {
    let input: &'static [u8] = &[7; 2500];
    let mut execution = execution(Some(input), 1024);
    accept(&mut execution);
    let mut sent = Vec::new();
    loop {
        match execution.turn() {
            Turn::Send { data, end, .. } => {
                assert!(data.len() <= 1024);
                sent.extend_from_slice(&data);
                assert_eq!(end, sent.len() == input.len());
                execution.answer(Response::Sent).unwrap();
            }
            Turn::Receive { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, input);
}

#[test]
fn empty_input_is_ended_at_once() {
    let mut execution = execution(Some(b""), 1024);
    accept(&mut execution);
    assert!(matches!(execution.turn(), Turn::Send { data, end: true, .. } if data.is_empty()));
    execution.answer(Response::Sent).unwrap();
    assert!(matches!(execution.turn(), Turn::Receive { .. }));
}

#[test]
fn a_send_that_timed_out_is_not_repeated() {
    let mut execution = execution(Some(&[1; 1500]), 1024);
    accept(&mut execution);
    execution.answer(fault(TIMED_OUT)).unwrap();
    // Output first, for the command may wait until somebody takes it.
    assert_eq!(execution.turn(), Turn::Receive { patience: INPUT_PATIENCE });
    execution.answer(Response::Received(output("x"))).unwrap();
    assert!(matches!(execution.turn(), Turn::Send { data, end: true, .. } if data.len() == 476));
}

#[test]
fn a_busy_input_is_repeated_after_a_look_at_the_output() {
    let mut execution = execution(Some(b"abc"), 1024);
    accept(&mut execution);
    for _ in 0..3 {
        assert!(matches!(execution.turn(), Turn::Send { data, end: true, .. } if data == "abc"));
        execution.answer(fault(BUSY)).unwrap();
        assert_eq!(execution.turn(), Turn::Receive { patience: INPUT_PATIENCE });
        execution.answer(fault(TIMED_OUT)).unwrap();
    }
    execution.answer(Response::Sent).unwrap();
    assert_eq!(execution.turn(), Turn::Receive { patience: Duration::MAX });
}

#[test]
fn a_command_that_ends_without_reading_its_input_is_done() {
    let mut execution = execution(Some(&[1; 4000]), 1024);
    accept(&mut execution);
    execution.answer(fault(BUSY)).unwrap();
    execution.answer(Response::Received(done(3))).unwrap();
    assert_eq!(execution.turn(), Turn::Finished);
    assert_eq!(execution.event(), Some(Event::Done { exit_code: 3, output_gap: false }));
}

#[test]
fn pieces_shrink_to_what_the_host_takes() {
    let mut execution = execution(Some(&[1; 8000]), 8000);
    accept(&mut execution);
    for expected in [4000, 2000, 1024] {
        execution.answer(fault(TOO_LARGE)).unwrap();
        assert!(matches!(execution.turn(), Turn::Send { data, .. } if data.len() == expected));
    }
    assert!(matches!(execution.answer(fault(TOO_LARGE)), Err(Trouble::MayHaveStarted(_))));
}

#[test]
fn a_command_that_surely_did_not_start_says_so() {
    let mut lost = execution(None, 1024);
    assert!(matches!(lost.answer(fault(NOT_THERE)), Err(Trouble::NeedsNewShell(_))));
    assert_eq!(lost.turn(), Turn::Finished);
    lost.restart();
    accept(&mut lost);

    let mut refused = execution(None, 1024);
    assert!(matches!(refused.answer(fault(5)), Err(Trouble::NotStarted(_))));
    let mut ambiguous = execution(None, 1024);
    assert!(matches!(ambiguous.answer(fault(TIMED_OUT)), Err(Trouble::MayHaveStarted(_))));
}

#[test]
fn a_shell_lost_while_receiving_leaves_the_outcome_open() {
    let mut execution = execution(None, 1024);
    accept(&mut execution);
    assert!(matches!(execution.answer(fault(NOT_THERE)), Err(Trouble::MayHaveStarted(_))));
    assert_eq!(execution.turn(), Turn::Finished);
}

#[test]
fn a_lost_answer_is_told_with_the_exit_code() {
    let mut execution = execution(None, 1024);
    accept(&mut execution);
    execution.lost_answer();
    execution.answer(Response::Received(done(0))).unwrap();
    assert_eq!(execution.event(), Some(Event::Done { exit_code: 0, output_gap: true }));
}

#[test]
fn answers_that_do_not_belong_are_not_believed() {
    let other = Uuid::from_u128(1);
    let mut started = execution(None, 1024);
    assert!(matches!(started.answer(Response::CommandStarted(other.to_string())), Err(Trouble::Unexpected(_))));
    let mut mixed = execution(None, 1024);
    accept(&mut mixed);
    assert!(matches!(mixed.answer(Response::Sent), Err(Trouble::Unexpected(_))));
    let mut foreign = execution(None, 1024);
    accept(&mut foreign);
    let received = Received { command_id: Some(other.to_string()), ..output("x") };
    assert!(matches!(foreign.answer(Response::Received(received)), Err(Trouble::Unexpected(_))));
    assert_eq!(foreign.event(), None);
    let mut codeless = execution(None, 1024);
    accept(&mut codeless);
    assert!(matches!(
        codeless.answer(Response::Received(Received { exit_code: None, ..done(0) })),
        Err(Trouble::Unexpected(_))
    ));
}
