//! One command from Command to Done.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::{Event, Invocation};
use crate::fault::{Fault, Meaning, Operation};
use crate::wsman::{Received, Response, State};

/// OperationTimeout while input waits to be sent. A command that fills its output before it reads on stalls Send, and one
/// that reads slowly stalls the next Send: short turns let output and input take turns on one connection.
const INPUT_PATIENCE: Duration = Duration::from_secs(5);
/// OperationTimeout after which a command still runs of whose input a piece may be lost.
const LOST_PATIENCE: Duration = Duration::from_secs(2);
/// Smallest piece of input that is tried when a host calls pieces too large.
const SMALLEST_PIECE: usize = 1024;

/// Input waiting in an [`Execution`] beyond which [`Execution::wants_input`] says no.
const MOST_INPUT: usize = 256 * 1024;

/// Follows one command. Ask [`Execution::turn`] what to send, hand the answer to [`Execution::answer`], take events.
///
/// Requests may be sent one after the other over one connection. While a Receive waits for output, input may also be sent
/// over a second connection: ask [`Execution::input_turn`].
#[derive(Debug)]
pub struct Execution {
    command_id: Uuid,
    /// Input not yet taken by the host.
    input: VecDeque<Bytes>,
    /// Bytes in there.
    waiting: usize,
    /// Nothing is added to it any more.
    complete: bool,
    /// The host was told that the input ended, or nobody reads it any more.
    ended: bool,
    /// The host is busy with the input it has: see to output before the next piece.
    stalled: bool,
    /// Why it is not known whether the host took a piece of the input.
    input_lost: Option<Fault>,
    piece: usize,
    phase: Phase,
    gap: bool,
    events: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Command is to be sent.
    Start,
    /// The command runs.
    Running,
    /// The exit code is known.
    Done,
    /// It failed; nothing more is to be sent but Signal and Delete.
    Failed,
}

/// What to send next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Command.
    Command,
    /// A piece of standard input.
    Send {
        /// The bytes.
        data: Bytes,
        /// It is the last.
        end: bool,
        /// OperationTimeout at most.
        patience: Duration,
    },
    /// Receive.
    Receive {
        /// OperationTimeout at most.
        patience: Duration,
    },
    /// Nothing: the command ended.
    Finished,
}

/// Why a command cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The host answered with a fault. Whether the command may have started is told by what the fault means for the
    /// operation: after Command was accepted, it has.
    Fault(Fault),
    /// An answer that does not belong here; the command may have started.
    Unexpected(String),
}

impl Execution {
    /// For `invocation` under the identifier `command_id`. `piece` is how many bytes of input fit into one Send.
    #[must_use]
    pub fn new(invocation: &Invocation, command_id: Uuid, piece: usize) -> Self {
        let complete = !invocation.streamed;
        Self {
            command_id,
            waiting: invocation.stdin.as_ref().map_or(0, Bytes::len),
            input: invocation.stdin.iter().filter(|input| !input.is_empty()).cloned().collect(),
            complete,
            ended: complete && invocation.stdin.is_none(),
            stalled: false,
            input_lost: None,
            piece: piece.max(SMALLEST_PIECE),
            phase: Phase::Start,
            gap: false,
            events: VecDeque::new(),
        }
    }

    /// For a command that somebody else started and followed until now: its input was sent, and what its first answers held
    /// is not known.
    #[must_use]
    pub fn attached(command_id: Uuid) -> Self {
        Self {
            command_id,
            input: VecDeque::new(),
            waiting: 0,
            complete: true,
            ended: true,
            stalled: false,
            input_lost: None,
            piece: SMALLEST_PIECE,
            phase: Phase::Running,
            gap: true,
            events: VecDeque::new(),
        }
    }

    /// Whether the host has taken all of the input, its end included. False also when nobody knows any more.
    #[must_use]
    pub fn has_sent_input(&self) -> bool {
        self.ended && self.input_lost.is_none() && self.phase != Phase::Start
    }

    /// The command's identifier.
    #[must_use]
    pub fn command_id(&self) -> Uuid {
        self.command_id
    }

    /// What to send next, when nothing else is under way.
    #[must_use]
    pub fn turn(&self) -> Turn {
        match self.phase {
            Phase::Start => Turn::Command,
            Phase::Running => self.input_turn().unwrap_or_else(|| Turn::Receive {
                patience: match self.input_lost {
                    Some(_) => LOST_PATIENCE,
                    None if self.has_input() => INPUT_PATIENCE,
                    None => Duration::MAX,
                },
            }),
            Phase::Done | Phase::Failed => Turn::Finished,
        }
    }

    /// The Send that may go out now, beside a Receive that waits. One at a time.
    #[must_use]
    pub fn input_turn(&self) -> Option<Turn> {
        if self.phase != Phase::Running || self.stalled || !self.has_input() {
            return None;
        }
        let data = self.input.front().map_or_else(Bytes::new, |front| front.slice(..front.len().min(self.piece)));
        let end = self.complete && data.len() == self.waiting;
        Some(Turn::Send { data, end, patience: INPUT_PATIENCE })
    }

    /// Whether the host is to be given time, [`Execution::input_pause`], before the next piece of input.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled && self.phase == Phase::Running && self.has_input()
    }

    /// How long to wait before [`Execution::retry_input`] when no Receive is answered meanwhile.
    #[must_use]
    pub fn input_pause() -> Duration {
        INPUT_PATIENCE
    }

    /// The host was given time to read.
    pub fn retry_input(&mut self) {
        self.stalled = false;
    }

    /// Adds input of an invocation whose input is streamed. What comes after its end is ignored.
    pub fn feed(&mut self, data: Bytes) {
        if !self.complete && !data.is_empty() {
            self.waiting += data.len();
            self.input.push_back(data);
        }
    }

    /// No more input comes: the command sees the end after what it was fed.
    pub fn end_input(&mut self) {
        self.complete = true;
    }

    /// Whether more input should be fed now. Otherwise enough of it waits, or nobody reads it.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.complete && self.waiting < MOST_INPUT && matches!(self.phase, Phase::Start | Phase::Running)
    }

    /// Takes the answer to `turn`, which [`Execution::turn`] or [`Execution::input_turn`] asked for.
    ///
    /// # Errors
    /// [`Trouble`] when the command cannot be followed any further.
    pub fn answer(&mut self, turn: &Turn, response: Response) -> Result<(), Trouble> {
        let result = match (turn, response) {
            // It was over before the answer to another request arrived.
            (Turn::Send { .. }, Response::Sent | Response::Fault(_)) if self.phase == Phase::Done => Ok(()),
            (Turn::Command, Response::CommandStarted(id)) => self.started(&id),
            (Turn::Command, Response::Fault(fault)) => Err(Trouble::Fault(fault)),
            (Turn::Send { data, end, .. }, Response::Sent) => {
                self.taken(data.len(), *end);
                Ok(())
            }
            (Turn::Send { data, end, .. }, Response::Fault(fault)) => match fault.meaning(Operation::Send) {
                Meaning::Accepted => {
                    self.taken(data.len(), *end);
                    self.stalled = true;
                    Ok(())
                }
                Meaning::InputBusy => {
                    self.stalled = true;
                    Ok(())
                }
                Meaning::SplitSmaller if self.piece > SMALLEST_PIECE => {
                    self.piece = (self.piece / 2).max(SMALLEST_PIECE);
                    Ok(())
                }
                // The command may have ended without reading all its input: Receive tells. While it runs, nobody knows what
                // it has of its input, and it may wait for the rest for ever.
                Meaning::Ambiguous | Meaning::AlreadyGone => {
                    self.abandon_input();
                    self.input_lost = Some(fault);
                    Ok(())
                }
                _ => Err(Trouble::Fault(fault)),
            },
            (Turn::Receive { .. }, Response::Received(received)) => self.received(received),
            (Turn::Receive { .. }, Response::Fault(fault)) => match fault.meaning(Operation::Receive) {
                Meaning::PollAgain => match self.input_lost.take() {
                    Some(lost) => Err(Trouble::Fault(lost)),
                    None => {
                        self.stalled = false;
                        Ok(())
                    }
                },
                _ => Err(Trouble::Fault(fault)),
            },
            (turn, response) => Err(Trouble::Unexpected(format!("{} to {}", response.name(), name_turn(turn)))),
        };
        if result.is_err() {
            self.phase = Phase::Failed;
        }
        result
    }

    /// Takes an event, when there is one.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The command is to be sent once more: the host surely has not taken it.
    pub fn restart(&mut self) {
        self.phase = Phase::Start;
    }

    /// The answer to Command was lost, and the host turned out to have taken it.
    pub fn found(&mut self) {
        self.phase = Phase::Running;
    }

    /// The answer to a Receive was lost, and with it perhaps output. Receiving may go on.
    pub fn lost_answer(&mut self) {
        self.gap = true;
    }

    /// No more input is sent: nobody reads it, or the command is being stopped.
    pub fn abandon_input(&mut self) {
        self.input.clear();
        self.waiting = 0;
        self.complete = true;
        self.ended = true;
        self.stalled = false;
    }

    /// Whether something of the input, if only its end, is still to be sent.
    fn has_input(&self) -> bool {
        !self.ended && (self.waiting > 0 || self.complete)
    }

    fn started(&mut self, id: &str) -> Result<(), Trouble> {
        // Hosts before WinRM 3.0 choose the identifier themselves. With another identifier than the one that was
        // journalled, the command could not be found again.
        if id.parse::<Uuid>().ok() != Some(self.command_id) {
            return Err(Trouble::Unexpected("another CommandId than the one sent in the answer to Command".to_owned()));
        }
        self.phase = Phase::Running;
        Ok(())
    }

    fn taken(&mut self, length: usize, end: bool) {
        self.waiting = self.waiting.saturating_sub(length);
        self.ended |= end;
        if let Some(front) = self.input.front_mut() {
            *front = front.slice(length.min(front.len())..);
            if front.is_empty() {
                self.input.pop_front();
            }
        }
    }

    fn received(&mut self, received: Received) -> Result<(), Trouble> {
        if let Some(id) = &received.command_id
            && id.parse::<Uuid>().ok() != Some(self.command_id)
        {
            return Err(Trouble::Unexpected("output of another command".to_owned()));
        }
        self.events.extend(received.output.into_iter().map(|(stream, data)| Event::Output { stream, data }));
        match (received.state, received.exit_code) {
            (Some(State::Done), Some(exit_code)) => {
                self.events.push_back(Event::Done { exit_code, output_gap: self.gap });
                self.abandon_input();
                self.phase = Phase::Done;
            }
            (Some(State::Done), None) => return Err(Trouble::Unexpected("Done without an exit code".to_owned())),
            _ => self.stalled = false,
        }
        Ok(())
    }
}

fn name_turn(turn: &Turn) -> &'static str {
    match turn {
        Turn::Command => "Command",
        Turn::Send { .. } => "Send",
        Turn::Receive { .. } => "Receive",
        Turn::Finished => "nothing",
    }
}

#[cfg(test)]
mod tests;
