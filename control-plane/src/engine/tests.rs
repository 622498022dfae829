//! The engine on a real database whose room is bounded, and under clocks that jump.

use std::sync::Arc;
use std::time::Duration;

use lictor_proto::sealing::SealingKey;
use lictor_proto::v1::{
    Credential, CredentialSecretKind, Credit, HeldState, HeldTask, Hello, ResumeDecision, Script, Target, TaskEnd,
    TaskRef, TaskSpec, TaskState, server_event, task_spec,
};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

mod fetching;
mod keys;

use super::*;
use crate::access::Role;
use crate::clock::UnixMillis;
use crate::config::MasterKeySource;
use crate::dispatch::{AgentEntry, Limits, Settings};
use crate::store::Readers;
use crate::store::batches::NewBatch;

fn caller() -> Caller {
    let text = String::new;
    Caller { user: "u".into(), token_id: text(), role: Role::Admin, scope: text(), source: text() }
}

struct Bench {
    dir: tempfile::TempDir,
    engine: EngineHandle,
    readers: Readers,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), StoreError>>,
}

const SETTINGS: Settings = Settings {
    lease: Duration::from_secs(30),
    heartbeat_interval: Duration::from_secs(10),
    lost_wait: Duration::from_secs(60),
    restart_grace: Duration::ZERO,
    output_limit: 1 << 30,
    limits: Limits { tasks_per_host: 0, tasks_per_credential: 0 },
};

/// An engine that does not run yet.
async fn engine_on(mut writer: Writer, vault: Vault, dir: &std::path::Path) -> (Engine, EngineHandle) {
    let ledger = load_ledger(&mut writer, &vault, SETTINGS, Now::read()).await.unwrap();
    let chain = open_chain(&mut writer).await.unwrap();
    Engine::new(Parts {
        writer,
        ledger,
        authority: Arc::new(Authority::open(dir).unwrap()),
        vault,
        watchers: Arc::default(),
        metrics: Arc::new(Metrics::new()),
        agent_certificate_lifetime: Duration::from_secs(3600),
        settings: SETTINGS,
        retention: Retention {
            tasks: Duration::from_secs(3600),
            outputs: Duration::from_secs(3600),
            output_bytes: 1 << 30,
        },
        users: Arc::new(Directory::new(&[], Vec::new())),
        chain,
        audited: watch::Sender::new(0),
        issuer: Arc::new(Issuer::off()),
        platform: mpsc::channel(1).0,
    })
}

impl Bench {
    /// An engine with a credential `web` and an agent `a`, on a database with 8 MiB of ballast that may grow by so many
    /// pages.
    async fn start(room: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&MasterKeySource::StateDir, dir.path()).unwrap();
        let (mut writer, readers) = store::open(dir.path(), vault.task_keys()).await.unwrap();
        store::fleet::save_agent(&mut writer, &agent()).await.unwrap();
        for statement in ["CREATE TABLE filler (data BLOB)", "INSERT INTO filler VALUES (zeroblob(8388608))"] {
            sqlx::query(statement).execute(&mut *writer).await.unwrap();
        }
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *writer).await.unwrap();
        let bound = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + room));
        sqlx::query(bound).execute(&mut *writer).await.unwrap();
        let (engine, handle) = engine_on(writer, vault, dir.path()).await;
        let metrics = Arc::clone(&engine.parts.metrics);
        let stop = CancellationToken::new();
        let running = tokio::spawn(engine.run(stop.clone()));
        let bench = Self { dir, engine: handle, readers, metrics, stop, running };
        let credential = Credential {
            name: "web".into(),
            username: "u".into(),
            secret_kind: CredentialSecretKind::Password.into(),
            ..Credential::default()
        };
        let credential = NewCredential { credential, secret: Some(Zeroizing::new(b"p".to_vec())) };
        let put = |reply| Command::PutCredential { credential: Box::new(credential), by: caller(), reply };
        bench.engine.ask(put).await.unwrap();
        bench
    }

    async fn submit_batch(&self, id: &str, hosts: usize, bytes: usize) -> Result<String, Refusal> {
        let task = |index: usize| NewTask { batch: Some(id.into()), ..self.task(&format!("{id}-{index}"), bytes) };
        let batch = NewBatch {
            batch_id: id.into(),
            submitted_by: "u".into(),
            idempotency_key: None,
            label: String::new(),
            credential: "web".into(),
            scope: String::new(),
            concurrency: 0,
            threshold: None,
            retries: 0,
            tasks: (0..hosts).map(task).collect(),
        };
        self.engine.ask(|reply| Command::SubmitBatch { batch: Box::new(batch), by: caller(), reply }).await
    }

    async fn submit(&self, id: &str, bytes: usize) -> Result<String, Refusal> {
        let task = Box::new(self.task(id, bytes));
        self.engine.ask(|reply| Command::Submit { task, by: caller(), reply }).await
    }

    fn task(&self, id: &str, bytes: usize) -> NewTask {
        let spec = TaskSpec {
            target: Some(Target { host: "h".into(), connection: None }),
            credential: "web".into(),
            queue_timeout: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            kind: Some(task_spec::Kind::Script(Script { text: "x".repeat(bytes), ..Script::default() })),
            ..TaskSpec::default()
        };
        NewTask {
            task_id: id.into(),
            spec,
            queue_timeout: Duration::from_secs(3600),
            submitted_by: "u".into(),
            idempotency_key: None,
            batch: None,
            retries: 0,
            traceparent: None,
        }
    }

    /// Opens a session that grants one credit; what the engine answers is in the outbox.
    async fn connect(&self, session: SessionId, held: Vec<HeldTask>) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::default());
        let hello = Hello {
            protocol: 1,
            instance_id: "i".into(),
            slots: 1,
            capabilities: vec!["script".into()],
            held,
            ..Hello::default()
        };
        let events =
            vec![event(agent_event::Event::Hello(hello)), event(agent_event::Event::Credit(Credit { total: 1 }))];
        let open = Command::Open { agent_id: "a".into(), session, outbox: Arc::clone(&outbox), polling: false, events };
        self.engine.tell(open).await.unwrap();
        outbox
    }

    async fn say(&self, session: SessionId, what: agent_event::Event) {
        let events = vec![event(what)];
        self.engine.tell(Command::Events { agent_id: "a".into(), session, events }).await.unwrap();
    }

    /// Frees the ballast, as somebody does who tidies up a full disk.
    async fn make_room(&self) {
        let options = SqliteConnectOptions::new().filename(self.dir.path().join("control-plane.db"));
        let mut other = options.busy_timeout(Duration::from_secs(10)).connect().await.unwrap();
        sqlx::query("DELETE FROM filler").execute(&mut other).await.unwrap();
    }

    /// Tasks in these states; 5 and above are final.
    async fn stored(&self, states: std::ops::Range<i32>) -> usize {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tasks WHERE state >= $1 AND state < $2")
            .bind(states.start)
            .bind(states.end)
            .fetch_one(&*self.readers)
            .await
            .unwrap();
        usize::try_from(count).unwrap()
    }
}

fn agent() -> AgentEntry {
    AgentEntry {
        agent_id: "a".into(),
        name: "a".into(),
        own_tags: Vec::new(),
        token_tags: Vec::new(),
        scope: String::new(),
        version: String::new(),
        description: String::new(),
        sealing_key: SealingKey::generate().public_bytes().to_vec(),
        slots: 1,
        capabilities: Vec::new(),
        enrolled_at: UnixMillis(0),
        last_seen_at: None,
        certificate_not_after: UnixMillis(i64::MAX),
        drain_reason: None,
        revoked: None,
        journal_lost: false,
        instance_id: String::new(),
        degraded: Vec::new(),
        kerberos_principals: Vec::new(),
        slots_used: 0,
        resident_bytes: 0,
        link: None,
    }
}

fn event(what: agent_event::Event) -> AgentEvent {
    AgentEvent { event: Some(what) }
}

/// Waits for an event of this kind.
async fn find<T>(outbox: &Outbox, pick: impl Fn(server_event::Event) -> Option<T>) -> T {
    let search = async {
        loop {
            let events = outbox.next().await.expect("the session ended");
            if let Some(found) = events.into_iter().filter_map(|event| event.event).find_map(&pick) {
                break found;
            }
        }
    };
    timeout(Duration::from_secs(20), search).await.expect("nothing came in time")
}

fn ended(task: &TaskRef) -> agent_event::Event {
    let result = crate::failure::result(TaskState::Succeeded, None);
    agent_event::Event::End(TaskEnd { task: Some(task.clone()), result: Some(result) })
}

#[tokio::test]
async fn a_full_disk_refuses_clearly_keeps_what_was_acknowledged_and_is_over_by_itself() {
    let bench = Bench::start(300).await;
    let outbox = bench.connect(1, Vec::new()).await;
    bench.submit("given", 10).await.unwrap();
    let task = find(&outbox, |event| match event {
        server_event::Event::Assignment(assignment) => assignment.task,
        _ => None,
    })
    .await;

    let mut accepted = vec!["given".to_owned()];
    let refusal = loop {
        match bench.submit(&format!("t{}", accepted.len()), 100_000).await {
            Ok(id) => accepted.push(id),
            Err(refusal) => break refusal,
        }
        assert!(accepted.len() < 100, "the disk never gets full");
    };
    assert!(accepted.len() > 3, "{accepted:?}");
    assert!(matches!(&refusal, Refusal::Exhausted(text) if text.contains("disk is full")), "{refusal:?}");
    assert!(matches!(bench.submit("more", 10).await, Err(Refusal::Exhausted(_))));
    assert_eq!(bench.stored(0..99).await, accepted.len());
    assert!(bench.metrics.encode().contains("control_plane_storage_full_state 1"));
    // The agent is sent away, before its result is taken or after; it is acknowledged in neither case.
    bench.say(1, ended(&task)).await;
    let away = find(&outbox, |event| match event {
        server_event::Event::EndAck(_) => panic!("a result was acknowledged that could not be stored"),
        server_event::Event::Goodbye(goodbye) => Some(goodbye),
        _ => None,
    })
    .await;
    assert_eq!(away.reason(), GoodbyeReason::Shutdown);
    let away = bench.connect(2, Vec::new()).await;
    find(&away, |event| matches!(event, server_event::Event::Goodbye(_)).then_some(())).await;
    // Looking goes on.
    assert_eq!(bench.engine.ask(|reply| Command::Agents { reply }).await.unwrap().len(), 1);

    bench.make_room().await;
    let again = async {
        while bench.submit("after", 10).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), again).await.expect("the engine goes on by itself");
    assert!(bench.metrics.encode().contains("control_plane_storage_full_state 0"));
    assert_eq!(bench.stored(0..99).await, accepted.len() + 1);
    // The agent comes back with its result, which counts.
    let held = HeldTask { task: Some(task.clone()), state: HeldState::Ended.into(), ..HeldTask::default() };
    let outbox = bench.connect(3, vec![held]).await;
    let decision = find(&outbox, |event| match event {
        server_event::Event::Welcome(welcome) => Some(welcome.resume[0].decision()),
        _ => None,
    })
    .await;
    assert_eq!(decision, ResumeDecision::Continue);
    bench.say(3, ended(&task)).await;
    find(&outbox, |event| matches!(event, server_event::Event::EndAck(_)).then_some(())).await;
    let view = store::tasks::view(&bench.readers, "given").await.unwrap().unwrap();
    assert_eq!(view.task.state(), TaskState::Succeeded);
    // Everything else that was accepted still waits.
    assert_eq!(bench.stored(0..5).await, accepted.len());
    // The audit log has no gap, and tells of nothing that was taken back.
    let lines = store::audit::lines(&bench.readers, 0, None, None).await.unwrap();
    let mut chain = Chain::after(None);
    for line in &lines {
        let entry: serde_json::Value = serde_json::from_str(&line.text).unwrap();
        assert_eq!(entry["previous"], chain.last(), "{}", line.text);
        chain = Chain::after(Some((line.seq, &line.text)));
    }
    let submitted = lines.iter().filter(|line| line.text.contains("task.submitted")).count();
    assert_eq!(submitted, accepted.len() + 1);
    bench.stop.cancel();
    timeout(Duration::from_secs(20), bench.running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_batch_that_does_not_fit_on_the_disk_leaves_nothing() {
    let bench = Bench::start(300).await;
    let refusal = bench.submit_batch("large", 40, 100_000).await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Exhausted(text) if text.contains("disk is full")), "{refusal:?}");
    let cancel = |reply| Command::CancelBatch { batch_id: "large".into(), reason: String::new(), by: caller(), reply };
    assert!(matches!(bench.engine.ask(cancel).await, Err(Refusal::Exhausted(_))));
    bench.make_room().await;
    let again = async {
        while bench.submit_batch("small", 2, 10).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), again).await.expect("the engine goes on by itself");
    assert!(store::batches::view(&bench.readers, "large").await.unwrap().is_none());
    let tasks: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tasks").fetch_one(&*bench.readers).await.unwrap();
    assert_eq!(tasks, 2);
    let lines = store::audit::lines(&bench.readers, 0, None, None).await.unwrap();
    assert_eq!(lines.iter().filter(|line| line.text.contains("batch.submitted")).count(), 1);
    assert!(bench.metrics.encode().contains("control_plane_tasks_queued 2"));
    bench.stop.cancel();
    timeout(Duration::from_secs(20), bench.running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_full_disk_does_not_keep_the_control_plane_from_stopping() {
    let bench = Bench::start(100).await;
    while bench.submit(&uuid::Uuid::now_v7().to_string(), 100_000).await.is_ok() {}
    bench.stop.cancel();
    timeout(Duration::from_secs(20), bench.running).await.unwrap().unwrap().unwrap();
}

/// What the database says after a start at this wall time: the calendar, and whether the waiting task still waits.
async fn restart_at(dir: &std::path::Path, wall: UnixMillis) -> (UnixMillis, bool) {
    let vault = Vault::open(&MasterKeySource::StateDir, dir).unwrap();
    let (mut writer, _readers) = store::open(dir, vault.task_keys()).await.unwrap();
    let now = Now { wall, ..Now::read() };
    let mut ledger = load_ledger(&mut writer, &vault, SETTINGS, now).await.unwrap();
    ledger.tick(Now { instant: now.instant + Duration::from_secs(60), wall });
    let stored = store::retention::calendar(&mut writer).await.unwrap();
    writer.connection.close().await.unwrap();
    (stored.unwrap_or(UnixMillis(0)), ledger.task("waits").is_some())
}

#[tokio::test]
async fn a_start_under_a_clock_that_moved_rejects_and_removes_nothing() {
    let bench = Bench::start(1000).await;
    bench.submit("waits", 10).await.unwrap();
    bench.stop.cancel();
    timeout(Duration::from_secs(20), bench.running).await.unwrap().unwrap().unwrap();
    bench.readers.close().await;
    let begin = Now::read().wall;
    for hours in [2, -2, 24 * 365] {
        let wall = UnixMillis(begin.0 + hours * 3_600_000);
        let (calendar, waits) = restart_at(bench.dir.path(), wall).await;
        assert!(waits, "{hours} h");
        assert!((begin.0 - 60_000..=begin.0).contains(&calendar.0), "{hours} h: {calendar:?}, {begin:?}");
    }
}
