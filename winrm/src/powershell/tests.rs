use proptest::prelude::*;
use tree_sitter::Parser;

use super::*;

fn outputs(names: &[&str]) -> Outputs {
    Outputs::new(0x0123_4567_89ab_cdef, names.iter().copied()).unwrap().unwrap()
}

const MARK: &str = "lictor-00000000000000000123456789abcdef:";

fn input(invocation: &Invocation) -> String {
    String::from_utf8(invocation.stdin.clone().unwrap().to_vec()).unwrap()
}

fn values(invocation: &Invocation) -> Vec<String> {
    input(invocation)
        .lines()
        .filter_map(|line| line.strip_prefix(':'))
        .map(|line| String::from_utf8(STANDARD.decode(line).unwrap()).unwrap())
        .collect()
}

fn powershell(text: &str, arguments: &[&str], names: &[&str]) -> Invocation {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let outputs = (!names.is_empty()).then(|| outputs(names));
    powershell_script(text, &arguments, &Options { no_profile: true, outputs }).unwrap()
}

#[test]
fn the_script_travels_through_standard_input() {
    let invocation = powershell("Write-Output 'secret'\nexit 37", &["a b", "", "\"q\" $x é\r\n%&|^"], &[]);
    assert_eq!(values(&invocation), ["Write-Output 'secret'\nexit 37", "a b", "", "\"q\" $x é\r\n%&|^"]);
    assert!(
        invocation.command_line.starts_with(
            "powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand JABQ"
        )
    );
    // cmd.exe takes 8191, of which WinRM uses some itself.
    assert!(invocation.command_line.len() < 6000, "{}", invocation.command_line.len());
    let same = powershell("", &[], &["a"]);
    assert_eq!(same.command_line, invocation.command_line);
    assert_eq!(input(&same), format!("={MARK}\n?a\n:\n"));
    let profile = powershell_script("", &[], &Options::default()).unwrap();
    assert!(!profile.command_line.contains("-NoProfile"));
}

#[test]
fn the_bootstrap_is_utf16_in_base64() {
    let invocation = powershell("", &[], &[]);
    let encoded = invocation.command_line.rsplit(' ').next().unwrap();
    let units: Vec<u16> =
        STANDARD.decode(encoded).unwrap().chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    assert_eq!(String::from_utf16(&units).unwrap(), BOOTSTRAP);
    assert!(BOOTSTRAP.is_ascii());
    assert!(!BOOTSTRAP.to_ascii_lowercase().contains("$input"));
    assert!(BOOTSTRAP.contains(&format!("-gt {}", outputs::MAX_VALUE)));
}

/// Errors that a grammar of PowerShell sees.
fn grammar_errors(text: &str) -> usize {
    fn count(node: tree_sitter::Node<'_>) -> usize {
        let own = usize::from(node.is_error() || node.is_missing());
        own + node.children(&mut node.walk()).map(count).sum::<usize>()
    }
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).unwrap();
    count(parser.parse(text, None).unwrap().root_node())
}

#[test]
fn a_grammar_of_powershell_reads_the_bootstrap() {
    assert_eq!(grammar_errors(BOOTSTRAP), 0);
    // It can tell.
    assert_ne!(grammar_errors(&BOOTSTRAP.replacen("}finally{", "}", 1)), 0);
    assert_ne!(grammar_errors(&BOOTSTRAP.replacen("try{", "try", 1)), 0);
}

#[test]
fn a_grammar_of_powershell_reads_what_stands_around_hard_scripts() {
    // The line that the bootstrap puts behind a script, as it stands there.
    assert!(BOOTSTRAP.contains(r#"$LictorValues[0]+"`r`n`r`n"+'$global:LictorStatus=$?'"#));
    for script in [
        "Write-Output 1 # comment",
        "param($a, $b = 2)\nWrite-Output $a",
        "@'\nhere string\n'@",
        "@\"\n$x\n\"@ | Out-String",
        "Get-Process |\n  Where-Object { $_.CPU -gt 1 }",
        "function f($x) { Write-Output \"<$x>\" }
f -x 1",
        "if ($true) { exit 3 } else { throw \"x\" }",
        "cmd /c \"exit 5\"",
        "Write-Output 1;",
        "$x = @{ a = 1; 'b c' = @(1, 2) }\r\n$x.a",
        "try { 1 } catch { $_ } finally { 2 }",
        "<# block\ncomment #>",
        "'ü € \u{1f600}'",
    ] {
        let whole = format!("{script}\r\n\r\n$global:LictorStatus=$?");
        assert_eq!(grammar_errors(&whole), 0, "{whole}");
    }
}

#[test]
fn cmd_lines_end_with_the_exit_code() {
    let invocation = cmd_script("echo %1%\nver", &["a & b".to_owned()], None).unwrap();
    assert_eq!(invocation.command_line, "cmd.exe /D /Q /V:OFF /K rem");
    assert_eq!(input(&invocation), "set \"1=a & b\"\r\necho %1%\r\nver\r\nexit %ERRORLEVEL%\r\n");
    let invocation = cmd_script("set A=1", &[], Some(&outputs(&["A", "b_2"]))).unwrap();
    let expected = format!(
        "set A=1\r\n@set \"LICTOR_EXIT=%ERRORLEVEL%\"\r\n@echo off\r\necho {MARK}0=\r\nset A 2>nul\r\n\
         echo {MARK}1=\r\nset b_2 2>nul\r\necho {MARK}x%LICTOR_EXIT%\r\necho {MARK}.\r\nexit %LICTOR_EXIT%\r\n"
    );
    assert_eq!(input(&invocation), expected);
}

#[test]
fn arguments_that_cmd_cannot_take_are_refused_by_position() {
    let lines = |argument: &str| cmd_script("", &["x".to_owned(), argument.to_owned()], None).map(|it| input(&it));
    assert_eq!(lines("50%").unwrap(), "set \"1=x\"\r\nset 2=50^%\r\nexit %ERRORLEVEL%\r\n");
    let guarded = lines("%PATH:a=b% & x").unwrap();
    assert!(guarded.contains("set 2=^%^PATH:a=b^%^ ^& x\r\n"), "{guarded}");
    for (argument, what) in [("a\"b", "a double quote"), ("a\nb", "a line break"), ("a\u{7}", "a control character")] {
        let error = lines(argument).unwrap_err();
        assert_eq!(error, ScriptError::Argument { position: 2, what });
        assert!(error.to_string().ends_with("use PowerShell, which takes any text"));
    }
    assert_eq!(cmd_script("a\0", &[], None), Err(ScriptError::Nul));
}

#[test]
fn names_are_checked() {
    let names = |names: &[&str]| Outputs::new(1, names.iter().copied());
    assert_eq!(names(&[]), Ok(None));
    for name in ["", "1a", "a b", "a%", "é", "a-b", "env:x", &"a".repeat(129)] {
        assert!(matches!(names(&[name]), Err(NameError::Name(_))), "{name}");
    }
    assert_eq!(names(&["a", "A"]), Err(NameError::Twice("A".to_owned())));
    let many: Vec<String> = (0..65).map(|index| format!("v{index}")).collect();
    assert_eq!(Outputs::new(1, many.iter().map(String::as_str)), Err(NameError::TooMany(65)));
}

fn collected(names: &[&str], pieces: &[&[u8]]) -> (String, Collected) {
    let mut out = Vec::new();
    let mut collector = Collector::new(outputs(names));
    for piece in pieces {
        collector.push(Bytes::copy_from_slice(piece), &mut |piece| {
            assert!(!piece.is_empty());
            out.extend_from_slice(&piece);
        });
    }
    let collected = collector.finish(&mut |piece| out.extend_from_slice(&piece));
    (String::from_utf8(out).unwrap(), collected)
}

fn pairs(collected: &Collected) -> Vec<(&str, OutputValue)> {
    collected.values.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
}

#[test]
fn the_trailer_is_taken_out_of_the_output() {
    let value = STANDARD.encode("two\r\nlines, ü");
    let stream = format!(
        "no line end{MARK}0+{value}\n{MARK}1+\n{MARK}2-\n{MARK}3!\n{MARK}x-5\n{MARK}.\nafter\r\nlictor-0000 is no mark"
    );
    let names = ["a", "b", "c", "d", "e"];
    for size in [1, 7, 1000] {
        let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        let (out, collected) = collected(&names, &pieces);
        assert_eq!(out, "no line endafter\r\nlictor-0000 is no mark");
        let expected = [
            ("a", OutputValue::Value("two\r\nlines, ü".to_owned())),
            ("b", OutputValue::Value(String::new())),
            ("c", OutputValue::Missing),
            ("d", OutputValue::Unusable),
            ("e", OutputValue::Unknown),
        ];
        assert_eq!(pairs(&collected), expected);
        assert_eq!((collected.exit_code(0), collected.exit_code(7)), (-5, 7));
    }
}

#[test]
fn what_set_writes_is_read() {
    let stream = format!(
        "out\r\n{MARK}0=\r\nPath=C:\\a;\"b\"=%x%&\r\nPATHEXT=.EXE\r\n{MARK}1=\r\n{MARK}2=\r\nXY=1\r\n{MARK}x3\r\n{MARK}.\r\n"
    );
    for size in [1, 1000] {
        let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        let (out, collected) = collected(&["PATH", "none", "X"], &pieces);
        assert_eq!(out, "out\r\n");
        let path = OutputValue::Value("C:\\a;\"b\"=%x%&".to_owned());
        assert_eq!(pairs(&collected), [("PATH", path), ("none", OutputValue::Missing), ("X", OutputValue::Missing)]);
        assert_eq!(collected.exit_code(0), 3);
    }
}

#[test]
fn a_trailer_that_others_wrote_into_is_no_harm() {
    let long = "x".repeat(200_000);
    let stream = format!("a{MARK}0+{long}\nb{MARK}9+\nc{MARK}0+%%%\nd{MARK}\ne{MARK}0+QQ==");
    let (out, collected) = collected(&["v"], &[stream.as_bytes()]);
    assert_eq!(out, format!("a0+{long}\nbcde{MARK}0+QQ=="));
    assert_eq!(pairs(&collected), [("v", OutputValue::Unusable)]);
    assert_eq!(collected.exit_code(0), 0);
}

proptest! {
    #[test]
    fn where_the_output_is_cut_changes_nothing(
        parts in proptest::collection::vec(prop_oneof![
            Just(MARK.to_owned()), Just("\n".to_owned()), Just("0+QQ==".to_owned()), Just("1=".to_owned()), Just("lictor".to_owned()),
            Just("b=1\r\n".to_owned()), Just("x5".to_owned()), "[a-z\n]{0,5}", Just(MARK[..20].to_owned()),
        ], 0..20),
        size in 1_usize..40,
    ) {
        let stream = parts.concat();
        let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        prop_assert_eq!(collected(&["a", "b"], &pieces), collected(&["a", "b"], &[stream.as_bytes()]));
    }
}
