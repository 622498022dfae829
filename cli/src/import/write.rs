//! Files for the next commands: a document of credentials and lists of hosts. Passwords are in none of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lictor_import::ansible::plan::{ListedHost, Plan};

use crate::failure::Failure;

/// Writes all files, and tells their paths.
pub(super) fn write(directory: &Path, plan: &Plan) -> Result<Vec<String>, Failure> {
    let failed =
        |path: &Path, error: &std::io::Error| Failure::local(format!("failed to write {}: {error}", path.display()));
    fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    let mut written = Vec::new();
    let mut save = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| failed(&path, &error))?;
        written.push(path.display().to_string());
        Ok::<(), Failure>(())
    };
    if !plan.credentials.is_empty() {
        let documents: String =
            plan.credentials.iter().map(|credential| format!("---\n{}", credential.document())).collect();
        save(
            "credentials.yaml",
            format!("# Store these: lictor credential import. Passwords are names here.\n{documents}"),
        )?;
    }
    for (list, name) in plan.lists.iter().zip(list_names(plan)) {
        let lines: Vec<String> = list.hosts.iter().map(ListedHost::line).collect();
        let flags = if list.flags.is_empty() { String::new() } else { format!(" {}", list.flags.join(" ")) };
        save(&name, format!("# lictor task submit --credential {}{flags}\n{}\n", list.credential, lines.join("\n")))?;
    }
    Ok(written)
}

/// A file's name for each list: numbered where a credential has several.
pub(super) fn list_names(plan: &Plan) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut names = Vec::new();
    for list in &plan.lists {
        let count = counts.entry(list.credential.as_str()).or_default();
        *count += 1;
        names.push(match count {
            1 => format!("hosts-{}.txt", list.credential),
            count => format!("hosts-{}-{count}.txt", list.credential),
        });
    }
    names
}
