use super::*;
use crate::shell::OutputStream;

const ID: Uuid = Uuid::from_u128(0xB097_3E54);

fn execution(stdin: Option<&'static [u8]>, piece: usize) -> Execution {
    let invocation = Invocation { command_line: "sort".into(), stdin: stdin.map(Bytes::from_static), streamed: false };
    Execution::new(&invocation, ID, piece)
}

fn accept(execution: &mut Execution) {
    assert_eq!(execution.turn(), Turn::Command);
    answer(execution, Response::CommandStarted(ID.to_string().to_uppercase())).unwrap();
}

fn answer(execution: &mut Execution, response: Response) -> Result<(), Trouble> {
    let turn = execution.turn();
    execution.answer(&turn, response)
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
    answer(&mut execution, Response::Received(Received { output: output("hi\n").output, ..done(-1) })).unwrap();
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
        answer(&mut execution, fault(TIMED_OUT)).unwrap();
        assert_eq!(execution.event(), None);
    }
    answer(&mut execution, Response::Received(done(0))).unwrap();
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
                answer(&mut execution, Response::Sent).unwrap();
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
    answer(&mut execution, Response::Sent).unwrap();
    assert!(matches!(execution.turn(), Turn::Receive { .. }));
}

#[test]
fn a_send_that_timed_out_is_not_repeated() {
    let mut execution = execution(Some(&[1; 1500]), 1024);
    accept(&mut execution);
    answer(&mut execution, fault(TIMED_OUT)).unwrap();
    // Output first, for the command may wait until somebody takes it.
    assert_eq!(execution.turn(), Turn::Receive { patience: INPUT_PATIENCE });
    answer(&mut execution, Response::Received(output("x"))).unwrap();
    assert!(matches!(execution.turn(), Turn::Send { data, end: true, .. } if data.len() == 476));
}

#[test]
fn a_busy_input_is_repeated_after_a_look_at_the_output() {
    let mut execution = execution(Some(b"abc"), 1024);
    accept(&mut execution);
    for _ in 0..3 {
        assert!(matches!(execution.turn(), Turn::Send { data, end: true, .. } if data == "abc"));
        answer(&mut execution, fault(BUSY)).unwrap();
        assert_eq!(execution.turn(), Turn::Receive { patience: INPUT_PATIENCE });
        answer(&mut execution, fault(TIMED_OUT)).unwrap();
    }
    answer(&mut execution, Response::Sent).unwrap();
    assert_eq!(execution.turn(), Turn::Receive { patience: Duration::MAX });
}

#[test]
fn a_command_that_ends_without_reading_its_input_is_done() {
    let mut execution = execution(Some(&[1; 4000]), 1024);
    accept(&mut execution);
    answer(&mut execution, fault(BUSY)).unwrap();
    answer(&mut execution, Response::Received(done(3))).unwrap();
    assert_eq!(execution.turn(), Turn::Finished);
    assert_eq!(execution.event(), Some(Event::Done { exit_code: 3, output_gap: false }));
}

#[test]
fn a_command_whose_input_may_be_lost_is_followed_only_to_its_end() {
    const PROVIDER_TIMEOUT: u32 = 1460;
    for ends in [true, false] {
        let mut execution = execution(Some(b"abc"), 1024);
        accept(&mut execution);
        answer(&mut execution, fault(PROVIDER_TIMEOUT)).unwrap();
        assert_eq!(execution.turn(), Turn::Receive { patience: LOST_PATIENCE });
        answer(&mut execution, Response::Received(output("x"))).unwrap();
        assert_eq!(execution.turn(), Turn::Receive { patience: LOST_PATIENCE });
        if ends {
            answer(&mut execution, Response::Received(done(3))).unwrap();
        } else {
            // It waits for input, perhaps, that nobody dares to send.
            let trouble = answer(&mut execution, fault(TIMED_OUT));
            assert!(matches!(trouble, Err(Trouble::Fault(Fault { code: Some(PROVIDER_TIMEOUT), .. }))));
        }
        assert_eq!(execution.turn(), Turn::Finished);
    }
}

#[test]
fn pieces_shrink_to_what_the_host_takes() {
    let mut execution = execution(Some(&[1; 8000]), 8000);
    accept(&mut execution);
    for expected in [4000, 2000, 1024] {
        answer(&mut execution, fault(TOO_LARGE)).unwrap();
        assert!(matches!(execution.turn(), Turn::Send { data, .. } if data.len() == expected));
    }
    assert!(matches!(answer(&mut execution, fault(TOO_LARGE)), Err(Trouble::Fault(_))));
}

#[test]
fn streamed_input_is_sent_beside_a_receive_that_waits() {
    let invocation = Invocation { command_line: "sort".into(), stdin: None, streamed: true };
    let mut execution = Execution::new(&invocation, ID, 1024);
    assert!(invocation.has_input() && execution.wants_input());
    accept(&mut execution);
    let receive = execution.turn();
    assert_eq!(receive, Turn::Receive { patience: Duration::MAX });
    assert_eq!(execution.input_turn(), None);
    execution.feed(Bytes::from_static(b"one"));
    execution.feed(Bytes::from_static(b"two"));
    for expected in ["one", "two"] {
        let send = execution.input_turn().unwrap();
        assert!(matches!(&send, Turn::Send { data, end: false, .. } if data == expected), "{send:?}");
        execution.answer(&send, Response::Sent).unwrap();
    }
    assert_eq!(execution.input_turn(), None);
    execution.end_input();
    let end = execution.input_turn().unwrap();
    assert!(matches!(&end, Turn::Send { data, end: true, .. } if data.is_empty()), "{end:?}");
    execution.answer(&end, Response::Sent).unwrap();
    assert_eq!((execution.input_turn(), execution.wants_input()), (None, false));
    execution.answer(&receive, Response::Received(done(0))).unwrap();
    assert_eq!(execution.turn(), Turn::Finished);
}

#[test]
fn streamed_input_waits_when_enough_of_it_waits() {
    let invocation = Invocation { command_line: "sort".into(), stdin: None, streamed: true };
    let mut execution = Execution::new(&invocation, ID, 64 * 1024);
    accept(&mut execution);
    while execution.wants_input() {
        execution.feed(Bytes::from_static(&[1; 100_000]));
    }
    assert_eq!(execution.waiting, 300_000);
    // A command that does not read stalls input, until a pause or an answered Receive.
    let send = execution.input_turn().unwrap();
    execution.answer(&send, fault(BUSY)).unwrap();
    assert!(execution.is_stalled() && execution.input_turn().is_none());
    execution.retry_input();
    assert_eq!(execution.input_turn(), Some(send.clone()));
    // The end of the command may overtake the answer to a Send.
    execution.answer(&Turn::Receive { patience: Duration::MAX }, Response::Received(done(0))).unwrap();
    execution.answer(&send, fault(NOT_THERE)).unwrap();
    assert_eq!(execution.turn(), Turn::Finished);
}

#[test]
fn a_command_that_surely_did_not_start_says_so() {
    let mut lost = execution(None, 1024);
    assert!(matches!(answer(&mut lost, fault(NOT_THERE)), Err(Trouble::Fault(_))));
    assert_eq!(lost.turn(), Turn::Finished);
    lost.restart();
    accept(&mut lost);

    let mut refused = execution(None, 1024);
    assert!(matches!(answer(&mut refused, fault(5)), Err(Trouble::Fault(_))));
    let mut ambiguous = execution(None, 1024);
    assert!(matches!(answer(&mut ambiguous, fault(TIMED_OUT)), Err(Trouble::Fault(_))));
}

#[test]
fn a_shell_lost_while_receiving_leaves_the_outcome_open() {
    let mut execution = execution(None, 1024);
    accept(&mut execution);
    assert!(matches!(answer(&mut execution, fault(NOT_THERE)), Err(Trouble::Fault(_))));
    assert_eq!(execution.turn(), Turn::Finished);
}

#[test]
fn a_lost_answer_is_told_with_the_exit_code() {
    let mut execution = execution(None, 1024);
    accept(&mut execution);
    execution.lost_answer();
    answer(&mut execution, Response::Received(done(0))).unwrap();
    assert_eq!(execution.event(), Some(Event::Done { exit_code: 0, output_gap: true }));
}

#[test]
fn answers_that_do_not_belong_are_not_believed() {
    let other = Uuid::from_u128(1);
    let mut started = execution(None, 1024);
    assert!(matches!(answer(&mut started, Response::CommandStarted(other.to_string())), Err(Trouble::Unexpected(_))));
    let mut mixed = execution(None, 1024);
    accept(&mut mixed);
    assert!(matches!(answer(&mut mixed, Response::Sent), Err(Trouble::Unexpected(_))));
    let mut foreign = execution(None, 1024);
    accept(&mut foreign);
    let received = Received { command_id: Some(other.to_string()), ..output("x") };
    assert!(matches!(answer(&mut foreign, Response::Received(received)), Err(Trouble::Unexpected(_))));
    assert_eq!(foreign.event(), None);
    let mut codeless = execution(None, 1024);
    accept(&mut codeless);
    assert!(matches!(
        answer(&mut codeless, Response::Received(Received { exit_code: None, ..done(0) })),
        Err(Trouble::Unexpected(_))
    ));
}
