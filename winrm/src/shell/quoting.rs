//! Quoting of arguments: first by the rules of CommandLineToArgvW, then so that cmd.exe, which reads the line first,
//! hands it on unchanged.

/// Appends `argument` so that a program sees exactly it as one argument.
///
/// cmd.exe takes what stands in double quotes as it is, except for `%NAME%` of variables that exist. It does not know the
/// backslash before a quote, so an argument with quotes of its own is guarded with carets instead.
pub(super) fn append(line: &mut String, argument: &str) {
    let special = |character: char| matches!(character, '&' | '|' | '<' | '>' | '^' | '(' | ')' | '%' | '!' | '"');
    let separates = |character: char| matches!(character, ' ' | '\t' | ',' | ';' | '=');
    if !argument.is_empty() && !argument.contains(|character| special(character) || separates(character)) {
        line.push_str(argument);
        return;
    }
    let quoted = quote(argument);
    if argument.contains('"') || argument.contains('%') {
        let mut guard = false;
        for character in quoted.chars() {
            // A caret before a percent sign alone would leave `%NAME:a=b%` a variable: its end may hold anything. With one
            // behind it as well, no name begins there.
            if special(character) || guard {
                line.push('^');
            }
            line.push(character);
            guard = character == '%';
        }
    } else {
        line.push_str(&quoted);
    }
}

/// Backslashes are doubled only where they stand before a quote.
fn quote(argument: &str) -> String {
    let mut out = String::with_capacity(argument.len() + 2);
    out.push('"');
    let mut backslashes = 0;
    for character in argument.chars() {
        match character {
            '\\' => backslashes += 1,
            '"' => {
                out.extend(std::iter::repeat_n('\\', backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        out.push(character);
    }
    out.extend(std::iter::repeat_n('\\', backslashes));
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(argument: &str) -> String {
        let mut line = String::new();
        append(&mut line, argument);
        line
    }

    #[test]
    fn arguments_are_quoted_when_they_need_it() {
        assert_eq!(line("plain"), "plain");
        assert_eq!(line(r"C:\dir\"), r"C:\dir\");
        assert_eq!(line(""), r#""""#);
        assert_eq!(line("a b"), r#""a b""#);
        assert_eq!(line(r"C:\my dir\"), r#""C:\my dir\\""#);
        assert_eq!(line("a&b"), r#""a&b""#);
        assert_eq!(line(r#"say "hi""#), r#"^"say \^"hi\^"^""#);
        assert_eq!(line("%PATH%"), r#"^"^%^PATH^%^""#);
        assert_eq!(line("%OS:W=x% 100%"), r#"^"^%^OS:W=x^%^ 100^%^""#);
    }

    /// What cmd.exe makes of `%NAME%` and `%NAME:a=b%` on a line that is typed, before it looks at carets, where every name
    /// of letters is a variable.
    fn expanded(line: &str) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            let name = after.find([':', '%']).map(|end| &after[..end]).filter(|name| !name.is_empty());
            let known = name.is_some_and(|name| name.chars().all(char::is_alphanumeric));
            rest = match after.split_once('%').filter(|_| known) {
                Some((_, after)) => {
                    out.push_str("VALUE");
                    after
                }
                None => {
                    out.push('%');
                    after
                }
            };
        }
        out.push_str(rest);
        out
    }

    /// What cmd.exe hands on: carets outside quotes fall away, quotes toggle.
    fn through_cmd(line: &str) -> String {
        let mut out = String::new();
        let mut quoted = false;
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            match character {
                '^' if !quoted => out.extend(characters.next()),
                '"' => {
                    quoted = !quoted;
                    out.push('"');
                }
                '&' | '|' | '<' | '>' if !quoted => panic!("{line:?} lets {character} reach cmd.exe"),
                _ => out.push(character),
            }
        }
        out
    }

    /// CommandLineToArgvW for one argument.
    fn through_argv(line: &str) -> Vec<String> {
        let mut arguments = vec![];
        let mut current: Option<String> = None;
        let mut quoted = false;
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' => {
                    let mut count = 1;
                    while characters.next_if_eq(&'\\').is_some() {
                        count += 1;
                    }
                    let target = current.get_or_insert_default();
                    if characters.peek() == Some(&'"') {
                        target.extend(std::iter::repeat_n('\\', count / 2));
                        if count % 2 == 1 {
                            target.push('"');
                            characters.next();
                        }
                    } else {
                        target.extend(std::iter::repeat_n('\\', count));
                    }
                }
                '"' => {
                    quoted = !quoted;
                    current.get_or_insert_default();
                }
                ' ' | '\t' if !quoted => arguments.extend(current.take()),
                _ => current.get_or_insert_default().push(character),
            }
        }
        arguments.extend(current);
        arguments
    }

    proptest! {
        #[test]
        fn a_program_sees_the_arguments_as_they_were(arguments in proptest::collection::vec("[a: \\\\\"&|<>^%()!,;=\t]{0,12}", 1..4)) {
            let mut whole = String::new();
            for argument in &arguments {
                append(&mut whole, argument);
                whole.push(' ');
            }
            prop_assert_eq!(through_argv(&through_cmd(&expanded(&whole))), arguments);
        }
    }
}
