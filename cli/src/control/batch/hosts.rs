//! Lists of hosts, from a flag or a file: one a line, comments and blank lines between them.
//!
//! Pure. Mistakes are told all at once, with their lines; what makes a good host the control plane decides.

use std::fmt::Write as _;

use lictor_proto::v1;

use crate::failure::Failure;

/// Reads a file: `HOST[:PORT] [LABEL]` a line, `#` begins a comment.
pub(super) fn from_file(text: &str) -> Result<Vec<v1::BatchHost>, Failure> {
    let mut hosts = Vec::new();
    let mut mistakes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        let (host, label) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match parse(host) {
            Ok(host) => hosts.push(v1::BatchHost { label: label.trim().to_owned(), ..host }),
            Err(mistake) => mistakes.push(format!("line {}: {mistake}", index + 1)),
        }
    }
    finish(hosts, &mistakes, "the file")
}

/// Reads the values of `--hosts`.
pub(super) fn from_values(values: &[String]) -> Result<Vec<v1::BatchHost>, Failure> {
    let mut hosts = Vec::new();
    let mut mistakes = Vec::new();
    for value in values.iter().map(|value| value.trim()).filter(|value| !value.is_empty()) {
        match parse(value) {
            Ok(host) => hosts.push(host),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    finish(hosts, &mistakes, "--hosts")
}

fn finish(hosts: Vec<v1::BatchHost>, mistakes: &[String], what: &str) -> Result<Vec<v1::BatchHost>, Failure> {
    if let Some((last, first)) = mistakes.split_at(mistakes.len().min(MAX_TOLD)).0.split_last() {
        let mut text = first.iter().fold(String::new(), |mut text, mistake| {
            let _ = write!(text, "{mistake}; ");
            text
        });
        text.push_str(last);
        if mistakes.len() > MAX_TOLD {
            let _ = write!(text, "; and {} more", mistakes.len() - MAX_TOLD);
        }
        return Err(Failure::usage(format!("the list of hosts has mistakes: {text}"), FORM));
    }
    if hosts.is_empty() {
        return Err(Failure::usage(format!("{what} names no host"), FORM));
    }
    Ok(hosts)
}

/// A comment begins the line or follows a space: `#` is in no host, but may be in a label.
fn without_comment(line: &str) -> &str {
    let starts = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with(char::is_whitespace);
    line.match_indices('#').find(starts).and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

/// `HOST`, `HOST:PORT`, an IPv6 address, or one in brackets with a port.
fn parse(text: &str) -> Result<v1::BatchHost, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(u32::from(port)),
        _ => Err(format!("{text:?} is no port")),
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| format!("{text:?} lacks a closing bracket"))?;
        match rest.strip_prefix(':') {
            Some(text) => (host, port(text)?),
            None if rest.is_empty() => (host, 0),
            None => return Err(format!("{text:?} has something behind its bracket")),
        }
    } else {
        match text.split_once(':') {
            // More than one colon: an IPv6 address.
            Some((host, rest)) if !rest.contains(':') => (host, port(rest)?),
            _ => (text, 0),
        }
    };
    if host.is_empty() {
        return Err(format!("{text:?} names no host"));
    }
    Ok(v1::BatchHost { host: host.to_owned(), port, ..v1::BatchHost::default() })
}

const FORM: &str = "Give one host a line, or separated by commas: NAME, NAME:PORT, 10.0.0.1, [fe80::1]:5986.";
const MAX_TOLD: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn named(hosts: &[v1::BatchHost]) -> Vec<(&str, u32, &str)> {
        hosts.iter().map(|host| (host.host.as_str(), host.port, host.label.as_str())).collect()
    }

    #[test]
    fn a_file_has_comments_blank_lines_ports_and_labels() {
        let text =
            "# all of them\n\n web1 \nweb2:5985  front end # not now\r\n[fe80::1]:5986\nfe80::2\n\t# none\ndb a#1\n";
        let hosts = from_file(text).unwrap();
        let expected =
            [("web1", 0, ""), ("web2", 5985, "front end"), ("fe80::1", 5986, ""), ("fe80::2", 0, ""), ("db", 0, "a#1")];
        assert_eq!(named(&hosts), expected);
    }

    #[test]
    fn mistakes_are_told_at_once_with_their_lines() {
        let failure = from_file("good\n:80\nweb:99999\n\n[::1\nweb:x\n[::1]x\n").unwrap_err();
        for line in ["line 2", "line 3", "line 5", "line 6", "line 7"] {
            assert!(failure.message.contains(line), "{line} in {}", failure.message);
        }
        assert!(!failure.message.contains("line 1:"), "{}", failure.message);
        assert!(from_file("# nobody\n").unwrap_err().message.contains("names no host"));
        let many = from_file(&":1\n".repeat(25)).unwrap_err();
        assert!(many.message.ends_with("and 15 more"), "{}", many.message);
    }

    #[test]
    fn a_flag_takes_several() {
        let values = ["a".to_owned(), " b:1 ".to_owned(), String::new()];
        assert_eq!(named(&from_values(&values).unwrap()), [("a", 0, ""), ("b", 1, "")]);
        assert!(from_values(&["b:0".to_owned()]).unwrap_err().message.contains("\"0\" is no port"));
    }
}
