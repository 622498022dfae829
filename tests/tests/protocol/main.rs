//! Both sides of the link's protocol against each other, without sockets and clocks.
//!
//! The agent's link protocol and the control plane's ledger are the real ones; engine, disk and network are models that do
//! what a list of steps says. Whatever the list: nothing is lost, nothing is run twice, and in the end everything ends.
//! Where sides of the previous version are among them, everything passes through its contract (`previous`).
//! `PROPTEST_CASES=100000 cargo nextest run -p lictor-tests --test protocol` looks longer.

mod agent;
mod judge;
mod previous;
mod regressions;
mod world;

use std::fmt;

use proptest::prelude::*;

use world::{Ages, Step, World};

fn run(agents: usize, slots: u32, window: u64, steps: &[Step]) -> Result<(), String> {
    run_between(Ages::default(), agents, slots, window, steps)
}

/// The same with sides of the previous version among them.
fn run_between(ages: Ages, agents: usize, slots: u32, window: u64, steps: &[Step]) -> Result<(), String> {
    let mut world = World::new(ages, agents, slots, window);
    for step in steps {
        world.step(*step);
    }
    world.settle()
}

/// Prints as it is written in a regression: one step a line.
#[derive(Clone)]
struct Steps(Vec<Step>);

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n    Step::{step:?},"))
    }
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..3_usize;
    let task = 0..4_usize;
    let count = prop_oneof![3 => 0..4_usize, 1 => Just(100)];
    let one = |make: fn(usize) -> Step| (0..3_usize).prop_map(make);
    prop_oneof![
        6 => any::<bool>().prop_map(|idempotent| Step::Submit { idempotent }),
        2 => task.clone().prop_map(|task| Step::Cancel { task }),
        12 => Just(Step::Flow),
        4 => one(|agent| Step::Pump { agent }),
        3 => one(|agent| Step::Obey { agent }),
        6 => (agent.clone(), count.clone()).prop_map(|(agent, count)| Step::Up { agent, count }),
        6 => (agent.clone(), count.clone()).prop_map(|(agent, count)| Step::Down { agent, count }),
        8 => (agent.clone(), task.clone()).prop_map(|(agent, task)| Step::Begin { agent, task }),
        8 => (agent.clone(), task.clone(), 1..150_u64)
            .prop_map(|(agent, task, count)| Step::Produce { agent, task, count }),
        6 => (agent.clone(), task).prop_map(|(agent, task)| Step::Finish { agent, task }),
        5 => one(|agent| Step::Break { agent }),
        3 => (agent.clone(), count.clone()).prop_map(|(agent, count)| Step::Tail { agent, count }),
        2 => one(|agent| Step::Deafen { agent }),
        6 => one(|agent| Step::Connect { agent }),
        2 => one(|agent| Step::Stall { agent }),
        3 => one(|agent| Step::Unstall { agent }),
        3 => one(|agent| Step::KillAgent { agent }),
        4 => one(|agent| Step::StartAgent { agent }),
        1 => one(|agent| Step::Terminate { agent }),
        1 => one(|agent| Step::Drain { agent }),
        1 => one(|agent| Step::Revoke { agent }),
        3 => (agent, count, any::<bool>())
            .prop_map(|(agent, count, stored)| Step::KillControlPlane { agent, count, stored }),
        6 => prop_oneof![1..10_u64, 20..130_u64].prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// Steps of an upgrade among the others. Agents also go back; the control plane does not, because its database cannot.
fn step_of_upgrade() -> impl Strategy<Value = Step> {
    prop_oneof![
        90 => step(),
        5 => Just(Step::SubmitDiagnosis),
        8 => (0..3_usize).prop_map(|agent| Step::ReplaceAgent { agent }),
        1 => Just(Step::UpgradeControlPlane),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(CASES))]

    #[test]
    fn whatever_breaks_nothing_is_lost_and_nothing_runs_twice(
        agents in 1..4_usize,
        slots in 1..4_u32,
        window in prop_oneof![Just(50_u64), Just(4096)],
        steps in prop::collection::vec(step(), 1..120).prop_map(Steps),
    ) {
        if let Err(breach) = run(agents, slots, window, &steps.0) {
            return Err(TestCaseError::fail(breach));
        }
    }
}

proptest! {
    #![proptest_config(config(CASES / 2))]

    #[test]
    fn whatever_breaks_between_one_version_and_the_next_nothing_is_lost_and_nothing_runs_twice(
        agents in 1..4_usize,
        slots in 1..4_u32,
        window in prop_oneof![Just(50_u64), Just(4096)],
        ages in (any::<bool>(), any::<[bool; 3]>()).prop_map(|(control_plane, agents)| Ages { control_plane, agents }),
        steps in prop::collection::vec(step_of_upgrade(), 1..120).prop_map(Steps),
    ) {
        if let Err(breach) = run_between(ages, agents, slots, window, &steps.0) {
            return Err(TestCaseError::fail(breach));
        }
    }
}

/// About ten seconds without optimisation.
const CASES: u32 = 1500;
