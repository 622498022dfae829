//! `lictor task submit`: flags and files become a task.

use std::collections::HashMap;

use lictor_proto::v1;

use super::settings;
use crate::args::control::SubmitArgs;
use crate::failure::Failure;
use crate::input;

/// The request. Reads the files that the flags name; the control plane checks the values.
pub(super) fn request(args: &SubmitArgs) -> Result<v1::SubmitTaskRequest, Failure> {
    let shell = v1::ShellSettings {
        environment: args.environment.iter().map(|v| (v.name.clone(), v.value.clone())).collect(),
        working_directory: args.cwd.clone().unwrap_or_default(),
        no_profile: args.no_profile,
        code_page: args.codepage.unwrap_or_default(),
        secret_environment: secret_environment(args)?,
    };
    let stderr_format = if args.raw_stderr { v1::StderrFormat::Raw } else { v1::StderrFormat::Unspecified }.into();
    let kind = if args.test {
        v1::task_spec::Kind::ConnectionTest(v1::ConnectionTest {})
    } else if args.diagnose {
        v1::task_spec::Kind::Diagnosis(v1::Diagnosis {})
    } else if args.posture {
        v1::task_spec::Kind::Posture(v1::PostureCheck { without_script: args.without_script })
    } else if let Some(path) = &args.script {
        v1::task_spec::Kind::Script(v1::Script {
            language: settings::language(args.language).into(),
            text: input::text("script", path, lictor_proto::MAX_INPUT_BYTES)?,
            arguments: args.command.clone(),
            shell: Some(shell),
            stderr_format,
            output_variables: args.output_variables.clone(),
            no_powershell_profile: args.no_powershell_profile,
        })
    } else {
        let (line, arguments) = match args.command.split_first() {
            Some((line, arguments)) => (line.clone(), arguments.to_vec()),
            None => (String::new(), Vec::new()),
        };
        let stdin = match &args.stdin {
            Some(path) => input::bytes("standard input", path, lictor_proto::MAX_INPUT_BYTES)?,
            None => Vec::new(),
        };
        v1::task_spec::Kind::Command(v1::Command {
            command_line: line,
            arguments,
            stdin: stdin.into(),
            shell: Some(shell),
            stderr_format,
        })
    };
    let spec = v1::TaskSpec {
        target: Some(v1::Target {
            host: args.host.clone().unwrap_or_default(),
            connection: Some(settings::connection(&args.connection)?),
        }),
        credential: args.credential.clone(),
        timeout: args.timeout.map(settings::proto_duration),
        queue_timeout: args.queue_timeout.map(settings::proto_duration),
        idempotent: args.idempotent,
        selector: Some(v1::AgentSelector { tags: args.selector.tags.clone(), scope: args.selector.scope.clone() }),
        label: args.label.clone(),
        kind: Some(kind),
    };
    let idempotency_key = args.idempotency_key.clone().unwrap_or_default();
    Ok(v1::SubmitTaskRequest { spec: Some(spec), idempotency_key })
}

/// Names of variables and identifiers of the secrets that they hold.
fn secret_environment(args: &SubmitArgs) -> Result<HashMap<String, String>, Failure> {
    let mut variables = HashMap::new();
    for text in &args.secret_environment {
        // What has another form may be a secret, so it is not shown.
        let Some((name, secret)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Failure::usage(
                "--secret-env must look like NAME=ID",
                "NAME is that of the variable, ID the identifier of a stored secret.",
            ));
        };
        let secret = settings::identifier("--secret-env", secret)?;
        // To Windows, names that differ in case are the same.
        let same = |other: &str| other.eq_ignore_ascii_case(name);
        if variables.keys().any(|other: &String| same(other)) || args.environment.iter().any(|other| same(&other.name))
        {
            return Err(Failure::usage(
                format!("the variable {name} is given twice"),
                "Give each variable once, by --env or by --secret-env.",
            ));
        }
        variables.insert(name.to_owned(), secret);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::control::TaskCommand;
    use crate::args::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<SubmitArgs, clap::Error> {
        let common = ["lictor", "task", "submit", "--host", "win-a", "--credential", "c"];
        match Cli::try_parse_from(common.iter().chain(arguments))?.command {
            Command::Task(crate::args::control::TaskArgs { command: TaskCommand::Submit(args), .. }) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_keeps_its_words_apart() {
        let args =
            parse(&["--env", "A=1", "--tag", "t", "--no-profile", "--", "sim.exe", "argv", "a b", "--watch"]).unwrap();
        assert!(!args.watch);
        let spec = request(&args).unwrap().spec.unwrap();
        let Some(v1::task_spec::Kind::Command(command)) = spec.kind else { panic!("not a command") };
        assert_eq!(command.command_line, "sim.exe");
        assert_eq!(command.arguments, ["argv", "a b", "--watch"]);
        let shell = command.shell.unwrap();
        assert_eq!(shell.environment.get("A").map(String::as_str), Some("1"));
        assert_eq!(shell.no_profile, Some(true));
        assert_eq!(spec.selector.unwrap().tags, ["t"]);
    }

    #[test]
    fn secrets_are_named_and_never_given() {
        let args =
            parse(&["--env", "A=1", "--secret-env", "B=web-password", "--host-ca-secret", "ca", "--", "ver"]).unwrap();
        let spec = request(&args).unwrap().spec.unwrap();
        let Some(v1::task_spec::Kind::Command(command)) = spec.kind else { panic!("not a command") };
        let shell = command.shell.unwrap();
        assert_eq!(shell.secret_environment, HashMap::from([("B".to_owned(), "web-password".to_owned())]));
        assert_eq!(shell.environment.len(), 1);
        assert_eq!(spec.target.unwrap().connection.unwrap().ca_secret, "ca");
        for wrong in [
            &["--secret-env", "P@ss"][..],
            &["--secret-env", "=P@ss"],
            &["--secret-env", "A=P@ss"],
            &["--secret-env", "A=b", "--env", "a=P@ss"],
            &["--secret-env", "A=b", "--secret-env", "a=b"],
            &["--host-ca-secret", "P@ss"],
        ] {
            let failure = request(&parse(&[wrong, &["--", "ver"]].concat()).unwrap()).unwrap_err();
            assert!(!failure.to_text().contains("P@ss"), "{failure:?}");
        }
        assert!(parse(&["--test", "--secret-env", "A=b"]).is_err());
        assert!(parse(&["--host-ca-secret", "a", "--host-ca", "f", "--test"]).is_err());
        assert!(parse(&["--host-ca-secret", "a", "--skip-cert-check", "--test"]).is_err());
    }

    #[test]
    fn a_script_is_read_from_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "exit 37").unwrap();
        let path = file.path().to_str().unwrap();
        let flags =
            ["--output-variable", "A", "--output-variable", "b", "--raw-stderr", "--no-powershell-profile=false"];
        let args = parse(&[&["--script", path, "--watch"], &flags[..], &["--", "-x", "y"]].concat()).unwrap();
        assert!(args.watch);
        let Some(v1::task_spec::Kind::Script(script)) = request(&args).unwrap().spec.unwrap().kind else {
            panic!("not a script")
        };
        assert_eq!(script.stderr_format(), v1::StderrFormat::Raw);
        assert_eq!((script.text.as_str(), script.arguments), ("exit 37", vec!["-x".to_owned(), "y".to_owned()]));
        assert_eq!(script.output_variables, ["A", "b"]);
        assert_eq!(script.no_powershell_profile, Some(false));
    }

    #[test]
    fn kerberos_takes_the_names_of_ansible_too() {
        let flags =
            ["--realm", "CORP.EXAMPLE", "--delegate", "--kinit-mode", "manual", "--kerberos-trace=false", "--test"];
        let kerberos = |flags: &[&str]| {
            let spec = request(&parse(flags).unwrap()).unwrap().spec.unwrap();
            spec.target.unwrap().connection.unwrap().kerberos
        };
        let given = kerberos(&flags).unwrap();
        assert_eq!((given.realm.as_str(), given.kinit_mode()), ("CORP.EXAMPLE", v1::KinitMode::Manual));
        assert_eq!((given.delegate, given.trace, given.fresh_tickets), (Some(true), Some(false), None));
        let given =
            kerberos(&["--ansible-winrm-kerberos-delegation=true", "--ansible-winrm-service", "WSMAN", "--test"]);
        assert_eq!(given.map(|given| (given.delegate, given.spn_service)), Some((Some(true), "WSMAN".to_owned())));
        assert_eq!(kerberos(&["--test"]), None);
    }

    #[test]
    fn exactly_one_thing_is_to_be_done() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--test", "--", "ver"]).is_err());
        assert!(parse(&["--test", "--script", "f"]).is_err());
        for looks in ["--test", "--diagnose", "--posture"] {
            assert!(parse(&[looks]).is_ok());
            for other in [&["--", "ver"][..], &["--script", "f"], &["--stdin", "f"], &["--cwd", "d"], &["--env", "A=1"]]
            {
                assert!(parse(&[&[looks], other].concat()).is_err(), "{looks} {other:?}");
            }
        }
        assert!(parse(&["--test", "--diagnose"]).is_err());
        assert!(parse(&["--diagnose", "--posture"]).is_err());
        assert!(parse(&["--diagnose", "--without-script"]).is_err());
        let kind = |flags: &[&str]| request(&parse(flags).unwrap()).unwrap().spec.unwrap().kind.unwrap();
        assert_eq!(kind(&["--diagnose"]), v1::task_spec::Kind::Diagnosis(v1::Diagnosis {}));
        let posture = v1::PostureCheck { without_script: true };
        assert_eq!(kind(&["--posture", "--without-script"]), v1::task_spec::Kind::Posture(posture));
        assert!(parse(&["--language", "cmd", "--", "ver"]).is_err());
        assert!(parse(&["--output-variable", "A", "--", "ver"]).is_err());
    }
}
