//! A simulated process: a task that runs an imitated program, with bounded pipes to its standard streams.
//!
//! A program that writes faster than the client receives is stopped by a full pipe, as a real one. The pipes also know whether
//! the program is working or waiting: output is handed over when the program waits or has ended, not in the middle of its work,
//! so that the number of Receives for a given program does not depend on the speed of the machine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::clock::Clock;

/// Output that a process may be ahead of its client. Several envelopes of 500 KiB fit in.
pub(crate) const OUTPUT_CAPACITY: usize = 2 * 1024 * 1024;
/// Input that may wait for the process. One more Send than this is taken, the next is refused as busy.
const INPUT_CAPACITY: usize = 256 * 1024;
/// Neighbouring writes to one stream become one piece up to this size.
const PIECE: usize = 32 * 1024;
/// What the element around a piece costs, in bytes of output.
const PIECE_OVERHEAD: usize = 120;
/// STATUS_CONTROL_C_EXIT: how a console program ends on Ctrl+C.
pub(crate) const CONTROL_C_EXIT: u32 = 0xc000_013a;

/// One of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A running or ended process, from outside. Dropping it kills it.
pub(crate) struct Process {
    pipes: Pipes,
    task: AbortHandle,
}

/// The program's side: its standard streams.
#[derive(Clone)]
pub(crate) struct Pipes(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    clock: Clock,
}

#[derive(Default)]
struct State {
    output: VecDeque<(Stream, Vec<u8>)>,
    buffered: usize,
    largest: usize,
    waiting: bool,
    input: VecDeque<u8>,
    input_closed: bool,
    exit: Option<u32>,
    killed: bool,
}

/// What a Receive gets.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) pieces: Vec<(Stream, Vec<u8>)>,
    /// The exit code, when the process has ended and nothing is left to receive.
    pub(crate) exit: Option<u32>,
}

/// Why there is nothing to receive, or nothing could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// The time is over.
    TimedOut,
    /// The process was terminated.
    Killed,
    /// An earlier input still waits for the process.
    Busy,
    /// The process has ended or its input is closed.
    Closed,
}

impl Process {
    /// Starts `program` with its pipes, on the real clock.
    #[cfg(test)]
    pub(crate) fn start<F, P>(program: F) -> Self
    where
        F: FnOnce(Pipes) -> P,
        P: Future<Output = u32> + Send + 'static,
    {
        Self::start_on(Clock::default(), program)
    }

    /// Starts `program` with its pipes on a host's clock.
    pub(crate) fn start_on<F, P>(clock: Clock, program: F) -> Self
    where
        F: FnOnce(Pipes) -> P,
        P: Future<Output = u32> + Send + 'static,
    {
        let pipes = Pipes(Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(()), clock }));
        let (own, run) = (pipes.clone(), program(pipes.clone()));
        let task = tokio::spawn(async move {
            let exit = run.await;
            own.change(|state| state.exit = Some(exit));
        });
        Self { pipes, task: task.abort_handle() }
    }

    /// Waits up to `time` for output or the end, and takes at most `budget` bytes of the streams in `desired`, what surrounds
    /// the pieces included.
    pub(crate) async fn receive(
        pipes: Pipes,
        desired: &[Stream],
        budget: usize,
        time: Duration,
        done_alone: bool,
    ) -> Result<Output, Unavailable> {
        let mut changed = pipes.0.changed.subscribe();
        let deadline = pipes.0.clock.sleep(time);
        tokio::pin!(deadline);
        let mut late = false;
        loop {
            changed.borrow_and_update();
            if let Some(answer) = pipes.take(desired, budget, late, done_alone) {
                return answer;
            }
            if late {
                return Err(Unavailable::TimedOut);
            }
            tokio::select! {
                // The sender lives as long as `pipes` does.
                _ = changed.changed() => {}
                () = &mut deadline => late = true,
            }
        }
    }

    /// Hands input to the process and waits up to `time` until it is near to being consumed.
    pub(crate) async fn send(pipes: Pipes, data: &[u8], end: bool, time: Duration) -> Result<(), Unavailable> {
        let mut changed = pipes.0.changed.subscribe();
        {
            let mut state = pipes.lock();
            if state.killed || state.exit.is_some() || state.input_closed {
                return Err(Unavailable::Closed);
            }
            if state.input.len() > INPUT_CAPACITY {
                return Err(Unavailable::Busy);
            }
            state.input.extend(data);
            state.input_closed = end;
        }
        pipes.0.changed.send_replace(());
        let consumed = async {
            loop {
                changed.borrow_and_update();
                {
                    let state = pipes.lock();
                    if state.input.len() <= INPUT_CAPACITY || state.exit.is_some() || state.killed {
                        return;
                    }
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        pipes.0.clock.timeout(time, consumed).await.ok_or(Unavailable::TimedOut)
    }

    pub(crate) fn pipes(&self) -> Pipes {
        self.pipes.clone()
    }

    /// Ctrl+C or Ctrl+Break: the program ends with [`CONTROL_C_EXIT`], its output can still be received.
    pub(crate) fn interrupt(&self) {
        self.task.abort();
        self.pipes.change(|state| {
            state.exit.get_or_insert(CONTROL_C_EXIT);
        });
    }

    /// Ends the process at once; a waiting Receive is aborted.
    pub(crate) fn kill(&self) {
        self.task.abort();
        self.pipes.change(|state| {
            state.killed = true;
            state.output.clear();
            state.buffered = 0;
        });
    }

    pub(crate) fn is_running(&self) -> bool {
        let state = self.pipes.lock();
        state.exit.is_none() && !state.killed
    }

    /// The most output that ever waited, in bytes.
    pub(crate) fn largest_backlog(&self) -> usize {
        self.pipes.lock().largest
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Pipes {
    /// Writes to a stream; waits while the pipe is full.
    pub(crate) async fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let mut changed = self.0.changed.subscribe();
        while !bytes.is_empty() {
            changed.borrow_and_update();
            let room = {
                let mut state = self.lock();
                let room = OUTPUT_CAPACITY.saturating_sub(state.buffered).min(bytes.len());
                let (now, later) = bytes.split_at(room);
                state.push(stream, now);
                bytes = later;
                room
            };
            if room > 0 {
                self.0.changed.send_replace(());
            } else if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reads what is there, up to `limit` bytes; waits for more when nothing is. `None` at the end of the input.
    pub(crate) async fn read(&self, limit: usize) -> Option<Vec<u8>> {
        let mut changed = self.0.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let mut state = self.lock();
                if !state.input.is_empty() {
                    let count = limit.min(state.input.len());
                    let data = state.input.drain(..count).collect();
                    state.waiting = false;
                    drop(state);
                    self.0.changed.send_replace(());
                    return Some(data);
                }
                if state.input_closed {
                    state.waiting = false;
                    return None;
                }
                if !state.waiting {
                    state.waiting = true;
                    drop(state);
                    self.0.changed.send_replace(());
                    changed.borrow_and_update();
                    continue;
                }
            }
            if changed.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Puts bytes back that were read too much.
    pub(crate) fn unread(&self, bytes: &[u8]) {
        let mut state = self.lock();
        for byte in bytes.iter().rev() {
            state.input.push_front(*byte);
        }
    }

    /// Does nothing for a while.
    pub(crate) async fn sleep(&self, time: Duration) {
        if !time.is_zero() {
            self.change(|state| state.waiting = true);
            self.0.clock.sleep(time).await;
            self.change(|state| state.waiting = false);
        }
    }

    fn take(
        &self,
        desired: &[Stream],
        budget: usize,
        late: bool,
        done_alone: bool,
    ) -> Option<Result<Output, Unavailable>> {
        let mut state = self.lock();
        if state.killed {
            return Some(Err(Unavailable::Killed));
        }
        let ready: usize =
            state.output.iter().filter(|(stream, _)| desired.contains(stream)).map(|(_, bytes)| bytes.len()).sum();
        let ended = state.exit.is_some();
        let handed_over = ready > 0 && (state.waiting || late || ready >= budget || state.buffered >= OUTPUT_CAPACITY);
        if !ended && !handed_over {
            return None;
        }
        let mut output = Output::default();
        let mut room = budget;
        let mut kept = VecDeque::new();
        while let Some((stream, mut bytes)) = state.output.pop_front() {
            if room <= PIECE_OVERHEAD || !desired.contains(&stream) {
                kept.push_back((stream, bytes));
                continue;
            }
            if bytes.len() > room - PIECE_OVERHEAD {
                kept.push_back((stream, bytes.split_off(room - PIECE_OVERHEAD)));
            }
            room -= bytes.len() + PIECE_OVERHEAD;
            state.buffered -= bytes.len();
            output.pieces.push((stream, bytes));
        }
        let nothing_left = !kept.iter().any(|(stream, _)| desired.contains(stream));
        state.output = kept;
        if nothing_left && (output.pieces.is_empty() || !done_alone) {
            output.exit = state.exit;
        }
        drop(state);
        self.0.changed.send_replace(());
        Some(Ok(output))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.0.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a program leaves the state whole: every change is a single step.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.buffered += bytes.len();
        self.largest = self.largest.max(self.buffered);
        match self.output.back_mut() {
            Some((last, piece)) if *last == stream && piece.len() + bytes.len() <= PIECE => {
                piece.extend_from_slice(bytes)
            }
            _ => {
                for piece in bytes.chunks(PIECE) {
                    self.output.push_back((stream, piece.to_vec()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[Stream] = &[Stream::Stdout, Stream::Stderr];

    async fn receive(process: &Process, budget: usize) -> Result<Output, Unavailable> {
        Process::receive(process.pipes(), BOTH, budget, Duration::from_secs(20), false).await
    }

    #[tokio::test]
    async fn output_and_end_come_together() {
        let process = Process::start(|pipes| async move {
            pipes.write(Stream::Stdout, b"a").await;
            tokio::task::yield_now().await;
            pipes.write(Stream::Stderr, b"b").await;
            5
        });
        let output = receive(&process, 1000).await.expect("output");
        assert_eq!(output.pieces, vec![(Stream::Stdout, b"a".to_vec()), (Stream::Stderr, b"b".to_vec())]);
        assert_eq!(output.exit, Some(5));
        // The exit code is still known when the answer was lost.
        assert_eq!(receive(&process, 1000).await.expect("output").exit, Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_process_times_out_and_output_comes_when_it_waits() {
        let process = Process::start(|pipes| async move {
            pipes.sleep(Duration::from_secs(30)).await;
            pipes.write(Stream::Stdout, b"now").await;
            pipes.sleep(Duration::from_secs(30)).await;
            0
        });
        assert_eq!(receive(&process, 1000).await.expect_err("nothing yet"), Unavailable::TimedOut);
        let output = receive(&process, 1000).await.expect("output");
        assert_eq!((output.pieces.len(), output.exit), (1, None));
        process.interrupt();
        assert_eq!(receive(&process, 1000).await.expect("output").exit, Some(CONTROL_C_EXIT));
        process.kill();
        assert_eq!(receive(&process, 1000).await.expect_err("killed"), Unavailable::Killed);
    }

    #[tokio::test]
    async fn a_full_pipe_stops_the_program() {
        let process = Process::start(|pipes| async move {
            for _ in 0..100 {
                pipes.write(Stream::Stdout, &[b'x'; 100_000]).await;
            }
            0
        });
        let mut total = 0;
        loop {
            let output = receive(&process, 70_000).await.expect("output");
            total += output.pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            if output.exit.is_some() {
                break;
            }
        }
        assert_eq!(total, 10_000_000);
        assert!(process.largest_backlog() <= OUTPUT_CAPACITY);
    }

    #[tokio::test(start_paused = true)]
    async fn input_that_is_not_consumed_makes_the_next_one_busy() {
        let process = Process::start(|pipes| async move {
            pipes.sleep(Duration::from_secs(60)).await;
            let mut total = 0;
            while let Some(data) = pipes.read(1000).await {
                total += data.len();
            }
            u32::try_from(total).expect("small")
        });
        let big = vec![0; INPUT_CAPACITY + 1];
        let time = Duration::from_secs(10);
        assert_eq!(Process::send(process.pipes(), &big, false, time).await, Err(Unavailable::TimedOut));
        assert_eq!(Process::send(process.pipes(), b"x", false, time).await, Err(Unavailable::Busy));
        assert_eq!(receive(&process, 1000).await.expect_err("sleeping"), Unavailable::TimedOut);
        assert_eq!(receive(&process, 1000).await.expect_err("sleeping"), Unavailable::TimedOut);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(Process::send(process.pipes(), b"x", true, time).await, Ok(()));
        assert_eq!(receive(&process, 1000).await.expect("end").exit, Some(INPUT_CAPACITY as u32 + 2));
        assert_eq!(Process::send(process.pipes(), b"x", false, time).await, Err(Unavailable::Closed));
    }
}
