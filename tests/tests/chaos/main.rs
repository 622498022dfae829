//! Everything fails at once, and nothing is lost, run twice or left behind.
//!
//! One control plane, three agents and twenty simulated hosts as real processes; a stream of tasks; and a schedule of
//! kills, drains, reboots, and connections that are cut and stalled by fault proxies. Then the faults stop, everything comes
//! to rest, and is judged by what the hosts counted. The schedule comes from a seed; how it meets the tasks is up to the
//! machine. `scripts/chaos` runs it for longer: LICTOR_CHAOS_SECONDS and LICTOR_CHAOS_SEED.

#![expect(clippy::print_stdout, reason = "progress, and what came of it, for whoever runs this for minutes")]

mod api;
mod faults;
mod judge;
mod work;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lictor_tests::{Random, eventually};
use tokio::sync::watch;

use api::Api;
use faults::{Fleet, agent_name};
use judge::Verdict;
use work::{Entry, Kind, Shared, Stream, Wish};

#[test]
fn nothing_is_lost_run_twice_or_left_behind_whatever_fails() -> Result<()> {
    let setting =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default);
    let (seconds, seed) = (setting("LICTOR_CHAOS_SECONDS", 60), setting("LICTOR_CHAOS_SEED", 1));
    println!("seed {seed}, {seconds} s");
    let mut fleet = Fleet::start(AGENTS, HOSTS)?;
    println!("logs: {}", fleet.stack.keep().display());
    let judged = chaos(&mut fleet, seed, Duration::from_secs(seconds));
    if judged.is_ok() {
        let directory = fleet.stack.directory().to_owned();
        drop(fleet);
        std::fs::remove_dir_all(directory)?;
    }
    judged
}

fn chaos(fleet: &mut Fleet, seed: u64, time: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let api =
        runtime.block_on(async { Api::new(&fleet.stack.control_plane.address, &fleet.stack.control_plane.state) })?;
    let book = Shared::default();
    let (wish, wishes) = watch::channel(Wish::Submit);
    let stream =
        Stream { api: api.clone(), book: book.clone(), places: fleet.places.clone(), random: Random::new(seed) };
    let stream = runtime.spawn(stream.run(wishes));

    let mut random = Random::new(seed ^ 0xFA01_7500);
    let begin = Instant::now();
    let (mut next, mut told) = (begin, begin);
    while begin.elapsed() < time {
        fleet.tend()?;
        if Instant::now() >= next {
            fleet.disturb(&mut random)?;
            next = Instant::now() + Duration::from_millis(random.between(200, 1500));
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            let book = book.lock();
            println!("{:>4} s: {} tasks, {} open", begin.elapsed().as_secs(), book.entries.len(), book.open());
        }
        std::thread::sleep(Duration::from_millis(20));
    }

    let calm = Instant::now();
    wish.send(Wish::Follow)?;
    fleet.heal()?;
    let settled = settle(fleet, &book, SETTLE);
    println!("everything was final {:?} after the last fault", calm.elapsed());
    settled?;

    // New processes use every host once more, and find there what the old ones have left behind.
    fleet.replace_agents()?;
    runtime.block_on(async {
        for agent in (0..AGENTS).map(agent_name) {
            for (host, place) in fleet.places.iter().enumerate() {
                let mark = format!("sweep-{agent}-{host}");
                let (kind, idempotent, cancelled) = (Kind::Sweep, false, false);
                let entry = Entry { mark: mark.clone(), kind, host, idempotent, cancelled, task_id: None, end: None };
                let spec = work::spec(&entry, place, 60, Some(&agent));
                book.lock().entries.insert(mark.clone(), entry);
                work::submit(&api, &book, spec, &mark).await;
            }
        }
    });
    settle(fleet, &book, SETTLE)?;
    // Sweeping goes on behind the task that caused it. What stays is the warm shell of each agent.
    let swept = eventually("the hosts are swept", SWEEP, || {
        for host in &fleet.hosts {
            let left = (host.count("/commands/running")?, host.count("/shells/open")?);
            anyhow::ensure!(left.0 == 0 && left.1 <= AGENTS as u64, "{:#}", host.shells()?);
        }
        Ok(())
    });
    wish.send(Wish::End)?;
    runtime.block_on(stream)?;
    fleet.stop_agents()?;

    let mut marks = BTreeMap::new();
    for host in &fleet.hosts {
        let statistics = host.statistics()?;
        for (mark, count) in statistics["marks"].as_object().context("marks")? {
            *marks.entry(mark.clone()).or_insert(0) += count.as_u64().context("a count")?;
        }
    }
    let book = std::mem::take(&mut *book.lock());
    let mut verdict = runtime.block_on(Verdict::over(&book, &api, &marks));
    let violations = &mut verdict.violations;
    violations.append(&mut fleet.violations);
    violations.extend(swept.err().map(|error| format!("{error:#}")));
    judge::hosts(&fleet.hosts, violations)?;
    violations.extend(judge::leaks(fleet.stack.directory())?);
    violations.extend(judge::strays(fleet.stack.directory(), &fleet.pids())?);

    println!("\n{}\n", verdict.table());
    for (what, count) in &fleet.done {
        println!("{count:>6}  {what}");
    }
    let logs = fleet.stack.directory().display();
    anyhow::ensure!(
        verdict.violations.is_empty(),
        "seed {seed}: {} violations; the logs are in {logs}\n{}",
        verdict.violations.len(),
        verdict.violations.join("\n")
    );
    anyhow::ensure!(
        verdict.success() >= LEAST_SUCCESS,
        "seed {seed}: only {} % of the tasks that could succeed did; the logs are in {logs}",
        verdict.success()
    );
    Ok(())
}

/// Waits until every task is final.
fn settle(fleet: &mut Fleet, book: &Shared, within: Duration) -> Result<()> {
    eventually("every task is final", within, || {
        fleet.tend()?;
        let book = book.lock();
        let open: Vec<_> = book.entries.values().filter(|entry| entry.end.is_none()).collect();
        anyhow::ensure!(open.is_empty(), "{} are not, such as {:?}", open.len(), &open[..open.len().min(3)]);
        Ok(())
    })
}

const AGENTS: usize = 3;
const HOSTS: usize = 20;
/// A task may run for 60 s, and an agent that was cut off again and again waits for up to 30 s.
const SETTLE: Duration = Duration::from_secs(180);
/// Much less than the time after which warm shells go by themselves.
const SWEEP: Duration = Duration::from_secs(20);
const TELL: Duration = Duration::from_secs(10);
/// Less would mean that this proves nothing.
const LEAST_SUCCESS: u32 = 50;
