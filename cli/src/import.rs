//! `lictor import`: what users of other tools have, shown as what it comes to here.
//!
//! Changes nothing and needs no control plane. No password is shown or written.

mod report;
mod write;

use lictor_import::Mistake;
use lictor_import::ansible::plan::Plan;
use lictor_import::ansible::{disk, target};

use crate::args::Output;
use crate::args::import::{AnsibleArgs, ImportCommand};
use crate::console;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use report::Report;

/// `lictor import`.
pub(crate) async fn run(command: ImportCommand, output: Output) -> Result<Exit, Failure> {
    let ImportCommand::Ansible(args) = command;
    let report = tokio::task::spawn_blocking(move || ansible(&args));
    let report = report.await.map_err(|error| Failure::local(format!("failed to read the inventory: {error}")))??;
    for warning in &report.warnings {
        console::note(&clean(warning));
    }
    match output {
        Output::Json => console::print_json(&report)?,
        Output::Text => console::print(&report.to_text())?,
    }
    Ok(Exit::SUCCESS)
}

/// Reads inventories, and writes files if asked to.
fn ansible(args: &AnsibleArgs) -> Result<Report, Failure> {
    let (inventory, places) = disk::load(&args.inventories, args.playbook_dir.as_deref()).map_err(unusable)?;
    let mut report = Report::default();
    report.warnings.extend(inventory.warnings().iter().map(ToString::to_string));
    let mut matched = 0;
    for host in inventory.hosts() {
        if !args.group.is_empty() && !is_wanted(&args.group, host, &inventory.groups_of(host)) {
            continue;
        }
        matched += 1;
        let effective = inventory.effective(host, &places);
        report.add(host, target::target(host, &effective, args.user.as_deref()));
    }
    if matched == 0 {
        let (message, remedy) = if args.group.is_empty() {
            ("the inventory names no host", "Give an inventory with hosts.")
        } else {
            ("no host matches --group", "Give names of groups or hosts, with * and ? in them if need be.")
        };
        return Err(Failure::usage(message, remedy));
    }
    report.plan = Plan::new(&report.targets);
    if let Some(directory) = &args.write {
        report.written = write::write(directory, &report.plan)?;
    }
    report.commands(args.write.as_deref());
    Ok(report)
}

fn unusable(mistake: Mistake) -> Failure {
    Failure::usage(
        format!("the inventory cannot be used: {mistake}"),
        "Correct what is named; docs/ansible.md says what is read.",
    )
}

/// Whether a host, or one of its groups, matches one of the patterns and none that leaves out.
fn is_wanted(patterns: &[String], host: &str, groups: &[&str]) -> bool {
    let matches_any =
        |pattern: &str| pattern == "all" || glob(pattern, host) || groups.iter().any(|group| glob(pattern, group));
    let (without, with): (Vec<&str>, Vec<&str>) =
        patterns.iter().map(|pattern| pattern.trim()).partition(|pattern| pattern.starts_with('!'));
    let is_in = with.is_empty() || with.into_iter().any(matches_any);
    is_in && !without.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(matches_any)
}

/// `*` stands for any text, `?` for one character.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut position) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at + 1, position));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || text.get(position) == Some(wanted) => {
                at += 1;
                position += 1;
            }
            _ => match &mut retry {
                Some((behind, from)) => {
                    *from += 1;
                    (at, position) = (*behind, *from);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_choose_groups_and_hosts() {
        let wanted = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            is_wanted(&patterns, "web1.corp.example", &["web", "windows"])
        };
        for yes in
            [&["web"][..], &["w*s"], &["web1.*"], &["db", "windows"], &["all"], &["!db"], &["*", "!db"], &["we?"]]
        {
            assert!(wanted(yes), "{yes:?}");
        }
        for no in [&["db"][..], &["web", "!windows"], &["!web1*"], &["we"], &["eb"], &["*x"]] {
            assert!(!wanted(no), "{no:?}");
        }
        assert!(glob("a*b*c", "aXbYbZc") && !glob("a*b*c", "aXbYbZ"));
    }
}
