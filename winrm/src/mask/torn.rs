//! The first bytes of a stream whose beginning is lost: they may be the end of a secret that began before.
//!
//! Holds back only as long as what came is the beginning of such an end. Used by [`super::Masker`] once per stream.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

use super::{MIN_BYTES, Patterns};

/// The beginning of a torn stream.
pub(super) struct Torn {
    forms: Vec<Zeroizing<Vec<u8>>>,
    held: BytesMut,
}

impl std::fmt::Debug for Torn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Torn([redacted])")
    }
}

impl Torn {
    pub(super) fn new(patterns: &Patterns) -> Self {
        Self { forms: patterns.forms(), held: BytesMut::new() }
    }

    /// Takes the next bytes. Once it is certain: whether the stream began with the end of a secret, and what came behind it.
    pub(super) fn push(&mut self, data: &[u8]) -> Option<(bool, Bytes)> {
        self.held.extend_from_slice(data);
        let undecided = self.tails().any(|tail| tail.len() > self.held.len() && tail.starts_with(&self.held));
        (!undecided).then(|| self.decide())
    }

    /// The stream has ended.
    pub(super) fn finish(mut self) -> (bool, Bytes) {
        self.decide()
    }

    fn decide(&mut self) -> (bool, Bytes) {
        let longest = self.tails().filter(|tail| self.held.starts_with(tail)).map(<[u8]>::len).max().unwrap_or(0);
        let mut rest = self.held.split().freeze();
        drop(rest.split_to(longest));
        (longest > 0, rest)
    }

    /// The ends of secrets; whole ones are found by others.
    fn tails(&self) -> impl Iterator<Item = &[u8]> {
        let ends = |form: &'_ Zeroizing<Vec<u8>>| 1..form.len().saturating_sub(MIN_BYTES - 1);
        self.forms.iter().flat_map(move |form| ends(form).filter_map(|from| form.get(from..)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Masker;
    use super::*;

    fn masked(stream: &str, piece: usize) -> String {
        let mut masker = Masker::resumed(Arc::new(Patterns::new(["correct horse", "staple&battery"])));
        let mut out = Vec::new();
        for data in stream.as_bytes().chunks(piece) {
            masker.push(Bytes::copy_from_slice(data), &mut |data| out.extend_from_slice(&data));
        }
        masker.finish(&mut |data| out.extend_from_slice(&data));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_end_of_a_secret_that_comes_first_is_masked_wherever_it_was_torn() {
        for piece in [1, 2, 3, 5, 100] {
            for cut in 1.."correct horse".len() - 3 {
                let tail = &"correct horse"[cut..];
                assert_eq!(masked(&format!("{tail} and correct horse"), piece), "*** and ***", "{tail}");
                assert_eq!(masked(tail, piece), "***", "{tail}");
            }
            assert_eq!(masked("amp;battery", piece), "***");
            assert_eq!(masked("correct horse, of course", piece), "***, of course");
            for innocent in ["", "e", "rse", "horses", "horror", "line 1\nline 2\n"] {
                let expected = innocent.replace("horses", "***s");
                assert_eq!(masked(innocent, piece), expected);
            }
        }
    }
}
