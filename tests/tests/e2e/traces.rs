//! One task is one trace, judged by a collector that others wrote: see `tests/peers/otel/README.md`. And the level of logs.

#![expect(clippy::print_stdout, reason = "that a test did not run is to be seen")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Agent, Certificates, Process, Stack, binary, eventually};
use serde_json::Value;

use crate::secrecy::search_for;
use crate::{FINAL, PATIENCE, ntlm_host};

/// What the collector wants to be shown; a word that occurs nowhere else.
const API_KEY: &str = "Mark3r-api-key";
const PAGE: &str = include_str!("../../../docs/observability.md");

struct Collector {
    port: u64,
    process: Process,
    certificates: Certificates,
    directory: tempfile::TempDir,
}

impl Collector {
    /// Nothing when the test may be left out.
    fn start(arguments: &[&str]) -> Result<Option<Self>> {
        let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON").map(PathBuf::from) else {
            let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
            assert!(!required, "LICTOR_PEERS is required, but LICTOR_PEERS_PYTHON names no interpreter");
            println!("did not run: LICTOR_PEERS_PYTHON is not set");
            return Ok(None);
        };
        let directory = tempfile::Builder::new().prefix("lictor-otel-").tempdir()?;
        let certificates = Certificates::create(directory.path())?;
        let file = |name: &str| directory.path().join(name);
        let ready = file("ready");
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/otel/collector.py"));
        command.arg("--out").arg(file("spans")).arg("--raw").arg(file("spans.raw")).arg("--ready-file").arg(&ready);
        command.arg("--tls-cert").arg(&certificates.certificate).arg("--tls-key").arg(&certificates.key);
        let mut process =
            Process::start("collector", command.args(arguments).env("HOME", directory.path()), &file("log"))?;
        let port = process.ready(&ready)?["port"].as_u64().context("no port")?;
        Ok(Some(Self { port, process, certificates, directory }))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn spans(&self) -> Result<Vec<Value>> {
        let log = self.process.log();
        ensure!(!log.contains("REFUSED"), "{log}");
        let text = std::fs::read_to_string(self.file("spans"))?;
        // The last line may be under way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// The spans of the trace that this task is in, once one of them is called `last`.
    fn trace_of(&self, task_id: &str, last: &str) -> Result<Trace> {
        eventually(&format!("the trace has {last}"), PATIENCE, || {
            let spans = self.spans()?;
            let own = spans.iter().find(|span| span["name"] == "submit" && span["attributes"]["task_id"] == task_id);
            let trace_id = own.with_context(|| format!("{spans:#?}"))?["trace_id"].clone();
            let trace = Trace(spans.into_iter().filter(|span| span["trace_id"] == trace_id).collect());
            ensure!(trace.0.iter().any(|span| span["name"] == last), "{:#?}", trace.names());
            Ok(trace)
        })
    }
}

struct Trace(Vec<Value>);

impl Trace {
    fn id(&self) -> &str {
        self.0.first().and_then(|span| span["trace_id"].as_str()).unwrap_or_default()
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().filter_map(|span| span["name"].as_str()).collect()
    }

    fn span(&self, name: &str) -> Result<&Value> {
        self.0.iter().find(|span| span["name"] == name).with_context(|| format!("no {name} in {:?}", self.names()))
    }

    fn parent<'a>(&'a self, span: &Value) -> &'a str {
        let id = span["parent_span_id"].as_str().unwrap_or_default();
        if id.is_empty() {
            return "";
        }
        let parent = self.0.iter().find(|other| other["span_id"] == id);
        parent.and_then(|parent| parent["name"].as_str()).unwrap_or("elsewhere")
    }

    /// Name and parent of each, sorted.
    fn tree(&self) -> Vec<(&str, &str)> {
        let mut tree: Vec<_> =
            self.0.iter().map(|span| (span["name"].as_str().unwrap_or_default(), self.parent(span))).collect();
        tree.sort_unstable();
        tree
    }
}

/// Spans and their attributes, as the page lists them.
fn listed() -> BTreeMap<String, BTreeSet<String>> {
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let section = PAGE.split("\n## ").find(|section| section.starts_with("Spans")).unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let attributes: BTreeSet<String> =
            cells.last().map(|cell| words(cell)).unwrap_or_default().into_iter().collect();
        words(cells[0]).into_iter().map(move |name| (name, attributes.clone()))
    })
    .collect()
}

#[test]
fn the_page_lists_exactly_the_spans_of_the_code() -> Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut named = BTreeSet::new();
    let quoted = |text: &str| text.split('"').nth(1).map(str::to_owned);
    let files = [
        ("control-plane/src/telemetry.rs", &["_span!(", "context::past("][..]),
        ("agent/src/tasks/spans.rs", &["_span!("]),
        ("winrm/src/spans.rs", &["_span!("]),
        ("winrm/src/connection.rs", &["spans::exchange("]),
        ("winrm/src/connection/authentication.rs", &["spans::exchange("]),
        (
            "winrm/src/session.rs",
            &["self.call(Stage::", "let mut operation =", "operation = \"", "=> (\"", "(\"Send\""],
        ),
        ("winrm/src/session/configuration.rs", &["self.call(Stage::", "let mut operation =", "operation = \""]),
    ];
    for (file, marks) in files {
        let source = std::fs::read_to_string(format!("{root}/{file}"))?;
        for mark in marks {
            for (at, _) in source.match_indices(mark) {
                // A name stands before the end of the statement, or it is a variable's.
                let rest = &source[at..source.len().min(at + 200)];
                let rest = &rest[..rest.find(';').unwrap_or(rest.len())];
                named.extend(quoted(rest).filter(|name| name.bytes().all(|byte| byte.is_ascii_alphabetic())));
            }
        }
    }
    // It is called by the operation.
    named.remove("exchange");
    assert_eq!(listed().into_keys().collect::<BTreeSet<_>>(), named);
    Ok(())
}

/// An installation whose programs export to a collector by TLS, with an API key. Nothing when the test may be left out.
fn traced(level: &str) -> Result<Option<(Stack, Collector, Agent)>> {
    let wanted = format!("api-key={API_KEY}");
    let Some(collector) = Collector::start(&["--want-header", &wanted])? else { return Ok(None) };
    let endpoint = format!("https://localhost:{}", collector.port);
    let headers = collector.file("password-headers");
    std::fs::write(&headers, format!("Api-Key: {API_KEY}\n"))?;
    let (headers, ca) = (headers.display().to_string(), collector.certificates.ca.display().to_string());
    let stack = Stack::start(&[
        ("LICTOR_CONTROL_PLANE_TELEMETRY__OTLP_ENDPOINT", &endpoint),
        ("LICTOR_CONTROL_PLANE_TELEMETRY__OTLP_HEADERS_FILE", &headers),
        ("LICTOR_CONTROL_PLANE_TELEMETRY__OTLP_CA_FILE", &ca),
        ("LICTOR_CONTROL_PLANE_LOG__LEVEL", level),
    ])?;
    // The agent by the variables that OpenTelemetry's own programs know.
    let agent = stack.agent(
        "agent-1",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_HEADERS", &wanted),
            ("LICTOR_AGENT_TELEMETRY__OTLP_CA_FILE", &ca),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=lictor-agent-0"),
            ("LICTOR_AGENT_LOG__LEVEL", level),
        ],
    )?;
    Ok(Some((stack, collector, agent)))
}

#[test]
fn one_task_is_one_trace_from_the_submission_to_each_exchange() -> Result<()> {
    // What an agent writes about a task that goes well is below info.
    let Some((stack, collector, agent)) = traced("debug")? else { return Ok(()) };
    let windows = ntlm_host(&stack)?;
    let target = ["task", "submit", "--host", "127.0.0.1", "--credential", "ntlm", "--", "hostname"];
    let run = |environment: &[(&str, &str)]| -> Result<Trace> {
        let output = stack.lictor_in(environment, &[&["--output", "json"], &target[..]].concat())?;
        let task_id = output.json()?["task_id"].as_str().context("no task_id")?.to_owned();
        let task = stack.task_in(&task_id, FINAL, PATIENCE)?;
        assert_eq!(task["state"], "succeeded", "{task:#}");
        // The last to end.
        collector.trace_of(&task_id, "task")
    };
    let cold = run(&[])?;
    let below: Vec<&str> =
        cold.tree().into_iter().filter(|(_, parent)| *parent == "lease").map(|(name, _)| name).collect();
    assert_eq!(below, ["Create", "authenticate", "connect"]);
    let authenticate = cold.span("authenticate")?;
    let legs = cold.tree().into_iter().filter(|leg| *leg == ("Handshake", "authenticate")).count();
    assert!(legs > 1, "{:?}", cold.tree());
    assert_eq!(authenticate["attributes"]["winrm.handshake_legs"], legs);
    // Where an agent of before may have left shells behind is looked at once.
    eventually("the agent looks for orphans", PATIENCE, || {
        ensure!(windows.count("/operations/Enumerate")? == 1, "{:#}", windows.statistics()?);
        Ok(())
    })?;

    // As part of what somebody else traces.
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let warm = run(&[("TRACEPARENT", caller)])?;
    assert_eq!(warm.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_ne!(warm.id(), cold.id());
    assert_eq!(
        warm.tree(),
        [
            ("Command", "start"),
            ("Receive", "run"),
            ("Signal", "deliver"),
            ("accept", "task"),
            ("assign", "submit"),
            ("credential", "task"),
            ("deliver", "task"),
            ("lease", "task"),
            ("queue", "submit"),
            ("run", "task"),
            ("start", "task"),
            ("submit", "elsewhere"),
            ("task", "assign"),
        ]
    );
    assert_eq!(warm.span("submit")?["parent_span_id"], "00f067aa0ba902b7");
    for name in ["Command", "Receive", "Signal"] {
        let exchange = warm.span(name)?;
        let about = &exchange["attributes"];
        assert_eq!(exchange["kind"], "SPAN_KIND_CLIENT");
        assert_eq!(about["http.response.status_code"], 200, "{exchange:#}");
        assert_eq!(about["server.address"], "127.0.0.1");
        assert!(about["http.request.body.size"].as_u64() > Some(100), "{exchange:#}");
        assert!(about["http.response.body.size"].as_u64() > Some(100), "{exchange:#}");
    }
    let task = warm.span("task")?;
    assert_eq!(task["service"], "lictor-agent");
    assert_eq!(task["resource"]["k8s.pod.name"], "lictor-agent-0");
    assert_eq!(
        (&task["attributes"]["outcome"], &task["attributes"]["target"]),
        (&"succeeded".into(), &"127.0.0.1".into())
    );
    assert_eq!(warm.span("lease")?["attributes"]["reused"], true);
    assert_eq!(warm.span("queue")?["service"], "lictor-control-plane");

    // What fails says so, by its code.
    let failing = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "exit", "/b", "3"])?;
    stack.task_in(&failing, FINAL, PATIENCE)?;
    assert_eq!(collector.trace_of(&failing, "task")?.span("task")?["status"], "STATUS_CODE_ERROR");

    // Every span that came is on the page, with all it says, and says nothing else.
    let listed = listed();
    for span in collector.spans()? {
        let name = span["name"].as_str().unwrap_or_default();
        let known = listed.get(name).with_context(|| format!("{name} is not on the page"))?;
        assert_eq!(span["events"], 0, "{span:#}");
        for attribute in span["attributes"].as_object().context("attributes")?.keys() {
            assert!(known.contains(attribute), "{name} says {attribute}, which is not on the page");
        }
    }
    // Lines name the trace.
    let (log, ours) = (stack.control_plane.process.log(), "Task submitted");
    assert!(log.lines().any(|line| line.contains(ours) && line.contains(warm.id())), "{log}");
    let named = format!("trace_id={:?}", warm.id());
    let log = agent.process.log();
    assert!(log.lines().any(|line| line.contains(&named)), "none says {named}\n{log}");
    Ok(())
}

#[test]
fn the_wait_in_the_queue_is_part_of_the_trace_over_a_restart() -> Result<()> {
    let Some((mut stack, collector, _agent)) = traced("info")? else { return Ok(()) };
    let _windows = ntlm_host(&stack)?;
    let waiting = ["--host", "127.0.0.1", "--credential", "ntlm", "--tag", "later", "--", "hostname"];
    let task_id = stack.submit(&waiting)?;
    collector.trace_of(&task_id, "submit")?;
    stack.control_plane.kill()?;
    stack.control_plane.restart()?;
    let endpoint = format!("https://localhost:{}", collector.port);
    let wanted = format!("api-key={API_KEY}");
    let _later = stack.agent(
        "agent-2",
        &[
            ("LICTOR_AGENT_TAGS", "later"),
            ("LICTOR_AGENT_TELEMETRY__OTLP_ENDPOINT", &endpoint),
            ("LICTOR_AGENT_TELEMETRY__OTLP_CA_FILE", &collector.certificates.ca.display().to_string()),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", &wanted),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=none"),
        ],
    )?;
    stack.task_in(&task_id, &["succeeded"], PATIENCE)?;
    let trace = collector.trace_of(&task_id, "task")?;
    let (queue, submit) = (trace.span("queue")?, trace.span("submit")?);
    assert_eq!((trace.parent(queue), trace.parent(trace.span("task")?)), ("submit", "assign"));
    // Milliseconds are what is stored of it.
    let near = |span: &Value, edge: &str| span[edge].as_u64().unwrap_or_default() / 1_000_000;
    assert!(near(queue, "start") <= near(submit, "end") && near(queue, "start") >= near(submit, "start"));
    Ok(())
}

#[test]
fn a_collector_that_is_away_stops_no_task_and_holds_up_no_end() -> Result<()> {
    // Nobody listens there: the port was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let stack = Stack::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)])?;
    let mut agent = stack.agent("agent-1", &[("LICTOR_AGENT_TELEMETRY__OTLP_ENDPOINT", &endpoint)])?;
    let _windows = ntlm_host(&stack)?;
    for _ in 0..3 {
        let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "hostname"])?;
        stack.task_in(&task_id, &["succeeded"], PATIENCE)?;
    }
    for (program, get) in
        [("agent", agent.get("/metrics")?.1), ("control_plane", stack.control_plane.get("/metrics")?.1)]
    {
        assert!(get.contains(&format!("{program}_trace_spans_exported_total 0")), "{get}");
    }
    eventually("a failure is counted", PATIENCE, || {
        let metrics = agent.get("/metrics")?.1;
        let line =
            metrics.lines().find(|line| line.starts_with("agent_trace_export_failures_total")).context("none")?;
        ensure!(!line.ends_with(" 0"), "{line}");
        Ok(())
    })?;
    agent.process.terminate()?;
    // Far more than the seconds that are left for the last spans, on a machine that is busy, too; far less than somebody would
    // need who tried until the collector is back.
    let status = agent.process.wait(PATIENCE / 3)?;
    assert!(status.success(), "{status}\n{}", agent.process.log());
    Ok(())
}

#[test]
fn no_secret_gets_into_traces_or_into_logs_at_a_level_that_was_raised() -> Result<()> {
    const SCRIPT: &str = "Mark3r-in-script";
    const VARIABLE: &str = "Mark3r-in-environment";
    const INPUT: &str = "Mark3r-in-input";
    const ARGUMENT: &str = "Mark3r-in-command-line";
    let Some((stack, collector, agent)) = traced("info")? else { return Ok(()) };
    let _windows = ntlm_host(&stack)?;
    assert_eq!(level(&agent, &["trace", "--for", "1h"])?, "trace for 1h, then info");
    assert_eq!(level_of_control_plane(&stack, &["trace", "--for", "1h"])?, "trace for 1h, then info");
    let own = tempfile::tempdir()?;
    let file = |name: &str, text: String| -> Result<String> {
        let path = own.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let script = file("script.ps1", format!("$secret = '{SCRIPT}'\nWrite-Output $secret.Length\n"))?;
    let input = file("input", INPUT.to_owned())?;
    let variable = format!("SECRET={VARIABLE}");
    let target = ["--host", "127.0.0.1", "--credential", "ntlm", "--env", &variable];
    for more in [
        &["--script", &script][..],
        &["--stdin", &input, "--", "sim.exe", "sleep", "10"],
        &["--", "sim.exe", "sleep", "1", ARGUMENT],
    ] {
        let task_id = stack.submit(&[&target[..], more].concat())?;
        stack.task_in(&task_id, FINAL, PATIENCE)?;
        collector.trace_of(&task_id, "task")?;
    }
    // What authenticates fails, and is told of.
    stack.credential("wrong", "Mark3r-Wr0ng", &["--auth", "negotiate", "--scheme", "http", "--port", "1"])?;
    let refused = stack.submit(&["--host", "127.0.0.1", "--credential", "wrong", "--", "hostname"])?;
    stack.task_in(&refused, FINAL, PATIENCE)?;
    collector.trace_of(&refused, "task")?;
    let log = agent.process.log();
    assert!(log.contains(" TRACE ") || log.contains(" DEBUG "), "the level was not raised");
    // The control plane need not have anything to say below info.
    let log = stack.control_plane.process.log();
    assert!(log.contains("The level of logs was changed level=\"trace\""), "{log}");
    std::fs::copy(collector.file("spans.raw"), stack.directory().join("spans.raw"))?;
    let secrets = [SCRIPT, VARIABLE, INPUT, ARGUMENT, API_KEY, "Pa55-Marker", "Mark3r-Wr0ng"].map(str::as_bytes);
    search_for(&stack, "with traces", &secrets)
}

fn level(agent: &Agent, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(binary("lictor-agent")?);
    command.args(["log-level", "--state-dir"]).arg(&agent.state).args(arguments);
    let output = lictor_tests::Output::of(&mut command, Duration::from_secs(20))?;
    ensure!(output.code == 0, "{}", output.stderr);
    Ok(output.text().trim().to_owned())
}

fn level_of_control_plane(stack: &Stack, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(binary("lictor-control-plane")?);
    command.arg("log-level").args(arguments).env("LICTOR_CONTROL_PLANE_STATE_DIR", &stack.control_plane.state);
    let output = lictor_tests::Output::of(&mut command, Duration::from_secs(20))?;
    ensure!(output.code == 0, "{}", output.stderr);
    Ok(output.text().trim().to_owned())
}

#[test]
fn the_level_of_logs_is_changed_while_the_programs_run() -> Result<()> {
    let stack = Stack::start(&[("LICTOR_CONTROL_PLANE_LOG__LEVEL", "info")])?;
    let agent = stack.agent("agent-1", &[("LICTOR_AGENT_LOG__LEVEL", "warn"), ("LICTOR_AGENT_LOG__FORMAT", "json")])?;
    let _windows = ntlm_host(&stack)?;
    let run = || -> Result<String> {
        let task_id = stack.submit(&["--host", "127.0.0.1", "--credential", "ntlm", "--", "hostname"])?;
        stack.task_in(&task_id, &["succeeded"], PATIENCE)?;
        Ok(task_id)
    };
    assert_eq!(level(&agent, &[])?, "warn, as in the settings");
    let before = run()?;
    assert_eq!(level(&agent, &["debug", "--for", "20m"])?, "debug for 20m, then warn");
    let during = run()?;
    let told =
        |task_id: &str| agent.process.log().lines().any(|line| line.contains(task_id) && line.contains("Task ended"));
    eventually("it is told of at debug", PATIENCE, || {
        ensure!(told(&during), "{}", agent.process.log());
        Ok(())
    })?;
    assert!(!told(&before));
    assert_eq!(level(&agent, &["reset"])?, "warn, as in the settings");
    assert!(level(&agent, &["verbose"]).is_err());
    // The control plane in the same manner.
    assert_eq!(level_of_control_plane(&stack, &["debug", "--for", "1m"])?, "debug for 1m, then info");
    eventually("it says so", PATIENCE, || {
        ensure!(stack.control_plane.process.log().contains("The level of logs was changed"));
        Ok(())
    })
}
