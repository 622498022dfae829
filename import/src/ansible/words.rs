//! A line of an INI inventory into words, by the rules of a POSIX shell as Python's `shlex` knows them: quotes, backslashes,
//! and comments that may begin in the middle of a word.

use zeroize::Zeroizing;

/// Splits a line. Says what is wrong without repeating any of it.
pub(crate) fn split(line: &str) -> Result<Vec<Zeroizing<String>>, &'static str> {
    let mut words = Vec::new();
    // Never grows, so that no copy of a password is left behind.
    let fresh = || Zeroizing::new(String::with_capacity(line.len()));
    let mut word = fresh();
    let mut begun = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::replace(&mut word, fresh()));
                }
            }
            '#' => break,
            '\\' => {
                begun = true;
                word.push(characters.next().ok_or("a backslash ends the line")?);
            }
            '\'' => {
                begun = true;
                loop {
                    match characters.next() {
                        None => return Err(OPEN),
                        Some('\'') => break,
                        Some(character) => word.push(character),
                    }
                }
            }
            '"' => {
                begun = true;
                loop {
                    match characters.next() {
                        None => return Err(OPEN),
                        Some('"') => break,
                        Some('\\') => match characters.next().ok_or(OPEN)? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        Some(character) => word.push(character),
                    }
                }
            }
            character => {
                begun = true;
                word.push(character);
            }
        }
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

const OPEN: &str = "a quotation that begins does not end";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_backslashes_and_comments() {
        for (line, expected) in [
            ("a b=c  d='e f'", &["a", "b=c", "d=e f"][..]),
            ("a # comment", &["a"]),
            ("a b=c#d e=f", &["a", "b=c"]),
            ("a \"b\\\"c\\d\" e\\ f", &["a", "b\"c\\d", "e f"]),
            ("'a # b' '' x\"y z\"w", &["a # b", "", "xy zw"]),
            ("'a\\' b", &["a\\", "b"]),
            ("", &[]),
        ] {
            let words = split(line).unwrap();
            assert_eq!(words.iter().map(|word| word.as_str()).collect::<Vec<_>>(), expected, "{line}");
        }
        for line in ["a 'b", "a \"b", "a \\", "a \"b\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
