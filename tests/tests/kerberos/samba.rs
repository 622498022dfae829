//! An Active Directory domain: what Samba says to us.
//!
//! One test for all of it, since the domain takes long to come up; its themes run at the same time and fail one by one. Each
//! theme that spoils the state of an account has accounts of its own.

#![expect(clippy::panic, reason = "what is exempt in tests should be so in the functions that they share")]

mod winbind;

use std::collections::HashMap;
use std::sync::Arc;

use lictor_tests::Samba;
use tokio::task::{JoinSet, spawn_blocking};

#[tokio::test(flavor = "multi_thread")]
async fn an_active_directory_domain() {
    let Some(samba) = spawn_blocking(Samba::start).await.unwrap().unwrap() else { return };
    let realm = Arc::new(Realm { samba: Arc::new(samba) });
    let mut themes = JoinSet::new();
    let mut names = HashMap::new();
    macro_rules! run {
        ($($theme:path),* $(,)?) => {$(
            let shared = Arc::clone(&realm);
            names.insert(themes.spawn(async move { $theme(&shared).await }).id(), stringify!($theme));
        )*};
    }
    run!(winbind::ntlm_tokens_are_accepted, winbind::ntlm_refusals_have_their_statuses);
    let mut failed = Vec::new();
    while let Some(ended) = themes.join_next().await {
        failed.extend(ended.err().map(|error| names[&error.id()]));
    }
    assert!(failed.is_empty(), "failed, for reasons above: {failed:?}");
}

/// The domain.
struct Realm {
    samba: Arc<Samba>,
}
