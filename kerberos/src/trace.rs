//! What was asked of Kerberos and what came back, line by line, in the manner of MIT's `KRB5_TRACE`, which is what people who
//! look after Kerberos know how to read.
//!
//! A caller that wants to know hands a [`Trace`] to the KDC dialogue and the credential manager; everybody else hands
//! [`Trace::off`], which costs nothing. Lines name principals, realms, hosts, encryption types and errors. They never hold a
//! password, a key, a ticket or any other bytes of a message: whoever adds a line keeps to that, because a
//! trace ends up in the output of a task. Every line is bounded, and so is their number.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines one trace takes; the last of them says that the rest is left out. A login over six KDCs writes about fifty.
const MAX_LINES: usize = 2_000;

/// Characters of one line. Texts of a KDC and names of principals come from outside.
const MAX_LINE: usize = 1_000;

/// A cloneable place for trace lines; the clones write into the same place.
#[derive(Clone, Default)]
pub struct Trace(Option<Arc<Mutex<Sink>>>);

struct Sink {
    write: Write,
    lines: usize,
    /// Microseconds since 1970 of the last line. As in MIT's traces each line has a later time than the one before, so that
    /// lines sort.
    last: u64,
}

enum Write {
    Keep(Vec<String>),
    Call(Box<dyn FnMut(&str) + Send>),
}

impl Trace {
    /// No trace: lines are not even formatted.
    pub fn off() -> Self {
        Self(None)
    }

    /// Keeps the lines for [`Trace::lines`].
    pub fn collect() -> Self {
        Self::with(Write::Keep(Vec::new()))
    }

    /// Hands each line, without a line feed, to `write` as it happens. `write` must not wait: it is called in the middle of the
    /// dialogue with the KDC.
    pub fn to(write: impl FnMut(&str) + Send + 'static) -> Self {
        Self::with(Write::Call(Box::new(write)))
    }

    fn with(write: Write) -> Self {
        Self(Some(Arc::new(Mutex::new(Sink { write, lines: 0, last: 0 }))))
    }

    /// Whether anybody reads the lines, for a caller whose line costs work beyond formatting it.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes `[pid] seconds.microseconds: text`, as `trace.line(format_args!("Getting initial credentials for {principal}"))`.
    /// Control characters are shown escaped, so that a line stays one line.
    pub fn line(&self, text: impl fmt::Display) {
        if let Some(sink) = &self.0 {
            // A sink that panicked while writing has at worst lost its own line.
            sink.lock().unwrap_or_else(PoisonError::into_inner).line(&text);
        }
    }

    /// The lines kept so far; none unless this trace was made by [`Trace::collect`].
    pub fn lines(&self) -> Vec<String> {
        let Some(sink) = &self.0 else { return Vec::new() };
        match &sink.lock().unwrap_or_else(PoisonError::into_inner).write {
            Write::Keep(lines) => lines.clone(),
            Write::Call(_) => Vec::new(),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Trace(on)" } else { "Trace(off)" })
    }
}

impl Sink {
    fn line(&mut self, text: &dyn fmt::Display) {
        if self.lines >= MAX_LINES {
            return;
        }
        self.lines += 1;
        let mut bounded = Bounded { text: String::new(), left: MAX_LINE };
        if self.lines == MAX_LINES {
            bounded.text.push_str("The trace is too long; what follows is left out");
        } else {
            // The error is only how a full line stops the formatting.
            let _full = fmt::write(&mut bounded, format_args!("{text}"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        self.last = u64::try_from(now).unwrap_or(u64::MAX).max(self.last.saturating_add(1));
        let line = format!(
            "[{}] {}.{:06}: {}",
            std::process::id(),
            self.last / 1_000_000,
            self.last % 1_000_000,
            bounded.text
        );
        match &mut self.write {
            Write::Keep(lines) => lines.push(line),
            Write::Call(write) => write(&line),
        }
    }
}

/// Takes the beginning of a text, with its control characters escaped.
struct Bounded {
    text: String,
    left: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        for character in piece.chars() {
            let Some(left) = self.left.checked_sub(1) else {
                self.text.push('…');
                return Err(fmt::Error);
            };
            self.left = left;
            if character.is_control() {
                self.text.extend(character.escape_default());
            } else {
                self.text.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_those_of_mit_and_their_times_rise() {
        let trace = Trace::collect();
        trace.line(format_args!("Getting initial credentials for {}", "alice@CORP.EXAMPLE"));
        trace.clone().line("Sending unauthenticated request");
        let lines = trace.lines();
        let prefix = format!("[{}] ", std::process::id());
        let times: Vec<(u64, u64)> = lines
            .iter()
            .map(|line| {
                let (time, _text) = line.strip_prefix(&prefix).and_then(|rest| rest.split_once(": ")).unwrap();
                let (seconds, micros) = time.split_once('.').unwrap();
                assert_eq!(micros.len(), 6, "{line}");
                (seconds.parse().unwrap(), micros.parse().unwrap())
            })
            .collect();
        assert!(lines[0].ends_with(": Getting initial credentials for alice@CORP.EXAMPLE"), "{lines:?}");
        assert!(lines[1].ends_with(": Sending unauthenticated request"), "{lines:?}");
        assert!(times[0] < times[1], "{times:?}");
    }

    #[test]
    fn a_trace_that_is_off_formats_nothing() {
        struct Never;
        impl fmt::Display for Never {
            fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
                unreachable!("formatted for nobody")
            }
        }
        let trace = Trace::off();
        trace.line(Never);
        assert!(!trace.is_on());
        assert!(trace.lines().is_empty());
        assert!(!Trace::default().is_on());
    }

    #[test]
    fn a_line_stays_one_bounded_line() {
        let trace = Trace::collect();
        trace.line("no such principal\r\n[1] 0.0: forged \u{1b}[31m");
        trace.line("x".repeat(MAX_LINE + 1));
        let lines = trace.lines();
        assert!(lines[0].ends_with("principal\\r\\n[1] 0.0: forged \\u{1b}[31m"), "{lines:?}");
        assert!(lines[1].ends_with(&format!(": {}…", "x".repeat(MAX_LINE))), "{lines:?}");
    }

    #[test]
    fn the_number_of_lines_is_bounded_and_the_last_one_says_so() {
        let trace = Trace::collect();
        for number in 0..MAX_LINES + 10 {
            trace.line(number);
        }
        let lines = trace.lines();
        assert_eq!(lines.len(), MAX_LINES);
        assert!(lines[MAX_LINES - 1].ends_with(": The trace is too long; what follows is left out"));
    }

    #[test]
    fn lines_go_to_a_function_as_they_happen() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let trace = Trace::to(move |line| sender.send(line.to_owned()).unwrap());
        trace.line("Sending request (190 bytes) to CORP.EXAMPLE");
        assert!(receiver.try_recv().unwrap().ends_with(": Sending request (190 bytes) to CORP.EXAMPLE"));
        assert!(trace.lines().is_empty());
    }
}
