//! Scenarios that once broke something, shrunk, as plain tests.

use crate::run;
use crate::world::Step;

#[test]
fn a_late_result_arrives_though_more_output_is_before_it_than_fits_into_the_window() {
    let steps = [
        Step::Submit { idempotent: false },
        Step::Pass { seconds: 1 },
        Step::Stall { agent: 0 },
        Step::Begin { agent: 0, task: 0 },
        Step::Produce { agent: 0, task: 0, count: 51 },
        Step::Finish { agent: 0, task: 0 },
        // Lease and wait run out: the task is Unknown.
        Step::Pass { seconds: 90 },
    ];
    assert_eq!(run(1, 1, 50, &steps), Ok(()));
}

#[test]
fn an_assignment_that_the_engine_has_not_taken_when_the_connection_breaks_is_not_given_to_another() {
    let steps = [
        Step::Stall { agent: 1 },
        Step::Pass { seconds: 1 },
        Step::Submit { idempotent: false },
        Step::Pump { agent: 0 },
        Step::Down { agent: 0, count: 1 },
        Step::Break { agent: 0 },
        Step::Connect { agent: 0 },
        Step::Pump { agent: 0 },
        Step::Up { agent: 0, count: 2 },
        Step::Unstall { agent: 1 },
    ];
    assert_eq!(run(2, 1, 4096, &steps), Ok(()));
}

#[test]
fn a_first_word_that_a_dead_process_left_on_the_way_does_not_shut_its_successor_out() {
    let steps = [
        Step::Submit { idempotent: false },
        Step::Pass { seconds: 1 },
        Step::KillAgent { agent: 0 },
        Step::StartAgent { agent: 0 },
        // Its Hello is on the way when it dies, and arrives behind that of the next process.
        Step::Connect { agent: 0 },
        Step::Pump { agent: 0 },
        Step::KillAgent { agent: 0 },
        Step::StartAgent { agent: 0 },
        Step::Pass { seconds: 1 },
    ];
    assert_eq!(run(1, 3, 50, &steps), Ok(()));
}
