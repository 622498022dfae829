//! Splitting the arguments of a command line as `CommandLineToArgvW` does.

/// The arguments, the program's name excluded.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut characters = line.trim_start_matches([' ', '\t']).chars().peekable();
    while characters.peek().is_some() {
        let mut argument = String::new();
        let mut quotes = 0;
        let mut backslashes = 0;
        while let Some(character) = characters.next_if(|next| quotes > 0 || !matches!(next, ' ' | '\t')) {
            match character {
                '\\' => {
                    argument.push('\\');
                    backslashes += 1;
                    continue;
                }
                '"' => {
                    // 2n backslashes and a quote are n backslashes and a quotation mark; 2n+1 are n and a literal quote.
                    argument.truncate(argument.len() - usize::div_ceil(backslashes, 2));
                    if backslashes % 2 == 1 {
                        argument.push('"');
                    } else {
                        quotes += 1;
                    }
                    // Of three quotes in a row the third is literal.
                    while characters.next_if_eq(&'"').is_some() {
                        quotes += 1;
                        if quotes == 3 {
                            argument.push('"');
                            quotes = 0;
                        }
                    }
                    if quotes == 2 {
                        quotes = 0;
                    }
                }
                other => argument.push(other),
            }
            backslashes = 0;
        }
        arguments.push(argument);
        while characters.next_if(|next| matches!(next, ' ' | '\t')).is_some() {}
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Microsoft's "Parsing C command-line arguments", and cases around it.
    #[test]
    fn arguments_are_split_as_windows_does() {
        for (line, expected) in [
            (r#""a b c" d e"#, vec!["a b c", "d", "e"]),
            (r#""ab\"c" "\\" d"#, vec![r#"ab"c"#, r"\", "d"]),
            (r#"a\\\b d"e f"g h"#, vec![r"a\\\b", "de fg", "h"]),
            (r#"a\\\"b c d"#, vec![r#"a\"b"#, "c", "d"]),
            (r#"a\\\\"b c" d e"#, vec![r"a\\b c", "d", "e"]),
            (r#"  ""  x "#, vec!["", "x"]),
            (r#""a""b""#, vec![r#"a"b"#]),
            ("tab\there", vec!["tab", "here"]),
            ("", vec![]),
        ] {
            assert_eq!(split(line), expected, "{line}");
        }
    }
}
