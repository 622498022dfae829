//! The tasks: a steady stream of all kinds, each known by a mark that its host counts, and a book of what became of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lictor_proto::v1::{
    AgentSelector, AuthKind, Command, ConnectionSettings, ConnectionTest, Diagnosis, Scheme, Script, ScriptLanguage,
    Target, Task, TaskSpec, TaskState, task_spec,
};
use lictor_tests::Random;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::Api;

/// What a task does on its host, after the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// So many bytes of output.
    Bytes(u64),
    /// So many lines with a pause of so many milliseconds between them.
    Lines(u64, u64),
    /// The same from a PowerShell script.
    PowerShell(u64, u64),
    /// Bytes from a cmd script.
    Cmd(u64),
    /// Exit code 3.
    Exit,
    /// Never ends by itself; its own timeout ends it.
    TimesOut,
    /// Never ends by itself; it is cancelled.
    Cancelled,
    /// A connection test; makes no mark.
    Test,
    /// An examination; makes no mark, and is given out again when its agent dies.
    Diagnosis,
    /// Uses the host once more with one agent, at the end.
    Sweep,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bytes(_) => "bytes",
            Self::Lines(..) => "lines",
            Self::PowerShell(..) => "powershell",
            Self::Cmd(_) => "cmd",
            Self::Exit => "exit",
            Self::TimesOut => "timeout",
            Self::Cancelled => "cancelled",
            Self::Test => "test",
            Self::Diagnosis => "diagnosis",
            Self::Sweep => "sweep",
        }
    }

    /// Whether it succeeds when nothing goes wrong.
    pub(crate) fn succeeds(self) -> bool {
        !matches!(self, Self::Exit | Self::TimesOut | Self::Cancelled)
    }

    /// Whether it does nothing that its host counts.
    pub(crate) fn only_looks(self) -> bool {
        matches!(self, Self::Test | Self::Diagnosis)
    }

    /// What it prints when it runs to its end.
    pub(crate) fn output(self) -> Vec<u8> {
        match self {
            Self::Bytes(count) | Self::Cmd(count) => {
                let lines = (0..=count / 64).flat_map(|line| format!("{line:063}\n").into_bytes());
                lines.take(count as usize).collect()
            }
            Self::Lines(count, _) | Self::PowerShell(count, _) => {
                (1..=count).flat_map(|line| format!("line {line}\r\n").into_bytes()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn work(self, mark: &str) -> task_spec::Kind {
        let command = |rest: String| {
            let command_line = format!("sim.exe mark {mark}&& {rest}");
            task_spec::Kind::Command(Command { command_line, ..Command::default() })
        };
        let script = |language: ScriptLanguage, rest: String| {
            let text = format!("sim.exe mark {mark}\r\n{rest}\r\n");
            task_spec::Kind::Script(Script { language: language.into(), text, ..Script::default() })
        };
        match self {
            Self::Bytes(count) => command(format!("sim.exe bytes {count}")),
            Self::Lines(count, pause) => command(format!("sim.exe lines {count} {pause}")),
            Self::PowerShell(count, pause) => {
                script(ScriptLanguage::Powershell, format!("sim.exe lines {count} {pause}"))
            }
            Self::Cmd(count) => script(ScriptLanguage::Cmd, format!("sim.exe bytes {count}")),
            Self::Exit => command("sim.exe exit 3".into()),
            Self::TimesOut | Self::Cancelled => command("sim.exe sleep 3600000".into()),
            Self::Test => task_spec::Kind::ConnectionTest(ConnectionTest {}),
            Self::Diagnosis => task_spec::Kind::Diagnosis(Diagnosis {}),
            Self::Sweep => command("sim.exe exit 0".into()),
        }
    }
}

/// Where a host is reached, and how.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

/// One task and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) mark: String,
    pub(crate) kind: Kind,
    pub(crate) host: usize,
    pub(crate) idempotent: bool,
    pub(crate) task_id: Option<String>,
    pub(crate) cancelled: bool,
    /// As it was when it was first seen final.
    pub(crate) end: Option<Task>,
}

/// Every task by its mark, and what must not be.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) violations: Vec<String>,
}

impl Book {
    /// Notes how a task stands; a final state must never change.
    fn note(&mut self, task: &Task) {
        let Some(entry) = self.entries.get_mut(&task.spec.as_ref().map(|spec| spec.label.clone()).unwrap_or_default())
        else {
            return;
        };
        entry.task_id.get_or_insert_with(|| task.task_id.clone());
        if entry.task_id.as_ref() != Some(&task.task_id) {
            self.violations.push(format!("{} was submitted as two tasks: {entry:?} and {}", entry.mark, task.task_id));
            return;
        }
        match &entry.end {
            None if is_final(task.state()) => entry.end = Some(task.clone()),
            None => {}
            // Lists leave some of it out.
            Some(end) if (end.state, end.epoch, end.finished_at) == (task.state, task.epoch, task.finished_at) => {}
            Some(end) => {
                let was = (end.state(), end.epoch);
                let is = (task.state(), task.epoch);
                self.violations.push(format!("the end of {} has changed: {was:?} became {is:?}", entry.mark));
            }
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.entries.values().filter(|entry| entry.end.is_none()).count()
    }
}

/// The book, shared.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Book>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Submits tasks until told to stop, then goes on following them until told to end.
pub(crate) struct Stream {
    pub(crate) api: Api,
    pub(crate) book: Shared,
    pub(crate) places: Vec<Place>,
    pub(crate) random: Random,
}

/// What the stream is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Submit,
    Follow,
    End,
}

impl Stream {
    pub(crate) async fn run(mut self, mut wish: watch::Receiver<Wish>) {
        let mut jobs = JoinSet::new();
        let mut next = Instant::now();
        let mut count = 0;
        loop {
            match *wish.borrow_and_update() {
                Wish::End => break,
                Wish::Submit if Instant::now() >= next => {
                    next = Instant::now() + Duration::from_millis(self.random.between(50, 250));
                    if self.book.lock().open() < MOST_OPEN {
                        count += 1;
                        self.submit(count, &mut jobs);
                    }
                }
                Wish::Submit | Wish::Follow => {}
            }
            self.look().await;
            tokio::select! {
                _ = wish.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        while jobs.join_next().await.is_some() {}
    }

    fn submit(&mut self, count: u64, jobs: &mut JoinSet<()>) {
        let random = &mut self.random;
        let host = random.below(self.places.len() as u64) as usize;
        let kind = match random.below(100) {
            0..25 => Kind::Bytes(random.below(200_000)),
            25..28 => Kind::Bytes(random.between(1_000_000, 3_000_000)),
            28..50 => Kind::Lines(random.between(1, 25), random.between(0, 300)),
            50..60 => Kind::PowerShell(random.between(1, 10), random.between(0, 200)),
            60..70 => Kind::Cmd(random.below(20_000)),
            70..78 => Kind::Exit,
            78..83 => Kind::TimesOut,
            83..90 => Kind::Cancelled,
            90..95 => Kind::Test,
            _ => Kind::Diagnosis,
        };
        let idempotent = random.percent(30);
        let cancel_after = (kind == Kind::Cancelled || random.percent(3)).then(|| random.between(500, 4000));
        let timeout = if kind == Kind::TimesOut { random.between(1, 4) } else { 60 };
        let mark = format!("m{count:05}");
        let entry = Entry {
            mark: mark.clone(),
            kind,
            host,
            idempotent,
            task_id: None,
            cancelled: cancel_after.is_some(),
            end: None,
        };
        let spec = spec(&entry, &self.places[host], timeout, None);
        self.book.lock().entries.insert(mark.clone(), entry);
        let (api, book) = (self.api.clone(), self.book.clone());
        jobs.spawn(async move {
            let task_id = submit(&api, &book, spec, &mark).await;
            if let Some(after) = cancel_after {
                tokio::time::sleep(Duration::from_millis(after)).await;
                while api.cancel(&task_id).await.is_err() {
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
    }

    /// Looks at every task that is open or new.
    async fn look(&self) {
        if let Ok(tasks) = self.api.list().await {
            let mut book = self.book.lock();
            tasks.iter().for_each(|task| book.note(task));
        }
    }
}

/// Submits until it is answered: the key makes it one task however often it is asked for.
pub(crate) async fn submit(api: &Api, book: &Shared, spec: TaskSpec, mark: &str) -> String {
    loop {
        match api.submit(spec.clone(), mark).await {
            Ok(task) => {
                book.lock().note(&task);
                return task.task_id;
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

pub(crate) fn spec(entry: &Entry, place: &Place, timeout: u64, agent: Option<&str>) -> TaskSpec {
    let (scheme, auth, credential) = match place.tls {
        true => (Scheme::Https, AuthKind::Basic, "basic"),
        false => (Scheme::Http, AuthKind::Negotiate, "ntlm"),
    };
    let connection = ConnectionSettings {
        scheme: scheme.into(),
        port: place.port.into(),
        auth: auth.into(),
        ..ConnectionSettings::default()
    };
    let seconds = |seconds: u64| Some(prost_types::Duration { seconds: seconds as i64, nanos: 0 });
    TaskSpec {
        target: Some(Target { host: "127.0.0.1".into(), connection: Some(connection) }),
        credential: credential.into(),
        kind: Some(entry.kind.work(&entry.mark)),
        timeout: seconds(timeout),
        queue_timeout: seconds(3600),
        idempotent: entry.idempotent,
        selector: agent.map(|agent| AgentSelector { tags: vec![agent.into()], scope: String::new() }),
        label: entry.mark.clone(),
    }
}

pub(crate) fn is_final(state: TaskState) -> bool {
    !matches!(
        state,
        TaskState::Unspecified | TaskState::Queued | TaskState::Assigned | TaskState::Running | TaskState::Lost
    )
}

/// More wait until some of them have ended: what is submitted must be able to end.
const MOST_OPEN: usize = 60;
const LOOK: Duration = Duration::from_millis(100);
