//! Shells that nobody holds: those of a process that was killed, and those of a Create whose answer got lost.
//!
//! Every shell is created under a name that says whose it is, so that it can be found in the host's listing and told from
//! the shells of others. Pure; what is found is deleted in the background.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::key::User;
use super::lock;
use crate::wsman::ListedShell;

/// Users remembered at most. Beyond, the first ones are looked at once more.
const MOST: usize = 20_000;

/// How the shells of a pool are named: `lictor:<owner>:<instance>:<shell>`.
#[derive(Debug)]
pub(super) struct Names {
    /// `lictor:<owner>:`, when the pool has an owner that outlives it.
    owner: Option<String>,
    instance: Arc<str>,
    swept: Mutex<HashSet<User>>,
}

impl Names {
    /// `owner` tells pools apart that may look at the same hosts, and stays the same when a process is replaced.
    pub(super) fn new(owner: Option<&str>) -> Self {
        let allowed = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        let owner =
            owner.map(|owner| format!("lictor:{}:", owner.chars().filter(allowed).take(64).collect::<String>()));
        let instance = format!("{}{}:", owner.as_deref().unwrap_or("lictor::"), Uuid::new_v4().simple());
        Self { owner, instance: instance.into(), swept: Mutex::default() }
    }

    /// What the names of this pool's shells begin with.
    pub(super) fn prefix(&self) -> Arc<str> {
        Arc::clone(&self.instance)
    }

    /// Whether the shells of `user` are still to be looked at for orphans. Answers yes once.
    pub(super) fn to_be_swept(&self, user: User) -> bool {
        if self.owner.is_none() {
            return false;
        }
        let mut swept = lock(&self.swept);
        if swept.len() >= MOST {
            swept.clear();
        }
        swept.insert(user)
    }

    /// A look that failed may be taken again.
    pub(super) fn not_swept(&self, user: &User) {
        lock(&self.swept).remove(user);
    }

    /// Whether an earlier process of the same owner left this shell behind.
    pub(super) fn is_orphan(&self, shell: &ListedShell) -> bool {
        match (&self.owner, &shell.name) {
            (Some(owner), Some(name)) => name.starts_with(owner) && !name.starts_with(&*self.instance),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> ListedShell {
        ListedShell { shell_id: "1".to_owned(), name: Some(name.to_owned()) }
    }

    #[test]
    fn only_shells_of_earlier_processes_of_the_same_owner_are_orphans() {
        let names = Names::new(Some("agent-1"));
        let before = Names::new(Some("agent-1"));
        let other = Names::new(Some("agent-10"));
        assert!(names.is_orphan(&listed(&format!("{}x", before.prefix()))));
        for name in [names.prefix(), other.prefix(), "lictor:agent-1".into(), "".into(), "Windows Admin Center".into()]
        {
            assert!(!names.is_orphan(&listed(&name)), "{name}");
        }
        assert!(!names.is_orphan(&ListedShell::default()));
        assert!(!Names::new(None).is_orphan(&listed(&before.prefix())));
    }

    #[test]
    fn owners_cannot_smuggle_separators() {
        let names = Names::new(Some("a:b\"<é c"));
        assert!(names.prefix().starts_with("lictor:abc:"), "{}", names.prefix());
        assert!(Names::new(None).prefix().starts_with("lictor::"));
    }
}
