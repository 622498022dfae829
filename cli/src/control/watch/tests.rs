//! Watching against a small control plane in the same process that cuts its streams.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use lictor_proto::v1::task_service_server::{TaskService, TaskServiceServer};
use lictor_proto::v1::watch_task_response::Event;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response};

use super::*;

/// One answer to WatchTask: events, then the end of the stream or an error.
type Script = Vec<Result<v1::WatchTaskResponse, Status>>;

#[derive(Clone, Default)]
struct Fake {
    scripts: Arc<Mutex<VecDeque<Script>>>,
    offsets: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl TaskService for Fake {
    type WatchTaskStream = Pin<Box<dyn futures::Stream<Item = Result<v1::WatchTaskResponse, Status>> + Send>>;

    async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer test");
        self.offsets.lock().unwrap().push(request.get_ref().from_offset);
        match self.scripts.lock().unwrap().pop_front() {
            Some(script) => Ok(Response::new(Box::pin(futures::stream::iter(script)))),
            None => Err(Status::not_found("no such task")),
        }
    }
    async fn submit_task(&self, _: Request<v1::SubmitTaskRequest>) -> Result<Response<v1::SubmitTaskResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_task(&self, _: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_tasks(&self, _: Request<v1::ListTasksRequest>) -> Result<Response<v1::ListTasksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn cancel_task(&self, _: Request<v1::CancelTaskRequest>) -> Result<Response<v1::CancelTaskResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[derive(Default)]
struct Recorder {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    notes: Vec<String>,
}

impl Sink for Recorder {
    async fn output(&mut self, chunk: &v1::OutputChunk) -> Result<(), Failure> {
        match stream_of(chunk) {
            Stream::Stdout => self.stdout.extend_from_slice(&chunk.data),
            Stream::Stderr => self.stderr.extend_from_slice(&chunk.data),
        }
        Ok(())
    }
    fn state(&mut self, _: v1::Task) -> Result<(), Failure> {
        Ok(())
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

fn task(state: v1::TaskState, output_bytes: u64) -> Result<v1::WatchTaskResponse, Status> {
    let result =
        is_final(state).then(|| v1::TaskResult { outcome: state.into(), exit_code: Some(7), ..Default::default() });
    let task = v1::Task { task_id: "t1".to_owned(), state: state.into(), output_bytes, result, ..Default::default() };
    Ok(v1::WatchTaskResponse { event: Some(Event::Task(task)) })
}

fn chunk(offset: u64, stream: v1::OutputStream, data: &'static str) -> Result<v1::WatchTaskResponse, Status> {
    let chunk = v1::OutputChunk { offset, stream: stream.into(), data: Bytes::from_static(data.as_bytes()) };
    Ok(v1::WatchTaskResponse { event: Some(Event::Output(chunk)) })
}

async fn serve(fake: Fake) -> ControlPlane {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(TaskServiceServer::new(fake))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    ControlPlane::over(Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy())
}

async fn run(scripts: Vec<Script>) -> (Result<TaskView, Failure>, Recorder, Vec<u64>) {
    let fake = Fake { scripts: Arc::new(Mutex::new(scripts.into())), ..Fake::default() };
    let control_plane = serve(fake.clone()).await;
    let mut recorder = Recorder::default();
    let followed = follow(&control_plane, "t1", 0, &mut recorder).await;
    let offsets = fake.offsets.lock().unwrap().clone();
    (followed, recorder, offsets)
}

use v1::OutputStream::{Stderr, Stdout};
use v1::TaskState::{Failed, Queued, Running};

#[tokio::test]
async fn output_is_complete_and_without_duplicates_after_a_cut() {
    let (followed, recorder, offsets) = run(vec![
        vec![
            task(Running, 0),
            chunk(0, Stdout, "hello "),
            chunk(6, Stderr, "oh"),
            chunk(8, Stdout, "wo"),
            Err(Status::unavailable("shutting down")),
        ],
        // The stored log may begin before the wanted offset, with a chunk that is known in part.
        vec![task(Running, 10), chunk(6, Stderr, "oh"), chunk(8, Stdout, "world"), task(Failed, 13)],
    ])
    .await;
    assert_eq!(followed.unwrap().exit(), Exit::remote(7));
    assert_eq!((recorder.stdout.as_slice(), recorder.stderr.as_slice()), (&b"hello world"[..], &b"oh"[..]));
    assert_eq!(offsets, [0, 10]);
    assert_eq!(recorder.notes.len(), 1, "{:?}", recorder.notes);
}

#[tokio::test]
async fn a_stream_that_ends_before_the_task_is_opened_again() {
    let (followed, recorder, offsets) =
        run(vec![vec![task(Queued, 0)], vec![task(Running, 0), chunk(0, Stdout, "x"), task(Failed, 1)]]).await;
    assert_eq!(followed.unwrap().exit(), Exit::remote(7));
    assert_eq!(recorder.stdout, b"x");
    assert_eq!(offsets, [0, 0]);
}

#[tokio::test]
async fn output_after_the_final_state_is_waited_for() {
    let (followed, recorder, offsets) = run(vec![
        vec![task(Failed, 4), chunk(0, Stdout, "ab"), Err(Status::unavailable("cut"))],
        vec![task(Failed, 4), chunk(2, Stdout, "cd")],
    ])
    .await;
    assert!(followed.is_ok());
    assert_eq!(recorder.stdout, b"abcd");
    assert_eq!(offsets, [0, 2]);
}

#[tokio::test]
async fn missing_output_is_said() {
    let (followed, recorder, _) =
        run(vec![vec![task(Running, 0), chunk(0, Stdout, "ab"), chunk(5, Stdout, "f"), task(Failed, 6)]]).await;
    assert!(followed.is_ok());
    assert_eq!(recorder.notes, ["warning: output bytes 2 to 4 are missing in the log"]);
}

#[tokio::test]
async fn what_the_control_plane_refuses_is_not_tried_again() {
    let (followed, _, offsets) = run(vec![]).await;
    let failure = followed.unwrap_err();
    assert_eq!((failure.exit, &*failure.code), (Exit::SERVER_REFUSED, "control_plane.not_found"));
    assert_eq!(offsets, [0]);
}

#[tokio::test]
async fn a_control_plane_that_never_answered_is_not_waited_for() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let control_plane =
        ControlPlane::over(Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy());
    let failure = follow(&control_plane, "t1", 0, &mut Recorder::default()).await.unwrap_err();
    assert_eq!(failure.exit, Exit::SERVER_UNREACHABLE);
}

#[test]
fn events_are_json_lines() {
    let Ok(v1::WatchTaskResponse { event: Some(Event::Output(chunk)) }) = chunk(3, Stderr, "grün") else { panic!() };
    assert_eq!(
        serde_json::to_value(EventView::output(&chunk)).unwrap(),
        serde_json::json!({"event": "output", "offset": 3, "stream": "stderr", "data": "grün"})
    );
}

#[tokio::test]
async fn output_that_is_no_longer_kept_is_told_and_not_waited_for() {
    let removed = |bytes| {
        let Ok(v1::WatchTaskResponse { event: Some(Event::Task(mut task)) }) = task(Failed, 13) else { panic!() };
        task.output_removed_bytes = bytes;
        Ok(v1::WatchTaskResponse { event: Some(Event::Task(task)) })
    };
    for (bytes, rest, words) in [(13, vec![], "none of them kept"), (8, vec![chunk(8, Stdout, "world")], "the first 8")]
    {
        let script = [vec![removed(bytes)], rest, vec![removed(bytes)]].concat();
        let (followed, recorder, _) = run(vec![script]).await;
        assert_eq!(followed.unwrap().exit(), Exit::remote(7));
        assert_eq!(recorder.notes.len(), 1, "{:?}", recorder.notes);
        assert!(recorder.notes[0].contains(words), "{:?}", recorder.notes);
        assert_eq!(recorder.stdout.len(), if bytes == 8 { 5 } else { 0 });
    }
}
