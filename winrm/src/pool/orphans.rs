//! Shells that nobody holds: those of a process that was killed, and those of a Create whose answer got lost.
//!
//! Every shell is created under a name that says whose it is, so that it can be found in the host's listing and told from
//! the shells of others. Pure; what is found is deleted in the background.

use std::collections::{HashMap, HashSet};
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
    /// Shells of an earlier process that somebody will follow again, in upper case, and as whose they were passed over.
    spared: Mutex<HashMap<String, Option<User>>>,
}

impl Names {
    /// `owner` tells pools apart that may look at the same hosts, and stays the same when a process is replaced.
    pub(super) fn new(owner: Option<&str>) -> Self {
        let allowed = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        let owner =
            owner.map(|owner| format!("lictor:{}:", owner.chars().filter(allowed).take(64).collect::<String>()));
        let instance = format!("{}{}:", owner.as_deref().unwrap_or("lictor::"), Uuid::new_v4().simple());
        Self { owner, instance: instance.into(), swept: Mutex::default(), spared: Mutex::default() }
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

    /// From now on this shell is no orphan, whoever named it.
    pub(super) fn spare(&self, shell_id: &str) {
        lock(&self.spared).insert(shell_id.to_uppercase(), None);
    }

    /// The shell is one like any other again. If it was passed over, the user's shells are looked at once more.
    pub(super) fn spare_no_more(&self, shell_id: &str) {
        let passed_over = lock(&self.spared).remove(&shell_id.to_uppercase()).flatten();
        if let Some(user) = passed_over {
            self.not_swept(&user);
        }
    }

    /// Whether an earlier process of the same owner left this shell of `user` behind, for good.
    pub(super) fn is_orphan(&self, shell: &ListedShell, user: &User) -> bool {
        let left_behind = match (&self.owner, &shell.name) {
            (Some(owner), Some(name)) => name.starts_with(owner) && !name.starts_with(&*self.instance),
            _ => false,
        };
        if !left_behind {
            return false;
        }
        match lock(&self.spared).get_mut(&shell.shell_id.to_uppercase()) {
            Some(passed_over) => {
                *passed_over = Some(user.clone());
                false
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User::of(&crate::pool::tests::target("h", "alice", "p"))
    }

    fn listed(name: &str) -> ListedShell {
        ListedShell { shell_id: "1".to_owned(), name: Some(name.to_owned()) }
    }

    #[test]
    fn only_shells_of_earlier_processes_of_the_same_owner_are_orphans() {
        let names = Names::new(Some("agent-1"));
        let before = Names::new(Some("agent-1"));
        let other = Names::new(Some("agent-10"));
        assert!(names.is_orphan(&listed(&format!("{}x", before.prefix())), &user()));
        for name in [names.prefix(), other.prefix(), "lictor:agent-1".into(), "".into(), "Windows Admin Center".into()]
        {
            assert!(!names.is_orphan(&listed(&name), &user()), "{name}");
        }
        assert!(!names.is_orphan(&ListedShell::default(), &user()));
        assert!(!Names::new(None).is_orphan(&listed(&before.prefix()), &user()));
    }

    #[test]
    fn a_shell_that_is_waited_for_is_passed_over_and_looked_at_again_afterwards() {
        let names = Names::new(Some("agent-1"));
        let before = Names::new(Some("agent-1"));
        let shell = ListedShell { shell_id: "ab-1".to_owned(), name: Some(format!("{}x", before.prefix())) };
        names.spare("AB-1");
        assert!(names.to_be_swept(user()));
        assert!(!names.is_orphan(&shell, &user()));
        assert!(!names.to_be_swept(user()));
        names.spare_no_more("Ab-1");
        assert!(names.to_be_swept(user()));
        assert!(names.is_orphan(&shell, &user()));
    }

    #[test]
    fn owners_cannot_smuggle_separators() {
        let names = Names::new(Some("a:b\"<é c"));
        assert!(names.prefix().starts_with("lictor:abc:"), "{}", names.prefix());
        assert!(Names::new(None).prefix().starts_with("lictor::"));
    }
}
