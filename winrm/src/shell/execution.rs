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
/// Smallest piece of input that is tried when a host calls pieces too large.
const SMALLEST_PIECE: usize = 1024;

/// Follows one command. Ask [`Execution::turn`] what to send, hand the answer to [`Execution::answer`], take events.
#[derive(Debug)]
pub struct Execution {
    command_id: Uuid,
    /// Input not yet taken by the host.
    input: Option<Bytes>,
    piece: usize,
    phase: Phase,
    gap: bool,
    events: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Command is to be sent.
    Start,
    /// Input is to be sent.
    Input,
    /// The host is busy with the input it has: see to output before the next piece.
    InputStalled,
    /// Output is to be received.
    Output,
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
    /// The command surely did not start, for the shell is of no more use: another shell may take it.
    NeedsNewShell(Fault),
    /// The command surely did not start.
    NotStarted(Fault),
    /// A fault after the command may have started.
    MayHaveStarted(Fault),
    /// An answer that does not belong here; the command may have started.
    Unexpected(String),
}

impl Execution {
    /// For `invocation` under the identifier `command_id`. `piece` is how many bytes of input fit into one Send.
    #[must_use]
    pub fn new(invocation: &Invocation, command_id: Uuid, piece: usize) -> Self {
        Self {
            command_id,
            input: invocation.stdin.clone(),
            piece: piece.max(SMALLEST_PIECE),
            phase: Phase::Start,
            gap: false,
            events: VecDeque::new(),
        }
    }

    /// The command's identifier.
    #[must_use]
    pub fn command_id(&self) -> Uuid {
        self.command_id
    }

    /// What to send next.
    #[must_use]
    pub fn turn(&self) -> Turn {
        match (self.phase, &self.input) {
            (Phase::Start, _) => Turn::Command,
            (Phase::Input, Some(input)) => {
                let length = input.len().min(self.piece);
                Turn::Send { data: input.slice(..length), end: length == input.len(), patience: INPUT_PATIENCE }
            }
            (Phase::InputStalled, _) => Turn::Receive { patience: INPUT_PATIENCE },
            (Phase::Input | Phase::Output, _) => Turn::Receive { patience: Duration::MAX },
            (Phase::Done | Phase::Failed, _) => Turn::Finished,
        }
    }

    /// Takes the answer to the request that [`Execution::turn`] asked for.
    ///
    /// # Errors
    /// [`Trouble`] when the command cannot be followed any further.
    pub fn answer(&mut self, response: Response) -> Result<(), Trouble> {
        let turn = self.turn();
        let result = match (turn, response) {
            (Turn::Command, Response::CommandStarted(id)) => self.started(&id),
            (Turn::Command, Response::Fault(fault)) => Err(match fault.meaning(Operation::Command) {
                Meaning::NeedsNewShell => Trouble::NeedsNewShell(fault),
                Meaning::Ambiguous | Meaning::Accepted => Trouble::MayHaveStarted(fault),
                _ => Trouble::NotStarted(fault),
            }),
            (Turn::Send { data, .. }, Response::Sent) => {
                self.taken(data.len(), Phase::Input);
                Ok(())
            }
            (Turn::Send { data, .. }, Response::Fault(fault)) => match fault.meaning(Operation::Send) {
                Meaning::Accepted => {
                    self.taken(data.len(), Phase::InputStalled);
                    Ok(())
                }
                Meaning::InputBusy => {
                    self.phase = Phase::InputStalled;
                    Ok(())
                }
                Meaning::SplitSmaller if self.piece > SMALLEST_PIECE => {
                    self.piece = (self.piece / 2).max(SMALLEST_PIECE);
                    Ok(())
                }
                // The command may have ended without reading all its input: Receive tells.
                Meaning::Ambiguous | Meaning::AlreadyGone => {
                    self.input = None;
                    self.phase = Phase::Output;
                    Ok(())
                }
                _ => Err(Trouble::MayHaveStarted(fault)),
            },
            (Turn::Receive { .. }, Response::Received(received)) => self.received(received),
            (Turn::Receive { .. }, Response::Fault(fault)) => match fault.meaning(Operation::Receive) {
                Meaning::PollAgain => {
                    self.resume();
                    Ok(())
                }
                _ => Err(Trouble::MayHaveStarted(fault)),
            },
            (turn, response) => Err(Trouble::Unexpected(format!("{} to {}", response.name(), name_turn(&turn)))),
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

    /// Another shell takes the command after [`Trouble::NeedsNewShell`].
    pub fn restart(&mut self) {
        self.phase = Phase::Start;
    }

    /// The answer to a Receive was lost, and with it perhaps output. Receiving may go on.
    pub fn lost_answer(&mut self) {
        self.gap = true;
    }

    /// No more input is sent: the command is being stopped.
    pub fn abandon_input(&mut self) {
        self.input = None;
        if matches!(self.phase, Phase::Input | Phase::InputStalled) {
            self.phase = Phase::Output;
        }
    }

    fn started(&mut self, id: &str) -> Result<(), Trouble> {
        // Hosts before WinRM 3.0 choose the identifier themselves. With another identifier than the one that was
        // journalled, the command could not be found again.
        if id.parse::<Uuid>().ok() != Some(self.command_id) {
            return Err(Trouble::Unexpected("another CommandId than the one sent in the answer to Command".to_owned()));
        }
        self.phase = if self.input.is_some() { Phase::Input } else { Phase::Output };
        Ok(())
    }

    fn taken(&mut self, length: usize, phase: Phase) {
        self.input =
            self.input.take().map(|input| input.slice(length.min(input.len())..)).filter(|rest| !rest.is_empty());
        self.phase = if self.input.is_some() { phase } else { Phase::Output };
    }

    fn resume(&mut self) {
        if self.phase == Phase::InputStalled {
            self.phase = Phase::Input;
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
                self.input = None;
                self.phase = Phase::Done;
            }
            (Some(State::Done), None) => return Err(Trouble::Unexpected("Done without an exit code".to_owned())),
            _ => self.resume(),
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
