//! The audit log: exporting it, and checking an export.
//!
//! Lines are printed as they come, with nothing added: each holds the hash of the one before.

use std::io::{BufRead, BufReader};
use std::path::Path;

use lictor_proto::v1;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tonic::Status;

use super::connect::{CALL_TIMEOUT, ControlPlane, unary};
use super::print_one;
use crate::args::Output;
use crate::args::access::{AuditArgs, AuditCommand};
use crate::console;
use crate::exit::Exit;
use crate::failure::Failure;

/// `lictor audit`.
pub(crate) async fn audit(args: AuditArgs, output: Output) -> Result<Exit, Failure> {
    match args.command {
        AuditCommand::Export { from, to, follow } => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let request = v1::ExportAuditRequest { from: from.map(timestamp), to: to.map(timestamp), follow };
            export(&control_plane, request).await
        }
        AuditCommand::Verify { file } => {
            let found = if file.as_os_str() == "-" {
                verify(std::io::stdin().lock())
            } else {
                let open = std::fs::File::open(&file);
                verify(BufReader::new(
                    open.map_err(|error| Failure::unreadable("audit log", Path::new(&file), &error))?,
                ))
            };
            let found = found.map_err(|problem| {
                let remedy =
                    "Compare with other exports; ask who could write the export or the control plane's database.";
                Failure { remedy: remedy.into(), ..Failure::local(problem) }
            })?;
            print_one(&found, Verified::text, output)
        }
    }
}

async fn export(control_plane: &ControlPlane, request: v1::ExportAuditRequest) -> Result<Exit, Failure> {
    let follow = request.follow;
    let mut stream = unary(control_plane.access().export_audit(request)).await?;
    loop {
        let next = if follow {
            stream.message().await
        } else {
            let late = || Status::deadline_exceeded("the control plane stopped in the middle of the export");
            tokio::time::timeout(CALL_TIMEOUT, stream.message()).await.unwrap_or_else(|_| Err(late()))
        };
        let Some(answer) = next.map_err(|status| Failure::from(&status))? else { return Ok(Exit::SUCCESS) };
        for entry in answer.entries {
            console::print_line(&entry)?;
        }
    }
}

fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: time.unix_timestamp(), nanos }
}

/// What an export that is whole holds.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verified {
    entries: u64,
    first_seq: u64,
    last_seq: u64,
    /// SHA-256 of the last line: what the next entry must hold.
    last_hash: String,
}

impl Verified {
    fn text(&self) -> String {
        let Self { entries, first_seq, last_seq, last_hash } = self;
        format!("{entries} entries, {first_seq} to {last_seq}: whole\nhash of the last: {last_hash}\n")
    }
}

/// Checks that each line follows from the one before.
fn verify(lines: impl BufRead) -> Result<Verified, String> {
    let mut found: Option<Verified> = None;
    for (number, line) in (1u64..).zip(Bounded(lines)) {
        let line = line.map_err(|problem| format!("line {number}: {problem}"))?;
        let entry: Value = serde_json::from_str(&line).map_err(|_| format!("line {number} is not JSON"))?;
        let (Some(seq), Some(previous)) = (entry["seq"].as_u64(), entry["previous"].as_str()) else {
            return Err(format!("line {number} is not an entry of the audit log: it has no seq or no previous"));
        };
        let hash: String = Sha256::digest(line.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let (entries, first_seq) = match &found {
            None if seq == 1 && previous.bytes().any(|byte| byte != b'0') => {
                return Err(format!("line {number} says that it is the first entry, and that there is one before it"));
            }
            None => (1, seq),
            Some(before) if before.last_seq.checked_add(1) != Some(seq) => {
                return Err(format!("line {number} has the number {seq} behind {}", before.last_seq));
            }
            Some(before) if before.last_hash != previous => {
                return Err(format!("line {number} does not follow from the line before: one of the two was changed"));
            }
            Some(before) => (before.entries + 1, before.first_seq),
        };
        found = Some(Verified { entries, first_seq, last_seq: seq, last_hash: hash });
    }
    found.ok_or_else(|| "there is no entry".to_owned())
}

/// Lines of at most [`MAX_LINE`] bytes.
struct Bounded<R>(R);

impl<R: BufRead> Iterator for Bounded<R> {
    type Item = Result<String, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut self.0, MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Err(error) => Some(Err(format!("it cannot be read: {error}"))),
            Ok(0) => None,
            Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE => Some(Err("it is too long".into())),
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                Some(String::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned()))
            }
        }
    }
}

/// Far above what an entry has.
const MAX_LINE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Vec<String> {
        let mut previous = "0".repeat(64);
        (1..=4)
            .map(|seq| {
                let line = serde_json::json!({ "action": "x", "previous": previous, "seq": seq }).to_string();
                previous = Sha256::digest(line.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
                line
            })
            .collect()
    }

    fn check(lines: &[String]) -> Result<Verified, String> {
        verify(format!("{}\n", lines.join("\n")).as_bytes())
    }

    #[test]
    fn a_whole_log_and_a_part_of_it_are_good() {
        let found = check(&log()).unwrap();
        assert_eq!((found.entries, found.first_seq, found.last_seq), (4, 1, 4));
        let found = check(&log()[1..3]).unwrap();
        assert_eq!((found.entries, found.first_seq, found.last_seq), (2, 2, 3));
        assert_eq!(verify(log().join("\n").as_bytes()).unwrap().entries, 4, "without the last line's end");
    }

    #[test]
    fn whatever_was_done_to_it_shows() {
        let mut changed = log();
        changed[1] = changed[1].replace("\"x\"", "\"y\"");
        assert!(check(&changed).unwrap_err().contains("line 3"));
        let mut without = log();
        without.remove(2);
        assert!(check(&without).unwrap_err().contains("number 4 behind 2"));
        let mut swapped = log();
        swapped.swap(1, 2);
        assert!(check(&swapped).is_err());
        let mut beheaded = log();
        beheaded[0] = beheaded[1].replace("\"seq\":2", "\"seq\":1");
        assert!(check(&beheaded).unwrap_err().contains("one before it"));
        assert!(check(&["{}".to_owned()]).unwrap_err().contains("not an entry"));
        assert!(check(&["\u{1b}".to_owned()]).unwrap_err().contains("not JSON"));
        assert!(verify(&b""[..]).is_err());
        assert!(verify(&vec![b'x'; 2 << 20][..]).unwrap_err().contains("too long"));
        assert!(verify(&b"\xff\n"[..]).unwrap_err().contains("UTF-8"));
    }
}
