//! What the sources of this repository hold: tests by their names, and literals that look like codes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// Where failures are made, and the first words of their codes there. Tests among them are passed over.
const MAKERS: &[(&str, &[&str])] = &[
    (
        "winrm/src/error",
        &[
            "resolve",
            "connect",
            "tls",
            "http",
            "connection",
            "auth",
            "seal",
            "soap",
            "request",
            "timeout",
            "pool",
            "kerberos",
        ],
    ),
    ("winrm/src/fault.rs", &["fault"]),
    ("kerberos/src", &["kerberos"]),
    ("kms/src/error", &["kms"]),
    (
        "doctor/src",
        &["kerberos", "dns", "connect", "certificate", "http", "tls", "offered", "auth", "access", "profile"],
    ),
    ("agent/src/failure.rs", &["agent", "kerberos", "policy", "secret"]),
    ("agent/src/policy.rs", &["policy"]),
    ("agent/src/doctor/advice.rs", &["agent", "control_plane"]),
    ("agent/src/enrol/proxy.rs", &["proxy"]),
    ("agent/src/tasks", &["agent"]),
    ("control-plane/src/failure.rs", &["agent", "batch", "control_plane", "credential", "lease", "task"]),
];

/// Where codes without a row are provoked, tests with judges that are not our own before the rest.
const PROVOKERS: &[&str] = &[
    "tests/tests/kerberos",
    "tests/tests",
    "cli/tests",
    "doctor/src",
    "agent/src/doctor",
    "agent/src/enrol",
    "winrm/src/probe",
    "kms/tests/aws",
    "kms/src",
];
/// Tests named for one code.
const MOST: usize = 2;

/// Tests in whose text the code stands, as `FILE::TEST`; the first few.
pub(crate) fn tests_that_name(code: &str) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut files = Vec::new();
    for place in PROVOKERS {
        let mut here = Vec::new();
        collect_all(&root().join(place), &mut here)?;
        here.sort();
        files.extend(here);
    }
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let (mut attribute, mut test) = (false, None);
        for line in text.lines() {
            let line = line.trim_start();
            attribute |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            if let Some(name) = function(line) {
                test = attribute.then(|| name.to_owned());
                attribute = false;
            }
            if let (Some(test), true) = (&test, names(line, code)) {
                let name = format!("{}::{test}", file.strip_prefix(root())?.display());
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
    }
    found.truncate(MOST);
    Ok(found)
}

/// Whether the code stands in the line, and not as a part of another.
fn names(line: &str, code: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    line.match_indices(code).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + code.len()..]);
        !before.ends_with(part) && !after.starts_with(part)
    })
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let plain = |word: &str| matches!(word, "async" | "const" | "unsafe") || word.starts_with("pub");
    if !before.split_whitespace().all(plain) {
        return None;
    }
    rest.split(['(', '<']).next()
}

/// A file of this repository.
pub(crate) struct Source {
    text: String,
}

impl Source {
    pub(crate) fn read(file: &str) -> Result<Self> {
        let text = std::fs::read_to_string(root().join(file)).with_context(|| format!("failed to read {file}"))?;
        Ok(Self { text })
    }

    /// Whether there is a test of that name, and the code stands in it or in what it uses of its file: helpers and tables, and
    /// theirs. Comments prove nothing.
    pub(crate) fn provokes(&self, test: &str, code: &str) -> Result<()> {
        let items = items(&self.text);
        let first = items.iter().position(|item| item.is_test && item.name == test);
        let first = first.with_context(|| format!("there is no test {test}"))?;
        let mut used = vec![first];
        let mut at = 0;
        while let Some(body) = used.get(at).and_then(|index| items.get(*index)).map(|item| item.body.as_str()) {
            // Numbers of faults are written as numbers there.
            let number = code.strip_prefix("fault.").filter(|number| number.parse::<u32>().is_ok());
            if body.contains(&format!("\"{code}\"")) || number.is_some_and(|number| has_number(body, number)) {
                return Ok(());
            }
            let helper = |(index, item): &(usize, &Item)| {
                !item.is_test && !used.contains(index) && words(body).any(|word| word == item.name)
            };
            let more: Vec<usize> = items.iter().enumerate().filter(helper).map(|(index, _)| index).collect();
            used.extend(more);
            at += 1;
        }
        bail!("{test} does not name it, nor does what it uses of its file")
    }
}

/// A function or a constant.
struct Item {
    name: String,
    is_test: bool,
    /// Its lines without those that are comments.
    body: String,
}

/// Functions and constants of a file, as rustfmt lays them out: each lasts until the next line that is not further in.
fn items(text: &str) -> Vec<Item> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut items = Vec::new();
    let mut is_test = false;
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        is_test |= code.starts_with("#[test]") || code.starts_with("#[tokio::test");
        let Some(name) = function(code).or_else(|| constant(code)) else { continue };
        let rest = lines.get(at + 1..).unwrap_or_default().iter();
        let inside = rest.take_while(|next| {
            // The end of a signature that is broken into lines is no end.
            next.trim().is_empty() || indent(next) > indent(line) || next.trim_start().starts_with(')')
        });
        let body = std::iter::once(line).chain(inside).copied().collect::<Vec<_>>().join("\n");
        items.push(Item { name: name.to_owned(), is_test: std::mem::take(&mut is_test), body });
    }
    items
}

/// The name of the constant that begins on this line.
fn constant(line: &str) -> Option<&str> {
    let visible = line.starts_with("pub").then(|| line.split_once(' ').map(|(_, rest)| rest)).flatten();
    let line = visible.unwrap_or(line);
    let rest = line.strip_prefix("const ").or_else(|| line.strip_prefix("static "))?;
    rest.split_once(':').map(|(name, _)| name)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// Whether the number stands there as a whole, grouped or not.
fn has_number(text: &str, number: &str) -> bool {
    words(text).any(|word| {
        word.starts_with(|c: char| c.is_ascii_digit()) && word.bytes().filter(|byte| *byte != b'_').eq(number.bytes())
    })
}

/// Literals that look like codes where failures are made, with their files.
pub(crate) fn codes() -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for (place, words) in MAKERS {
        let mut files = Vec::new();
        let path = root().join(place);
        collect(&path, &mut files)?;
        // A module may be a file and a folder.
        if path.extension().is_some() && path.with_extension("").is_dir() {
            collect(&path.with_extension(""), &mut files)?;
        }
        ensure!(!files.is_empty(), "there is nothing at {place}");
        for file in files {
            let text = std::fs::read_to_string(&file)?;
            let made = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let name = file.display().to_string();
            all.extend(
                literals(made).filter(|literal| is_code(literal, words)).map(|code| (name.clone(), code.to_owned())),
            );
        }
    }
    ensure!(all.len() > 40, "{} literals are not all", all.len());
    Ok(all)
}

/// Sources but for those of tests.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut all = Vec::new();
    collect_all(path, &mut all)?;
    files.extend(all.into_iter().filter(|file| {
        let below = file.strip_prefix(path).unwrap_or(file);
        !below.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
    }));
    Ok(())
}

fn collect_all(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    if !path.is_dir() {
        bail!("there is no {}", path.display());
    }
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            collect_all(&path, files)?;
        }
    }
    Ok(())
}

fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| line.split('"').skip(1).step_by(2))
}

fn is_code(literal: &str, words: &[&str]) -> bool {
    literal.split_once('.').is_some_and(|(word, rest)| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        words.contains(&word) && !rest.is_empty() && rest.chars().all(plain)
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn a_code_beside_a_test_is_no_evidence() {
    let text = r#"
const NUMBERS: &[u32] = &[
    1_326,
    5,
];
const WAIT: u64 = 15;

fn helper(
    at: u64,
) -> &'static str {
    "tls.helper"
}

#[test]
fn one() {
    // "tls.comment"
    assert_eq!(code(WAIT), "tls.one");
    table();
}

fn table() {
    for number in NUMBERS {}
}

#[tokio::test]
async fn two() {
    helper(170);
    one_more("tls.two");
}
"#;
    let source = Source { text: text.to_owned() };
    let provoked = |test: &str, code: &str| source.provokes(test, code).is_ok();
    for (test, code) in
        [("one", "tls.one"), ("one", "fault.5"), ("one", "fault.1326"), ("two", "tls.two"), ("two", "tls.helper")]
    {
        assert!(provoked(test, code), "{test} names {code}");
    }
    for (test, code) in [
        ("one", "tls.two"),
        ("one", "tls.comment"),
        ("one", "tls.helper"),
        ("one", "fault.15000"),
        ("one", "fault.26"),
        ("two", "fault.5"),
        ("two", "fault.70"),
        ("two", "tls.one"),
        ("table", "fault.5"),
        ("three", "tls.two"),
    ] {
        assert!(!provoked(test, code), "{test} does not name {code}");
    }
}
