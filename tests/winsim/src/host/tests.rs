//! The host without HTTP: its operations and its limits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;
use crate::conditions::QuotaChange;
use crate::envelope::{Message, guid};
use crate::soap::{Element, escape, namespace};

fn host(change: impl FnOnce(&mut Options)) -> Host {
    let mut options = Options { hostname: "WEB01".to_owned(), ..Options::default() };
    change(&mut options);
    Host::new(Arc::new(options))
}

fn caller(user: &str) -> Caller {
    Caller { user: user.to_owned(), client: "192.0.2.1".to_owned() }
}

async fn ask(host: &Host, user: &str, document: &str) -> Result<Element, Fault> {
    let request = match Message::parse(document.as_bytes()) {
        Ok(Message::Request(request)) => request,
        Ok(Message::Identify) => panic!("Identify"),
        Err(refusal) => return Err(*refusal.fault),
    };
    host.perform(&request, &caller(user)).await.map(|body| Element::parse(&body).expect("well-formed"))
}

/// A request as [MS-WSMV] wants it.
fn document(action: &str, resource: &str, shell: Option<&str>, options: &str, body: &str) -> String {
    let selector = shell
        .map(|id| format!("<w:SelectorSet><w:Selector Name=\"ShellId\">{id}</w:Selector></w:SelectorSet>"))
        .unwrap_or_default();
    format!(
        "<s:Envelope xmlns:s=\"{}\" xmlns:a=\"{}\" xmlns:w=\"{}\" xmlns:rsp=\"{}\" xmlns:n=\"{}\"><s:Header>\
         <a:To>http://host:5985/wsman</a:To><w:ResourceURI s:mustUnderstand=\"true\">{resource}</w:ResourceURI>\
         <a:ReplyTo><a:Address s:mustUnderstand=\"true\">http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
         <a:Action s:mustUnderstand=\"true\">{action}</a:Action><w:MaxEnvelopeSize s:mustUnderstand=\"true\">153600</w:MaxEnvelopeSize>\
         <a:MessageID>uuid:{}</a:MessageID><w:OperationTimeout>PT20S</w:OperationTimeout>{selector}<w:OptionSet>{options}</w:OptionSet>\
         </s:Header><s:Body>{body}</s:Body></s:Envelope>",
        namespace::SOAP,
        namespace::ADDRESSING,
        namespace::MANAGEMENT,
        namespace::SHELL,
        namespace::ENUMERATION,
        guid(),
    )
}

fn on_shell(name: &str, shell: Option<&str>, options: &str, body: &str) -> String {
    let base = if matches!(name, "Create" | "Delete" | "Get") {
        "http://schemas.xmlsoap.org/ws/2004/09/transfer"
    } else {
        SHELL
    };
    document(&format!("{base}/{name}"), SHELL_CMD, shell, options, body)
}

const SHELL_BODY: &str = "<rsp:Shell><rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>";

async fn create(host: &Host, user: &str) -> Result<String, Fault> {
    let answer = ask(host, user, &on_shell("Create", None, "", SHELL_BODY)).await?;
    Ok(find(&answer, "ShellId").expect("ShellId").text.clone())
}

async fn command(host: &Host, shell: &str, id: &str, line: &str) -> Result<Element, Fault> {
    let body =
        format!("<rsp:CommandLine CommandId=\"{id}\"><rsp:Command>{}</rsp:Command></rsp:CommandLine>", escape(line));
    ask(host, "alice", &on_shell("Command", Some(shell), "", &body)).await
}

async fn receive(host: &Host, shell: &str, id: &str) -> Result<Element, Fault> {
    let body =
        format!("<rsp:Receive><rsp:DesiredStream CommandId=\"{id}\">stdout stderr</rsp:DesiredStream></rsp:Receive>");
    ask(host, "alice", &on_shell("Receive", Some(shell), "", &body)).await
}

async fn signal(host: &Host, shell: &str, id: &str, code: &str) -> Result<Element, Fault> {
    let body = format!("<rsp:Signal CommandId=\"{id}\"><rsp:Code>{SHELL}/signal/{code}</rsp:Code></rsp:Signal>");
    ask(host, "alice", &on_shell("Signal", Some(shell), "", &body)).await
}

fn find<'a>(element: &'a Element, name: &str) -> Option<&'a Element> {
    if element.name == name { Some(element) } else { element.children.iter().find_map(|child| find(child, name)) }
}

fn code<T: std::fmt::Debug>(result: Result<T, Fault>) -> u32 {
    result.expect_err("a fault").code
}

const ID: &str = "11111111-2222-3333-4444-555555555555";

#[tokio::test(start_paused = true)]
async fn a_command_lives_until_it_is_signalled() {
    let host = host(|_| {});
    let shell = create(&host, "alice").await.expect("shell");
    command(&host, &shell, ID, "sim.exe lines 2 30000").await.expect("started");
    assert_eq!(
        find(&receive(&host, &shell, ID).await.expect("output"), "Stream").expect("stream").text,
        BASE64.encode("line 1\r\n")
    );
    assert_eq!(code(receive(&host, &shell, ID).await), 2_150_858_793);
    let last = receive(&host, &shell, ID).await.expect("output");
    assert_eq!(find(&last, "ExitCode").expect("done").text, "0");
    assert_eq!(find(&receive(&host, &shell, ID).await.expect("still known"), "ExitCode").expect("done").text, "0");
    signal(&host, &shell, ID, "terminate").await.expect("signalled");
    assert_eq!(code(receive(&host, &shell, ID).await), 2_150_858_843);
    assert_eq!(code(signal(&host, &shell, ID, "terminate").await), 2_150_858_843);
    // The id may be used again, and that is counted.
    command(&host, &shell, ID, "sim.exe sleep 1000000").await.expect("started");
    assert_eq!(code(command(&host, &shell, ID, "ver").await), 2_150_858_803);
    assert_eq!(host.recorder.snapshot().commands.most_requests_per_id, 3);
    signal(&host, &shell, ID, "ctrl_c").await.expect("signalled");
    assert_eq!(find(&receive(&host, &shell, ID).await.expect("ended"), "ExitCode").expect("done").text, "3221225786");
}

#[tokio::test(start_paused = true)]
async fn terminate_and_delete_abort_a_waiting_receive() {
    let host = host(|_| {});
    let shell = create(&host, "alice").await.expect("shell");
    command(&host, &shell, ID, "sim.exe sleep 1000000").await.expect("started");
    let (received, signalled) = tokio::join!(receive(&host, &shell, ID), signal(&host, &shell, ID, "terminate"));
    signalled.expect("signalled");
    assert_eq!(code(received), 995);
    command(&host, &shell, ID, "sim.exe sleep 1000000").await.expect("started");
    let delete = on_shell("Delete", Some(&shell), "", "");
    let (received, deleted) = tokio::join!(receive(&host, &shell, ID), ask(&host, "alice", &delete));
    deleted.expect("deleted");
    assert_eq!(code(received), 995);
    assert_eq!(code(receive(&host, &shell, ID).await), 2_150_858_843);
    assert_eq!((host.recorder.snapshot().shells.open, host.shells().len()), (0, 0));
}

#[tokio::test]
async fn quotas_are_per_user_and_operations_stay_spent() {
    let host = host(|options| {
        options.max_shells_per_user = 2;
        options.max_operations_per_user = 3;
        options.denied_users = vec!["mallory".to_owned()];
    });
    let shell = create(&host, "alice").await.expect("shell");
    create(&host, "alice").await.expect("shell");
    assert_eq!(code(create(&host, "alice").await), 2_150_859_173);
    create(&host, "bob").await.expect("other user");
    assert_eq!(code(create(&host, "mallory").await), 5);
    for _ in 0..3 {
        command(&host, &shell, ID, "ver").await.expect("started");
        signal(&host, &shell, ID, "terminate").await.expect("signalled");
    }
    assert_eq!(code(command(&host, &shell, ID, "ver").await), 2_150_859_174);
    ask(&host, "alice", &on_shell("Delete", Some(&shell), "", "")).await.expect("deleted");
    let shell = create(&host, "alice").await.expect("shell");
    command(&host, &shell, ID, "ver").await.expect("started");
    assert_eq!(code(ask(&host, "bob", &on_shell("Get", Some(&shell), "", "")).await), 2_150_859_177);
}

#[tokio::test]
async fn a_response_never_exceeds_the_envelope() {
    let host = host(|_| {});
    let shell = create(&host, "alice").await.expect("shell");
    command(&host, &shell, ID, "sim.exe bytes 300000 & sim.exe lines 3000 0").await.expect("started");
    let body =
        format!("<rsp:Receive><rsp:DesiredStream CommandId=\"{ID}\">stdout stderr</rsp:DesiredStream></rsp:Receive>");
    for limit in [8192_usize, 20_000, 153_600] {
        let document = on_shell("Receive", Some(&shell), "", &body).replace("153600", &limit.to_string());
        let Ok(Message::Request(request)) = Message::parse(document.as_bytes()) else { panic!("not a request") };
        let answer = host.perform(&request, &caller("alice")).await.expect("output");
        assert!(answer.len() <= limit && answer.len() > limit / 2, "{} of {limit}", answer.len());
    }
}

#[tokio::test]
async fn done_can_come_alone() {
    let host = host(|options| options.done_alone = true);
    let shell = create(&host, "alice").await.expect("shell");
    command(&host, &shell, ID, "ver").await.expect("started");
    let first = receive(&host, &shell, ID).await.expect("output");
    assert!(find(&first, "ExitCode").is_none() && find(&first, "Stream").is_some());
    let second = receive(&host, &shell, ID).await.expect("end");
    assert_eq!(find(&second, "ExitCode").expect("done").text, "0");
    assert!(find(&second, "Stream").expect("the end of a stream").attribute("End").is_some());
}

#[tokio::test]
async fn requests_against_the_protocol_are_faults_and_are_counted() {
    let host = host(|_| {});
    let shell = create(&host, "alice").await.expect("shell");
    let option = |attributes: &str| format!("<w:Option Name=\"X\" {attributes}>1</w:Option>");
    let line = "<rsp:CommandLine><rsp:Command>ver</rsp:Command></rsp:CommandLine>";
    let documents = [
        (on_shell("Create", None, "", &SHELL_BODY.replace("stdout stderr", "stdout pr")), 2_150_858_810),
        (on_shell("Create", None, "", &SHELL_BODY.replace("rsp:Input", "rsp:Imput")), 2_150_858_817),
        (on_shell("Create", None, &option("MustComply=\"true\""), SHELL_BODY), 2_150_858_833),
        (on_shell("Create", None, "<w:Option Name=\"WINRS_CODEPAGE\">utf8</w:Option>", SHELL_BODY), 2_150_858_835),
        (on_shell("Create", Some(&shell), "", SHELL_BODY), 2_150_858_843),
        (
            on_shell(
                "Create",
                None,
                "",
                &SHELL_BODY.replace("<rsp:Input", "<rsp:IdleTimeOut>PT1S</rsp:IdleTimeOut><rsp:Input"),
            ),
            2_150_858_764,
        ),
        (on_shell("Command", None, "", line), 2_150_858_842),
        (on_shell("Command", Some("no-guid"), "", line), 2_150_858_845),
        (
            on_shell(
                "Command",
                Some(&shell),
                "",
                "<rsp:CommandLine><rsp:Arguments>x</rsp:Arguments></rsp:CommandLine>",
            ),
            2_150_858_817,
        ),
        (
            on_shell(
                "Command",
                Some(&shell),
                "",
                "<rsp:CommandLine CommandId=\"1\"><rsp:Command>ver</rsp:Command></rsp:CommandLine>",
            ),
            2_150_858_810,
        ),
        (
            on_shell("Signal", Some(&shell), "", "<rsp:Signal CommandId=\"x\"><rsp:Code>kill</rsp:Code></rsp:Signal>"),
            2_150_858_810,
        ),
        (
            on_shell("Send", Some(&shell), "", "<rsp:Send><rsp:Stream Name=\"stdin\">%</rsp:Stream></rsp:Send>"),
            2_150_858_817,
        ),
        (document(&format!("{SHELL}/Command"), CONFIG, Some(&shell), "", line), 2_150_858_771),
    ];
    for (index, (document, expected)) in documents.iter().enumerate() {
        assert_eq!(code(ask(&host, "alice", document).await), *expected, "{index}");
    }
    let statistics = host.recorder.snapshot();
    assert_eq!(statistics.violation_count, documents.len() as u64, "{:?}", statistics.violations);
    // An option that the host does not know and need not comply with is ignored, but noted.
    ask(&host, "alice", &on_shell("Create", None, &option(""), SHELL_BODY)).await.expect("shell");
    assert_eq!(host.recorder.snapshot().violation_count, documents.len() as u64 + 1);
    let unknown = document(
        "http://schemas.xmlsoap.org/ws/2004/09/transfer/Create",
        "http://schemas.microsoft.com/powershell/X",
        None,
        "",
        SHELL_BODY,
    );
    assert_eq!(code(ask(&host, "alice", &unknown).await), 2_150_858_752);
}

#[tokio::test]
async fn shells_are_listed_and_expire() {
    let host = host(|options| options.min_idle_timeout = Duration::ZERO);
    let enumerate =
        |body: &str| document("http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate", SHELL, None, "", body);
    let shell = create(&host, "alice").await.expect("shell");
    create(&host, "bob").await.expect("shell");
    let all = "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>10</w:MaxElements></n:Enumerate>";
    let listed = ask(&host, "alice", &enumerate(all)).await.expect("list");
    assert_eq!(find(&listed, "Items").expect("items").children.len(), 1);
    assert!(find(&listed, "EndOfSequence").is_some());
    let pull = |answer: &Element, most: &str| {
        let context = &find(answer, "EnumerationContext").expect("context").text;
        let body = format!("<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>{most}</n:Pull>");
        document("http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull", SHELL, None, "", &body)
    };
    let context = ask(&host, "alice", &enumerate("<n:Enumerate/>")).await.expect("context");
    assert!(find(&context, "Items").is_none());
    let pull_one = pull(&context, "");
    assert_eq!(code(ask(&host, "bob", &pull_one).await), 2_150_858_779, "the listing is another user's");
    let pulled = ask(&host, "alice", &pull_one).await.expect("items");
    assert_eq!(find(&pulled, "ShellId").expect("shell").text, shell);
    assert_eq!(code(ask(&host, "alice", &pull_one).await), 2_150_858_779);

    // In pieces: one by default, what is asked for otherwise, and never more than the host gives at a time.
    let more = [create(&host, "alice").await.expect("shell"), create(&host, "alice").await.expect("shell")];
    let first =
        ask(&host, "alice", &enumerate("<n:Enumerate><w:OptimizeEnumeration/></n:Enumerate>")).await.expect("list");
    assert_eq!(find(&first, "ShellId").expect("shell").text, shell);
    assert!(find(&first, "EndOfSequence").is_none());
    host.conditions.change_quotas(QuotaChange { max_batch_items: Some(1), ..QuotaChange::default() });
    let many = "<n:MaxElements>50</n:MaxElements>";
    let second = ask(&host, "alice", &pull(&first, many)).await.expect("items");
    let third = ask(&host, "alice", &pull(&second, many)).await.expect("items");
    let ids = [&second, &third].map(|answer| find(answer, "ShellId").expect("shell").text.clone());
    assert_eq!(ids, more);
    assert!(find(&second, "EndOfSequence").is_none() && find(&third, "EndOfSequence").is_some());
    let late = ask(&host, "alice", &enumerate("<n:Enumerate/>")).await.expect("context");
    host.clock.advance(Duration::from_secs(240));
    assert_eq!(code(ask(&host, "alice", &pull(&late, many)).await), 2_150_858_779);
    for id in more {
        ask(&host, "alice", &on_shell("Delete", Some(&id), "", "")).await.expect("deleted");
    }

    let short = SHELL_BODY.replace("<rsp:Input", "<rsp:IdleTimeOut>PT0.001S</rsp:IdleTimeOut><rsp:Input");
    ask(&host, "alice", &on_shell("Create", None, "", &short)).await.expect("shell");
    while host.recorder.snapshot().shells.expired == 0 {
        host.sweep();
        tokio::task::yield_now().await;
    }
    assert_eq!(host.shells().len(), 2);
}

const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";

fn on_config(action: &str, resource: &str, body: &str) -> String {
    document(action, resource, None, "", body)
}

#[tokio::test(start_paused = true)]
async fn the_configuration_says_what_the_options_say_unless_it_is_ordered_otherwise() {
    let host = host(|options| options.schemes = vec![crate::options::Scheme::Basic]);
    let get = on_config(&format!("{TRANSFER}/Get"), CONFIG, "");
    let told = |answer: &Element, group: &str, name: &str| {
        find(find(answer, group).expect(group), name).map(|element| element.text.clone())
    };
    let answer = ask(&host, "alice", &get).await.expect("configuration");
    let service = find(&answer, "Service").expect("Service");
    assert_eq!(told(service, "Auth", "Basic").as_deref(), Some("true"));
    assert_eq!(told(service, "Auth", "Negotiate").as_deref(), Some("false"));
    assert_eq!(told(service, "Auth", "CbtHardeningLevel").as_deref(), Some("Relaxed"));
    host.configure(Configuration {
        settings: [("Service/IPv4Filter".to_owned(), "192.0.2.1-192.0.2.9".to_owned())].into(),
        omitted: ["Service/IPv6Filter".to_owned()].into(),
        by_policy: ["Service/IPv4Filter".to_owned()].into(),
        ..Configuration::default()
    });
    let answer = ask(&host, "alice", &get).await.expect("configuration");
    let filter = find(&answer, "IPv4Filter").expect("told");
    assert_eq!((filter.text.as_str(), filter.attribute("Source")), ("192.0.2.1-192.0.2.9", Some("GPO")));
    assert!(find(&answer, "IPv6Filter").is_none());
}

#[tokio::test(start_paused = true)]
async fn listeners_are_enumerated_and_got_by_address_and_transport() {
    let host = host(|options| options.max_batch_items = 1);
    let enumerate = format!("{}/Enumerate", namespace::ENUMERATION);
    let all = "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>100</w:MaxElements></n:Enumerate>";
    let listener = crate::configuration::Listener::default();
    let tls = crate::configuration::Listener { transport: "HTTPS".to_owned(), port: 5986, ..listener.clone() };
    host.configure(Configuration { listeners: Some(vec![listener, tls]), ..Configuration::default() });
    let first = ask(&host, "alice", &on_config(&enumerate, LISTENER, all)).await.expect("listed");
    assert_eq!(find(&first, "Transport").expect("one").text, "HTTP");
    assert_eq!(find(&first, "Listener").expect("one").namespace, LISTENER);
    let context = find(&first, "EnumerationContext").expect("more").text.clone();
    let pull = format!("{}/Pull", namespace::ENUMERATION);
    let body = format!("<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext></n:Pull>");
    // A context belongs to its resource.
    assert_eq!(code(ask(&host, "alice", &on_config(&pull, MAPPING, &body)).await), 2_150_858_779);
    let second = ask(&host, "alice", &on_config(&pull, LISTENER, &body)).await.expect("listed");
    assert_eq!(find(&second, "Port").expect("one").text, "5986");
    assert!(find(&second, "EndOfSequence").is_some());
    let get = on_config(&format!("{TRANSFER}/Get"), LISTENER, "");
    assert_eq!(code(ask(&host, "alice", &get).await), 2_150_858_842);
    let selected = |transport: &str| {
        let set = format!(
            "<w:SelectorSet><w:Selector Name=\"Address\">*</w:Selector><w:Selector Name=\"Transport\">{transport}</w:Selector>\
             </w:SelectorSet><w:OptionSet>"
        );
        get.replace("<w:OptionSet>", &set)
    };
    let found = ask(&host, "alice", &selected("HTTPS")).await.expect("got");
    assert_eq!(find(&found, "Port").expect("port").text, "5986");
    assert_eq!(code(ask(&host, "alice", &selected("MAIL")).await), 2_150_858_752);
}

#[tokio::test(start_paused = true)]
async fn only_administrators_read_the_configuration() {
    let host = host(|options| options.standard_users = vec!["bob".to_owned()]);
    let enumerate = format!("{}/Enumerate", namespace::ENUMERATION);
    let body = "<n:Enumerate/>";
    for request in [
        on_config(&format!("{TRANSFER}/Get"), CONFIG, ""),
        on_config(&enumerate, LISTENER, body),
        on_config(&enumerate, MAPPING, body),
    ] {
        assert_eq!(code(ask(&host, "bob", &request).await), 5);
        assert!(ask(&host, "alice", &request).await.is_ok());
    }
    assert!(create(&host, "bob").await.is_ok());
}
