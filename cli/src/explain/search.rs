//! From what people type or paste to entries: by code, by number of a fault, else by words.

use std::collections::BTreeSet;

use super::page::Entry;

/// Text that is longer is cut: what is looked for stands at its beginning.
const MOST_BYTES: usize = 16 * 1024;

/// A known text is meant when so many of its words are there, in percent: messages hold other names and endings.
const ENOUGH: usize = 75;

/// What a text that people know is ahead of our own words.
const KNOWN: usize = 1000;

/// Names in the examples of the page, which nobody looks for.
const EXAMPLES: &[&str] =
    &["alice", "bob", "corp", "example", "web1", "krb5cc", "keytabs", "etc", "tmp", "lictor", "1000"];

/// Words that say nothing by themselves.
const EMPTY: &[&str] = &[
    "a", "an", "and", "any", "be", "by", "can", "for", "has", "have", "in", "is", "it", "no", "not", "of", "on", "or",
    "s", "t", "that", "the", "this", "to", "was", "were", "with", "you",
];

/// The entries that are meant, the best first.
pub(super) fn find<'a>(entries: &'a [Entry], text: &str) -> Vec<&'a Entry> {
    let text = text.get(..text.floor_char_boundary(MOST_BYTES)).unwrap_or_default().to_lowercase();
    let named = by_code(entries, &text);
    if !named.is_empty() { named } else { by_words(entries, &text) }
}

fn by_code<'a>(entries: &'a [Entry], text: &str) -> Vec<&'a Entry> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let words: Vec<&str> =
        text.split(|c| !part(c)).map(|word| word.trim_matches(['.', '-'])).filter(|word| !word.is_empty()).collect();
    let codes: BTreeSet<&str> = words.iter().copied().collect();
    let named: Vec<&Entry> = entries.iter().filter(|entry| codes.contains(entry.code.as_str())).collect();
    if !named.is_empty() {
        return named;
    }
    // Small numbers mean too many things, unless nothing else is there.
    let signed = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter_map(number);
    let numbers: BTreeSet<String> =
        signed.filter(|number| *number > 0xFFFF || words.len() == 1).map(|number| format!("fault.{number}")).collect();
    entries.iter().filter(|entry| numbers.contains(&entry.code)).collect()
}

/// A fault's number: decimal, negative as some hosts write it, or hexadecimal.
fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => lictor_winrm::fault::parse_code(word),
    }
}

fn by_words<'a>(entries: &'a [Entry], text: &str) -> Vec<&'a Entry> {
    let asked = words(text);
    if asked.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<(usize, &Entry)> = entries
        .iter()
        .filter_map(|entry| {
            // A text that people know counts for more than our own words.
            let known = entry.causes.iter().filter_map(|cause| cause.legacy_text.as_ref()).chain(&entry.also_known_as);
            let known = known.filter_map(|text| likeness(&asked, text, true)).map(|likeness| KNOWN + likeness);
            let own = entry.causes.iter().filter_map(|cause| {
                likeness(&asked, &format!("{} {} {}", entry.code, cause.message, cause.cause), false)
            });
            let best = known.chain(own);
            Some((best.max()?, entry))
        })
        .collect();
    found.sort_by_key(|(likeness, _)| std::cmp::Reverse(*likeness));
    // Where a known text fits, our own words that happen to hold the same ones only distract.
    let known = found.first().is_some_and(|(likeness, _)| *likeness >= KNOWN);
    found.into_iter().filter(|(likeness, _)| !known || *likeness >= KNOWN).map(|(_, entry)| entry).collect()
}

/// How like the text is to what is asked, when it is meant at all: everything asked is in it, or, of a text that people know,
/// nearly all of it is in what is asked.
fn likeness(asked: &BTreeSet<String>, text: &str, known: bool) -> Option<usize> {
    let told = words(text);
    let both = asked.intersection(&told).count();
    let pasted = known && told.len() > 1 && both * 100 >= told.len() * ENOUGH;
    let meant = both > 0 && (both == asked.len() || pasted);
    meant.then(|| both * 100 / asked.union(&told).count().max(1))
}

fn words(text: &str) -> BTreeSet<String> {
    let plain = text.to_lowercase();
    plain
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty() && !EXAMPLES.contains(word) && !EMPTY.contains(word))
        .map(str::to_owned)
        .collect()
}
