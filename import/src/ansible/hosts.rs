//! Names of hosts as inventories write them: ranges, ports, IPv6 addresses.

/// Names that a pattern stands for, and the port behind it.
pub(crate) struct Hosts {
    pub(crate) names: Vec<String>,
    pub(crate) port: Option<u32>,
}

/// Expands `win[01:20].corp.example:5986` to at most `limit` names. Says what is wrong.
pub(crate) fn expand(pattern: &str, limit: usize) -> Result<Hosts, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("a host that is longer than {MAX_PATTERN_BYTES} bytes"));
    }
    let (host, port) = address(pattern).unwrap_or((pattern, None));
    if port.is_none() && pattern.trim_end().ends_with(':') {
        return Err("a host that ends in a colon, behind which a port must follow".to_owned());
    }
    if host.trim() == "---" {
        return Err("--- begins YAML, and this is none".to_owned());
    }
    if host.is_empty() {
        return Err("a host without a name".to_owned());
    }
    // Whoever writes this meant a variable, and its value is nothing to repeat.
    if host.contains('=') {
        return Err(
            "a variable where a host must be: variables stand behind a host, or in a section [GROUP:vars]".to_owned()
        );
    }
    let mut names = vec![host.to_owned()];
    while names.first().is_some_and(|name| name.contains('[')) {
        let mut next = Vec::new();
        for name in &names {
            one_range(name, limit, &mut next)?;
        }
        names = next;
    }
    Ok(Hosts { names, port })
}

/// `HOST`, `HOST:PORT` or `[HOST]:PORT`; nothing when it is none of them, and then the whole is a name.
fn address(text: &str) -> Option<(&str, Option<u32>)> {
    let port = |digits: &str| {
        let good = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|_| good)
    };
    let (mut host, mut found) = (text, None);
    if let Some((inside, digits)) = text.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:"))
        && !inside.is_empty()
        && let Some(port) = port(digits)
    {
        (host, found) = (inside, Some(port));
    }
    // Colons are allowed before the port only within brackets.
    if let Some((before, digits)) = host.rsplit_once(':')
        && let Some(port) = port(digits)
        && colons_only_in_brackets(before)
    {
        (host, found) = (before, Some(port));
    }
    (is_ipv6(host) || is_host_name(host)).then_some((host, found))
}

/// Whether no colon stands outside of brackets, and each bracket has its other.
fn colons_only_in_brackets(text: &str) -> bool {
    let mut inside = false;
    for byte in text.bytes() {
        match (byte, inside) {
            (b'[', false) => inside = true,
            (b']', true) => inside = false,
            (b']' | b':', false) => return false,
            _ => {}
        }
    }
    !inside
}

/// An address, in which ranges may stand for groups.
fn is_ipv6(text: &str) -> bool {
    without_ranges(text, |range| hexadecimal(range) && range.contains(':'))
        .is_some_and(|text| text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Labels of word characters, dashes and ranges, with dots between them.
fn is_host_name(text: &str) -> bool {
    let range = |range: &str| {
        let parts: Vec<&str> = range.split(':').collect();
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let letter = |text: &str| text.len() == 1 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        match parts.as_slice() {
            [begin, end] => (number(begin) && number(end)) || (letter(begin) && letter(end)),
            [begin, end, step] => number(step) && ((number(begin) && number(end)) || (letter(begin) && letter(end))),
            _ => false,
        }
    };
    let Some(text) = without_ranges(text, range) else { return false };
    text.split('.').all(|label| {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        label.starts_with(word) && label.chars().all(|c| word(c) || c == '-') && !label.ends_with(['-', '_'])
    })
}

fn hexadecimal(text: &str) -> bool {
    text.split(':').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The text with `1` in place of each range. Nothing when one of them is none.
fn without_ranges(text: &str, good: impl Fn(&str) -> bool) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('[') {
        let (range, behind) = behind.split_once(']')?;
        if !good(range) {
            return None;
        }
        result.push_str(before);
        result.push('1');
        rest = behind;
    }
    if rest.contains(']') {
        return None;
    }
    result.push_str(rest);
    Some(result)
}

/// Expands the first range of a name.
fn one_range(name: &str, limit: usize, names: &mut Vec<String>) -> Result<(), String> {
    let broken = || "a range that is none: [BEGIN:END] or [BEGIN:END:STEP] with numbers or single letters".to_owned();
    let (head, rest) = name.split_once('[').ok_or_else(broken)?;
    let (range, tail) = rest.split_once(']').ok_or_else(broken)?;
    let mut parts = range.split(':');
    let (begin, end, step) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    if end.is_empty() || parts.next().is_some() || name.contains('|') {
        return Err(broken());
    }
    let begin = if begin.is_empty() { "0" } else { begin };
    let step = step.map_or(Some(1), |step| step.parse::<usize>().ok()).filter(|step| *step > 0).ok_or_else(broken)?;
    let mut push = |name: String| {
        if names.len() >= limit {
            return Err(format!("more than {limit} hosts"));
        }
        names.push(name);
        Ok(())
    };
    let width = (begin.len() > 1 && begin.starts_with('0')).then_some(begin.len());
    if width.is_some_and(|width| width != end.len()) {
        return Err("a range whose begin and end have not the same number of digits".to_owned());
    }
    let letter = |text: &str| Some(text).filter(|text| text.len() == 1).and_then(|text| LETTERS.find(text));
    if let (Some(begin), Some(end)) = (letter(begin), letter(end)) {
        let letters = LETTERS.get(begin..=end).filter(|_| begin <= end);
        let letters = letters.ok_or("a range that begins behind its end")?;
        return letters.chars().step_by(step).try_for_each(|letter| push(format!("{head}{letter}{tail}")));
    }
    let number = |text: &str| text.parse::<u64>().ok().ok_or_else(broken);
    let (begin, end) = (number(begin)?, number(end)?);
    for number in (begin..=end).step_by(step) {
        push(match width {
            Some(width) => format!("{head}{number:0width$}{tail}"),
            None => format!("{head}{number}{tail}"),
        })?;
    }
    Ok(())
}

/// Twice the longest name, and room for ranges.
const MAX_PATTERN_BYTES: usize = 1024;

/// The order that ranges of letters follow.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str) -> Vec<String> {
        expand(pattern, 1000).unwrap().names
    }

    #[test]
    fn ranges() {
        assert_eq!(
            names("win[08:10].corp.example"),
            ["win08.corp.example", "win09.corp.example", "win10.corp.example"]
        );
        assert_eq!(names("w[1:7:3]"), ["w1", "w4", "w7"]);
        assert_eq!(names("w[a:c]-[1:2]"), ["wa-1", "wa-2", "wb-1", "wb-2", "wc-1", "wc-2"]);
        assert_eq!(names("w[:2]"), ["w0", "w1", "w2"]);
        assert_eq!(names("10.0.0.[8:9]"), ["10.0.0.8", "10.0.0.9"]);
        assert!(names("w[5:2]").is_empty());
        for wrong in ["w[1]", "w[1:]", "w[01:100]", "w[c:a]", "w[1:2:0]", "w[1:2:3:4]", "w[x:3]", "w[1:2", "x|[1:2]"] {
            assert!(expand(wrong, 1000).is_err(), "{wrong}");
        }
        assert!(expand("w[1:1001]", 1000).is_err());
        assert!(expand("w[0:18446744073709551615]", 1000).is_err());
        assert!(expand(&"[1:9]".repeat(40), 1000).is_err());
    }

    #[test]
    fn ports_and_addresses() {
        for (pattern, host, port) in [
            ("web1:5985", "web1", Some(5985)),
            ("[web1]:5985", "web1", Some(5985)),
            ("10.0.0.1:5986", "10.0.0.1", Some(5986)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]:5986", "2001:db8::1", Some(5986)),
            ("odd_:5985", "odd_:5985", None),
            ("web1:http", "web1:http", None),
        ] {
            let hosts = expand(pattern, 10).unwrap();
            assert_eq!((hosts.names.as_slice(), hosts.port), (&[host.to_owned()][..], port), "{pattern}");
        }
        let hosts = expand("w[1:2]:5985", 10).unwrap();
        assert_eq!((hosts.names.len(), hosts.port), (2, Some(5985)));
        assert!(expand("web1:", 10).is_err());
        assert!(expand("---", 10).is_err());
        assert!(expand("ansible_password=x", 10).err().unwrap().contains("a variable"));
        assert!(!expand("ansible_password=s3cret", 10).err().unwrap().contains("s3cret"));
    }
}
