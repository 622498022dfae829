//! What can be ordered to happen to a host, seen from a client's socket: time that passes, restarts, slowness and faults.

mod client;

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{Client, command, create, get, receive};
use winsim::{
    Cut, Delay, DropAt, Form, Handle, Lasting, Options, Order, OrderedFault, QuotaChange, Reboot, RestartService,
    Scheme, Service, Slow, Style, Trickle, User, Winsim,
};

async fn host() -> Result<Handle> {
    let users = ["alice", "bob"].map(|name| User::new(name, "secret")).to_vec();
    let options = Options { users, schemes: vec![Scheme::Basic], allow_unencrypted: true, ..Options::default() };
    Ok(Winsim::start(options).await?)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test]
async fn idle_connections_are_closed_at_120_seconds() -> Result<()> {
    let host = host().await?;
    let mut silent = Client::connect(&host).await?;
    let mut used = Client::connect(&host).await?;
    let shell = used.shell("alice").await?;
    host.order(Order::Advance(seconds(119))).await;
    let id = used.start(&shell, "sim.exe sleep 130000").await?;
    // One that waits for an answer is not idle, however long that takes.
    let (waits, _) = tokio::join!(used.ask("alice", receive(&shell, &id)), async {
        while !host.statistics().operations.contains_key("Receive") {
            host.order(Order::Advance(seconds(1))).await;
            tokio::task::yield_now().await;
        }
    });
    ensure!(waits?.fault() == Some("2150858793"));
    ensure!(silent.ended().await?.is_none(), "the silent connection is closed with FIN");
    ensure!(host.statistics().connections.closed_idle == 1);
    while host.shells().iter().flat_map(|shell| &shell.commands).any(|command| command.running) {
        host.order(Order::Advance(seconds(10))).await;
        tokio::task::yield_now().await;
    }
    ensure!(used.ask("alice", receive(&shell, &id)).await?.text.contains("<rsp:ExitCode>0</rsp:ExitCode>"));
    host.order(Order::Advance(seconds(121))).await;
    ensure!(used.ended().await?.is_none());
    ensure!(host.statistics().connections.open == 0);
    Ok(())
}

#[tokio::test]
async fn shells_expire_when_time_has_passed() -> Result<()> {
    let host = host().await?;
    Client::connect(&host).await?.shell("alice").await?;
    host.order(Order::Advance(seconds(7199))).await;
    ensure!(host.statistics().shells.open == 1);
    host.order(Order::Advance(seconds(2))).await;
    ensure!(host.statistics().shells.expired == 1 && host.shells().is_empty());
    ensure!(host.condition().advanced == seconds(7201));
    Ok(())
}

#[tokio::test]
async fn a_reboot_is_refusal_then_503_then_a_new_host() -> Result<()> {
    for cut in [Cut::Close, Cut::Reset] {
        let host = host().await?;
        let mut client = Client::connect(&host).await?;
        let shell = client.shell("alice").await?;
        let id = client.start(&shell, "sim.exe sleep 1000000").await?;
        let mut other = Client::connect(&host).await?;
        other.shell("alice").await?;
        let (refuse, unavailable) = (Lasting::For(seconds(60)), Lasting::For(seconds(30)));
        let asked = client.ask("alice", receive(&shell, &id));
        let (answer, ()) = tokio::join!(asked, async {
            // The Receive is at the host once the exchange before it is over and its bytes are read; either way it gets no answer.
            host.order(Order::Reboot(Reboot { cut, refuse, unavailable })).await;
        });
        ensure!(answer.is_err(), "an answer came out of a reboot");
        let expected = (cut == Cut::Reset).then_some(ErrorKind::ConnectionReset);
        ensure!(other.ended().await? == expected, "{cut:?}");
        ensure!(host.condition().service == Service::Refusing);
        let refused = Client::connect(&host).await.err().context("somebody listens")?;
        let refused = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "{refused:?}");
        ensure!(host.statistics().shells.lost == 2 && host.statistics().commands.running == 0);
        ensure!(host.statistics().connections.cut == 2);

        host.order(Order::Advance(seconds(60))).await;
        ensure!(host.condition().service == Service::Unavailable);
        let answer = Client::connect(&host).await?.ask("alice", create()).await?;
        ensure!(answer.status == 503 && answer.text.ends_with("\r\n\r\n"), "{answer:?}");
        ensure!(answer.text.contains("Server: Microsoft-HTTPAPI/2.0\r\n"), "{answer:?}");

        host.order(Order::Advance(seconds(30))).await;
        let mut client = Client::connect(&host).await?;
        ensure!(client.ask("alice", receive(&shell, &id)).await?.fault() == Some("2150858843"));
        client.shell("alice").await?;
        ensure!(host.statistics().violation_count == 0, "{:?}", host.statistics().violations);
    }
    Ok(())
}

#[tokio::test]
async fn an_outage_lasts_until_it_is_ended() -> Result<()> {
    let host = host().await?;
    let reboot = Reboot { refuse: Lasting::UntilReady, ..Reboot::default() };
    host.order(Order::Reboot(reboot)).await;
    host.order(Order::Advance(seconds(1_000_000))).await;
    ensure!(Client::connect(&host).await.is_err());
    host.order(Order::Ready).await;
    Client::connect(&host).await?.shell("alice").await?;

    host.order(Order::RestartService(RestartService { unavailable: Lasting::UntilReady, ..Default::default() })).await;
    ensure!(host.shells().is_empty(), "a restart of the service ends shells");
    for _ in 0..2 {
        ensure!(Client::connect(&host).await?.ask("alice", create()).await?.status == 503);
    }
    host.order(Order::Ready).await;
    host.order(Order::Unavailable(2)).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(Client::connect(&host).await?.ask("alice", create()).await?.status);
    }
    ensure!(statuses == [503, 503, 200], "{statuses:?}");
    Ok(())
}

#[tokio::test]
async fn slow_answers_wait_for_the_clock() -> Result<()> {
    let host = host().await?;
    let delays = [("Command".to_owned(), Delay(seconds(3600)))].into();
    host.order(Order::Slow(Slow { delays, trickle: None })).await;
    let mut client = Client::connect(&host).await?;
    let shell = client.shell("alice").await?;
    let asked = client.ask("alice", command(&shell, "ver"));
    let (answer, ()) = tokio::join!(asked, async {
        while host.statistics().commands.started == 0 {
            tokio::task::yield_now().await;
        }
        // The command runs although its answer is not there.
        while !host.statistics().operations.contains_key("Command") {
            host.order(Order::Advance(seconds(3600))).await;
            tokio::task::yield_now().await;
        }
    });
    ensure!(answer?.status == 200);

    let trickle = Some(Trickle { bytes: 100, every: Delay(seconds(1)) });
    host.order(Order::Slow(Slow { trickle, ..Slow::default() })).await;
    let before = host.condition().advanced;
    let mut asked = Box::pin(client.ask("alice", create()));
    let answer = loop {
        tokio::select! {
            answer = &mut asked => break answer?,
            () = host.order(Order::Advance(Duration::from_millis(200))) => tokio::task::yield_now().await,
        }
    };
    drop(asked);
    let passed = host.condition().advanced - before;
    ensure!(answer.status == 200 && passed >= seconds(answer.body.len() as u64 / 100), "{passed:?}");
    host.order(Order::Slow(Slow::default())).await;
    ensure!(client.ask("alice", create()).await?.status == 200);
    Ok(())
}

#[tokio::test]
async fn quotas_change_while_the_host_runs() -> Result<()> {
    let host = host().await?;
    let mut client = Client::connect(&host).await?;
    let shell = client.shell("alice").await?;
    host.order(Order::Quotas(QuotaChange { max_concurrent_users: Some(1), ..QuotaChange::default() })).await;
    ensure!(client.ask("bob", create()).await?.fault() == Some("2150859179"));
    let change = QuotaChange {
        max_concurrent_users: Some(10),
        max_shells_per_user: Some(1),
        max_processes_per_shell: Some(1),
        ..QuotaChange::default()
    };
    host.order(Order::Quotas(change)).await;
    ensure!(client.ask("alice", create()).await?.fault() == Some("2150859173"));
    client.shell("bob").await?;
    client.start(&shell, "sim.exe sleep 1000000").await?;
    ensure!(client.ask("alice", command(&shell, "ver")).await?.fault() == Some("2150858815"));
    let change =
        QuotaChange { max_processes_per_shell: Some(2), max_operations_per_user: Some(2), ..Default::default() };
    host.order(Order::Quotas(change)).await;
    client.start(&shell, "ver").await?;
    ensure!(client.ask("alice", command(&shell, "ver")).await?.fault() == Some("2150859174"));
    ensure!(host.statistics().violation_count == 0 && host.condition().quotas.max_operations_per_user == 2);

    // A connection more than there may be waits for another one to end.
    host.order(Order::Quotas(QuotaChange { max_connections: Some(1), ..QuotaChange::default() })).await;
    let mut second = Client::connect(&host).await?;
    let mut asked = Box::pin(second.ask("bob", create()));
    tokio::select! {
        biased;
        answer = &mut asked => anyhow::bail!("{answer:?} although the only connection is taken"),
        _ = client.ask("alice", create()) => {}
    }
    drop(client);
    ensure!(asked.await?.fault() == Some("2150859173"));
    Ok(())
}

#[tokio::test]
async fn faults_come_in_every_form() -> Result<()> {
    let host = host().await?;
    let mut client = Client::connect(&host).await?;
    let shell = client.shell("alice").await?;
    let code = 2_150_859_174;
    for (form, signed, expected) in [
        (
            Form::WsmanFault,
            false,
            "<f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"2150859174\"",
        ),
        (Form::WsmanFault, true, "Code=\"-2144108122\""),
        (Form::WmiError, false, "<p:error_Code xsi:type=\"cim:cimUnsignedInt\">2150859174</p:error_Code>"),
        (Form::WmiError, true, ">-2144108122</p:error_Code>"),
    ] {
        for style in [None, Some(Style { form, signed })] {
            let host_style = if style.is_none() { Style { form, signed } } else { Style::default() };
            host.order(Order::FaultStyle(host_style)).await;
            let fault = OrderedFault { operation: "Command".to_owned(), code, times: 1, done: false, style };
            host.order(Order::Fault(fault)).await;
            let answer = client.ask("alice", command(&shell, "ver")).await?;
            ensure!(answer.status == 500 && answer.text.contains(expected), "{answer:?}");
            ensure!(answer.text.contains("WSManFault") == (form == Form::WsmanFault), "{answer:?}");
        }
    }
    ensure!(host.statistics().commands.started == 0);
    host.order(Order::FaultStyle(Style::default())).await;
    let fault =
        |times| OrderedFault { operation: "Command".to_owned(), code: 2_150_858_793, times, done: true, style: None };
    host.order(Order::Fault(fault(2))).await;
    for _ in 0..2 {
        ensure!(client.ask("alice", command(&shell, "ver")).await?.fault() == Some("2150858793"));
    }
    client.start(&shell, "ver").await?;
    ensure!(host.statistics().commands.started == 3, "a command is done although its answer is a fault");
    Ok(())
}

#[tokio::test]
async fn connections_end_at_every_byte_of_an_answer() -> Result<()> {
    let host = host().await?;
    host.order(Order::Quotas(QuotaChange { max_operations_per_user: Some(10_000), ..QuotaChange::default() })).await;
    let shell = Client::connect(&host).await?.shell("alice").await?;
    let whole = Client::connect(&host).await?.ask("alice", command(&shell, "ver")).await?.text.len();
    for after in 0..=whole {
        let cut = if after % 2 == 0 { Cut::Close } else { Cut::Reset };
        host.order(Order::Drop(DropAt::Answer { operation: Some("Command".to_owned()), after, cut })).await;
        let mut client = Client::connect(&host).await?;
        client.ask("alice", get(&shell)).await?;
        client.send("alice", &command(&shell, "ver")).await?;
        let (came, end) = client.rest().await;
        ensure!(came == after, "{came} instead of {after} of {whole} bytes");
        ensure!(end == (cut == Cut::Reset).then_some(ErrorKind::ConnectionReset), "{end:?} after {after}");
        // Only one answer was meant.
        ensure!(Client::connect(&host).await?.ask("alice", command(&shell, "ver")).await?.status == 200);
    }
    ensure!(host.statistics().commands.started == 2 * (whole as u64 + 1) + 1);
    Ok(())
}

#[tokio::test]
async fn connections_end_at_every_byte_of_a_request() -> Result<()> {
    let host = host().await?;
    let mut client = Client::connect(&host).await?;
    let shell = client.shell("alice").await?;
    let document = command(&shell, "ver");
    let whole = client::head("alice", &document).len() + document.len();
    for after in 1..=whole {
        let mut client = Client::connect(&host).await?;
        client.ask("alice", get(&shell)).await?;
        host.order(Order::Drop(DropAt::Request { after, cut: Cut::Close })).await;
        let started = host.statistics().commands.started;
        // The host may be gone before everything is sent.
        let _ = client.send("alice", &document).await;
        ensure!(client.rest().await.0 == 0, "an answer after {after} of {whole} bytes");
        let now_started = host.statistics().commands.started;
        ensure!(now_started == started + u64::from(after == whole), "{after} of {whole} bytes");
    }
    ensure!(client.ask("alice", document).await?.status == 200, "another connection is left alone");
    Ok(())
}

#[tokio::test]
async fn orders_are_taken_as_json() -> Result<()> {
    let host = host().await?;
    let orders = [
        r#"{"advance": "2m"}"#,
        r#"{"reboot": {"cut": "reset", "refuse": "30s", "unavailable": "until-ready"}}"#,
        r#"{"restart-service": {"unavailable": "10s"}}"#,
        r#"{"unavailable": 3}"#,
        r#""ready""#,
        r#"{"slow": {"delays": {"Create": "1ms", "*": "0s"}, "trickle": {"bytes": 10000, "every": "1ms"}}}"#,
        r#"{"expire-authentication": "bad-request"}"#,
        r#"{"drop": {"request": {"after": 1000000}}}"#,
        r#"{"drop": {"answer": {"operation": "Delete", "after": 1, "cut": "reset"}}}"#,
        r#"{"quotas": {"max_shells_per_user": 7}}"#,
        r#"{"fault": {"operation": "Create", "code": 5, "style": {"form": "wmi-error"}}}"#,
        r#"{"fault-style": {"signed": true}}"#,
    ];
    for order in orders {
        let answer = client::control(&host, "POST", order).await?;
        ensure!(answer.status == 200, "{order}: {answer:?}");
    }
    let answer = client::control(&host, "GET", "").await?;
    ensure!(answer.status == 200 && answer.text.contains("\"max_shells_per_user\": 7"), "{answer:?}");
    ensure!(answer.text.contains("\"advanced\": \"2m\"") && answer.text.contains("\"service\": \"up\""), "{answer:?}");
    for nonsense in
        ["", "{}", r#"{"advance": 120}"#, r#"{"reboot": {"refuze": "1s"}}"#, r#"{"quotas": {"max_shells": 1}}"#]
    {
        ensure!(client::control(&host, "POST", nonsense).await?.status == 400, "{nonsense}");
    }
    ensure!(Client::connect(&host).await?.ask("alice", create()).await?.text.contains(">5</p:error_Code>"));
    Ok(())
}

#[tokio::test]
async fn marks_are_counted_across_restarts() -> Result<()> {
    let host = host().await?;
    for round in 1..=2 {
        let mut client = Client::connect(&host).await?;
        let shell = client.shell("alice").await?;
        let id =
            client.start(&shell, "sim.exe mark once&amp;&amp; sim.exe mark twice&amp;&amp; sim.exe mark twice").await?;
        ensure!(client.ask("alice", receive(&shell, &id)).await?.text.contains("<rsp:ExitCode>0</rsp:ExitCode>"));
        let marks = host.statistics().marks;
        ensure!((marks.get("once"), marks.get("twice")) == (Some(&round), Some(&(2 * round))), "{marks:?}");
        host.order(Order::Reboot(Reboot::default())).await;
    }
    host.reset();
    ensure!(host.statistics().marks.is_empty());
    Ok(())
}
