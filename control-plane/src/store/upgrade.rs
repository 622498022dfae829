//! Encrypts what versions before encryption of tasks have stored in clear. Runs once, before anybody else looks.
//!
//! Output stays as it was written: there may be far too much of it to be rewritten at a start, and retention removes it.

use sqlx::Row as _;
use tracing::info;
use zeroize::Zeroizing;

use super::tasks::sealed;
use super::{StoreError, Writer, unsigned};
use crate::vault::Place;

/// Encrypts specifications, results and late results, then takes the clear text out of the write-ahead log too.
pub(super) async fn seal_plain_records(writer: &mut Writer) -> Result<(), StoreError> {
    let mut records = 0;
    loop {
        let some = seal_some(writer).await?;
        if some == 0 {
            break;
        }
        records += some;
    }
    if records > 0 {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut **writer).await?;
        info!(records, "Tasks that an earlier version stored in clear were encrypted");
    }
    Ok(())
}

async fn seal_some(writer: &mut Writer) -> Result<usize, StoreError> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut **writer).await?;
    let tasks = sqlx::query("SELECT seq, task_id, spec, result FROM tasks WHERE NOT sealed LIMIT $1")
        .bind(AT_ONCE)
        .fetch_all(&mut **writer)
        .await?;
    for row in &tasks {
        let task_id: &str = row.try_get("task_id")?;
        let spec: Zeroizing<Vec<u8>> = Zeroizing::new(row.try_get("spec")?);
        let result: Option<Vec<u8>> = row.try_get("result")?;
        let result = result.map(|plain| sealed(&writer.keys, task_id, Place::Result, &Zeroizing::new(plain)));
        let late = sqlx::query("SELECT epoch, result FROM late_results WHERE task_id = $1")
            .bind(task_id)
            .fetch_all(&mut writer.connection)
            .await?;
        for row in late {
            let epoch: i64 = row.try_get("epoch")?;
            let plain: Zeroizing<Vec<u8>> = Zeroizing::new(row.try_get("result")?);
            let place = Place::LateResult { epoch: unsigned(epoch) };
            sqlx::query("UPDATE late_results SET result = $3 WHERE task_id = $1 AND epoch = $2")
                .bind(task_id)
                .bind(epoch)
                .bind(sealed(&writer.keys, task_id, place, &plain)?)
                .execute(&mut writer.connection)
                .await?;
        }
        sqlx::query("UPDATE tasks SET spec = $2, result = $3, sealed = TRUE WHERE seq = $1")
            .bind(row.try_get::<i64, _>("seq")?)
            .bind(sealed(&writer.keys, task_id, Place::Spec, &spec)?)
            .bind(result.transpose()?)
            .execute(&mut writer.connection)
            .await?;
    }
    sqlx::query("COMMIT").execute(&mut **writer).await?;
    Ok(tasks.len())
}

/// Bounds memory: a specification may hold a script of 5 MiB.
const AT_ONCE: i64 = 32;

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{TaskResult, TaskSpec, TaskState};
    use prost::Message as _;
    use sqlx::Connection as _;

    use super::*;
    use crate::store;
    use crate::vault::Vault;

    const MARKER: &str = "Mark3r-in-clear";

    #[tokio::test]
    async fn what_an_earlier_version_stored_in_clear_is_encrypted_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&crate::config::MasterKeySource::StateDir, dir.path()).unwrap();
        let (mut writer, readers) = store::open(dir.path(), vault.task_keys()).await.unwrap();
        let spec = TaskSpec { label: MARKER.into(), credential: "web".into(), ..TaskSpec::default() };
        let mut result = crate::failure::result(TaskState::Succeeded, None);
        result.failure = Some(lictor_proto::v1::Failure { message: MARKER.into(), ..Default::default() });
        for task in 0..100 {
            sqlx::query(
                "INSERT INTO tasks (task_id, spec, submitted_by, state, epoch, accepted, started, credential_version, \
                 submitted_at, queued_at, output_bytes, output_base, result) \
                 VALUES ($1, $2, 'u', 5, 1, TRUE, TRUE, 1, 0, 0, 15, 0, $3)",
            )
            .bind(format!("t{task}"))
            .bind(spec.encode_to_vec())
            .bind(result.encode_to_vec())
            .execute(&mut writer.connection)
            .await
            .unwrap();
        }
        sqlx::query("INSERT INTO late_results VALUES ('t7', 1, 'a', 0, $1)")
            .bind(result.encode_to_vec())
            .execute(&mut writer.connection)
            .await
            .unwrap();
        sqlx::query("INSERT INTO output (task_seq, start, stream, data) VALUES (8, 0, 1, 'output in clear')")
            .execute(&mut writer.connection)
            .await
            .unwrap();
        assert!(found(dir.path()), "the search finds what is there");
        readers.close().await;
        writer.connection.close().await.unwrap();

        let (writer, readers) = store::open(dir.path(), vault.task_keys()).await.unwrap();
        assert!(!found(dir.path()));
        let view = store::tasks::view(&readers, "t7").await.unwrap().unwrap();
        assert_eq!(view.task.spec, Some(spec));
        assert_eq!(view.task.result, Some(result));
        let chunks = store::tasks::output_from(&readers, &view, 7).await.unwrap();
        assert_eq!(&chunks[0].data[..], b"in clear");
        let late: Vec<u8> = sqlx::query_scalar("SELECT result FROM late_results").fetch_one(&*readers).await.unwrap();
        let place = Place::LateResult { epoch: 1 };
        let late: TaskResult = store::tasks::opened(vault.task_keys(), "t7", place, &late).unwrap();
        assert_eq!(late.failure.unwrap().message, MARKER);
        drop(writer);
    }

    fn found(dir: &std::path::Path) -> bool {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
            let bytes = std::fs::read(path).unwrap();
            bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
        })
    }
}
