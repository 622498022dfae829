//! The steps that bring a database of any earlier version to this one: the files of `migrations/sqlite`, as part of the program.
//!
//! Must never change a step that was released: databases know each step that they went through by its checksum, and are refused
//! where it differs.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, name and text. Listed here, and not by SQLx's macro, which compiles SQLite once more for itself.
const STEPS: [(i64, &str, &str); 9] = [
    (1, "first", include_str!("../../migrations/sqlite/0001_first.sql")),
    (2, "may have run", include_str!("../../migrations/sqlite/0002_may_have_run.sql")),
    (3, "access", include_str!("../../migrations/sqlite/0003_access.sql")),
    (4, "batches", include_str!("../../migrations/sqlite/0004_batches.sql")),
    (5, "keeping", include_str!("../../migrations/sqlite/0005_keeping.sql")),
    (6, "kerberos", include_str!("../../migrations/sqlite/0006_kerberos.sql")),
    (7, "traces", include_str!("../../migrations/sqlite/0007_traces.sql")),
    (8, "secrets", include_str!("../../migrations/sqlite/0008_secrets.sql")),
    (9, "passing", include_str!("../../migrations/sqlite/0009_passing.sql")),
];

/// All steps, each in a transaction of its own.
pub(super) fn all() -> Migrator {
    let step = |(version, name, text): (i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(STEPS.into_iter().map(step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_steps_are_those_that_sqlx_finds_in_the_directory() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
        let found = Migrator::new(directory.as_path()).await.unwrap();
        let said = |migrations: &Migrator| -> Vec<_> {
            migrations
                .iter()
                .map(|step| {
                    let kind = format!("{:?}", step.migration_type);
                    (step.version, step.description.clone(), kind, step.checksum.clone(), step.no_tx)
                })
                .collect()
        };
        assert_eq!(said(&all()), said(&found));
        let files = std::fs::read_dir(&directory).unwrap().count();
        assert_eq!(files, STEPS.len(), "SQLx leaves files out whose names it cannot read");
    }
}
