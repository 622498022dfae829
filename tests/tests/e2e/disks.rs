//! Disks of agents that fail: what cannot be kept is said. How the journal fares on a disk that is full or fails while it is
//! written is tested beside it, with one that fails at each write in turn.

use anyhow::Result;
use lictor_tests::{Agent, Disk, Stack};

use crate::PATIENCE;

#[test]
fn a_state_directory_that_is_read_only_or_damaged_at_the_start_is_said_clearly() -> Result<()> {
    let stack = Stack::start(&[])?;
    let Some(disk) = Disk::mount(&stack.directory().join("agent-1"), "8m")? else {
        eprintln!("skipped: mounting is not allowed here");
        return Ok(());
    };
    let token = stack.join_token(&[])?;
    let mut agent = Agent::spawn_on(&disk, &stack, "agent-1", &token, &[])?;
    agent.wait_connected()?;
    agent.process.kill()?;
    disk.remount("ro")?;
    agent.restart()?;
    assert_eq!(agent.process.wait(PATIENCE)?.code(), Some(68));
    let log = agent.process.log();
    assert!(log.contains("Read-only file system"), "{log}");
    disk.remount("rw")?;
    let journal = disk.inside().join("journal.redb");
    std::fs::write(&journal, b"no journal")?;
    agent.restart()?;
    agent.wait_connected()?;
    let list = stack.lictor_json(&["agent", "list"])?.to_string();
    assert!(list.contains("was damaged and set aside"), "{list}");
    Ok(())
}
