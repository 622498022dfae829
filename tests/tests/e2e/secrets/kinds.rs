//! The four kinds of credentials that secret managers have for AWS, each from its test to a task's end.

use anyhow::{Context as _, Result, ensure};
use lictor_tests::Aws;
use serde_json::json;

use super::{NOBODY, PASSED, Scene, identity, outcomes};

/// Where the issuer is said to be; its tokens are verified by what the control plane itself publishes.
const ISSUER: &str = "https://lictor.corp.example";

fn an_access_key_is_enough(kind: &str) -> Result<()> {
    let Some(scene) = Scene::start(kind)? else { return Ok(()) };
    let _agent = scene.agent("agent-1", &[])?;
    let windows = scene.host("win-a")?;
    scene.manager_of("corp", "full")?;
    let task = scene.tested("corp")?;
    assert_eq!(outcomes(&task), PASSED, "{task:#}");
    ensure!(identity(&task).contains("user/lictor-full in account 111122223333"), "{task:#}");
    let table = scene.lictor(&["secret-manager", "test", "corp"])?.text();
    ensure!(table.contains("Secrets can be read and written."), "{table}");

    scene.aws.reset()?;
    let output = scene.put("web-password", lictor_tests::PASSWORD.as_bytes(), &["--manager", "corp"])?;
    ensure!(output.stderr.contains("sealed to the agent agent-1"), "{}", output.stderr);
    let shown = scene.stack.lictor_json(&["secret", "show", "web-password"])?;
    assert_eq!((&shown["version"], &shown["manager"]), (&json!(1), &json!("corp")), "{shown:#}");
    assert_eq!(shown["key_id"], scene.made("/key")?, "{shown:#}");
    assert_eq!((scene.aws.calls("kms:GenerateDataKey")?, scene.aws.calls("kms:Decrypt")?), (1, 0));

    scene.credential("web", "web-password", &windows)?;
    for _ in 0..3 {
        scene.runs("web", &[])?;
    }
    assert_eq!(scene.aws.calls("kms:Decrypt")?, 1);
    // Another version has another data key.
    scene.web("corp", &windows)?;
    scene.runs("web", &[])?;
    assert_eq!((scene.aws.calls("kms:GenerateDataKey")?, scene.aws.calls("kms:Decrypt")?), (2, 2));
    assert_eq!(windows.failed_logons()?, 0);
    let shown = scene.stack.lictor_json(&["secret", "show", "web-password"])?;
    assert_eq!((&shown["version"], &shown["used_by"]), (&json!(2), &json!(["credential web"])), "{shown:#}");
    Ok(())
}

#[test]
fn an_access_key_of_moto_is_enough() -> Result<()> {
    an_access_key_is_enough("moto")
}

#[test]
fn an_access_key_of_ministack_is_enough() -> Result<()> {
    an_access_key_is_enough("ministack")
}

#[test]
fn the_machine_is_who_its_metadata_or_its_container_says() -> Result<()> {
    let Some(scene) = Scene::start("ministack")? else { return Ok(()) };
    let upstream = scene.aws.url();
    let token = scene.file("container-token", b"0123456789abcdef")?;
    let Some(instance) = Aws::start("imds", &["--upstream", &upstream])? else { return Ok(()) };
    let Some(container) = Aws::start("ecs", &["--upstream", &upstream, "--token-file", &token])? else { return Ok(()) };
    let metadata = instance.url();
    let _on_instance = scene.agent(
        "agent-1",
        &[
            ("LICTOR_AGENT_TAGS", "instance"),
            ("AWS_EC2_METADATA_DISABLED", "false"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata),
        ],
    )?;
    let credentials = format!("{}/v1/credentials", container.url());
    let _in_container = scene.agent(
        "agent-2",
        &[
            ("LICTOR_AGENT_TAGS", "container"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &credentials),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
        ],
    )?;
    let windows = scene.host("win-a")?;
    for (manager, source, agent) in
        [("instance", "by instance metadata", "agent-1"), ("container", "by container credentials", "agent-2")]
    {
        scene.manager(manager, &["--machine-role", "--agent-tag", manager])?;
        let task = scene.tested(manager)?;
        assert_eq!(outcomes(&task), PASSED, "{task:#}");
        assert_eq!(task["agent_name"], agent, "{task:#}");
        let identity = identity(&task);
        ensure!(identity.contains("assumed-role/lictor-agent/") && identity.contains(source), "{identity}");
        scene.web(manager, &windows)?;
        assert_eq!(scene.runs("web", &[])?, agent);
    }
    // Version two of the metadata service, and a session for each machine.
    assert_eq!((instance.calls("token")?, instance.calls("sessions")?, container.calls("sessions")?), (1, 1, 1));
    Ok(())
}

#[test]
fn a_role_is_assumed_with_the_right_external_id_alone() -> Result<()> {
    let Some(scene) = Scene::start("ministack")? else { return Ok(()) };
    let _agent = scene.agent_of("agent-1", "full")?;
    let windows = scene.host("win-a")?;
    let role = scene.made("/roles/external")?;
    let external_id = scene.made("/external_id")?;
    scene.manager("right", &["--role-arn", role, "--external-id", external_id, "--duration", "15m"])?;
    let task = scene.tested("right")?;
    assert_eq!(outcomes(&task), PASSED, "{task:#}");
    ensure!(identity(&task).contains("assumed-role/lictor-external/lictor-agent-1"), "{task:#}");
    ensure!(identity(&task).contains("as arn:aws:iam::111122223333:user/lictor-full"), "{task:#}");
    scene.web("right", &windows)?;
    scene.runs("web", &[])?;

    scene.aws.reset()?;
    scene.manager("wrong", &["--role-arn", role, "--external-id", "lictor-0815"])?;
    let task = scene.tested("wrong")?;
    assert_eq!(outcomes(&task), NOBODY, "{task:#}");
    let failure = &task["result"]["error"];
    assert_eq!((&failure["stage"], &failure["code"]), (&json!("identity"), &json!("kms.role_denied")), "{task:#}");
    let suspects: Vec<_> = failure["suspects"].as_array().context("suspects")?.iter().map(|s| &s["code"]).collect();
    assert_eq!(suspects[..2], ["kms.suspect_external_id", "kms.suspect_trust_policy"], "{task:#}");
    assert_eq!(scene.aws.calls("kms:GenerateDataKey")?, 0, "nobody may ask for a key");
    let said = scene.refused(&["secret-manager", "test", "wrong"])?;
    let listed = said.find("1. [kms.suspect_external_id]").zip(said.find("2. [kms.suspect_trust_policy]"));
    ensure!(listed.is_some_and(|(first, second)| first < second), "{said}");
    // What cannot be sealed is not stored.
    let file = scene.file("other", b"0ther-secret")?;
    let said = scene.refused(&["secret", "put", "other", "--value-file", &file, "--manager", "wrong"])?;
    ensure!(said.contains("kms.role_denied"), "{said}");
    scene.refused(&["secret", "show", "other"])?;

    // The duration is looked at before anybody is asked.
    scene.aws.reset()?;
    let long = ["--role-arn", role, "--external-id", external_id, "--duration", "13h"];
    let error = scene.manager("long", &long).err().context("it was taken")?;
    ensure!(error.to_string().contains("900 s to 43200 s"), "{error:#}");
    assert_eq!(scene.aws.calls("sts:AssumeRole")?, 0);
    Ok(())
}

#[test]
fn tokens_of_the_control_plane_are_a_role_to_agents_and_to_itself() -> Result<()> {
    let world = json!({"issuer": ISSUER, "subject": "scope:account:secret-manager:corp"});
    let scene = Scene::start_with("ministack", &world, |aws| {
        vec![
            ("LICTOR_CONTROL_PLANE_OIDC__ISSUER", ISSUER.to_owned()),
            ("LICTOR_CONTROL_PLANE_OIDC__ENDPOINTS", aws.url()),
        ]
    })?;
    let Some(scene) = scene else { return Ok(()) };
    let published = format!("http://{}", scene.stack.control_plane.http_address());
    scene.aws.order("tokens", &json!({"issuers": {ISSUER: published}}))?;
    let windows = scene.host("win-a")?;
    let role = ["--oidc-role-arn", scene.made("/roles/oidc")?];

    // The control plane itself: there is no agent yet.
    scene.manager("corp", &[&role[..], &["--connectivity", "platform"]].concat())?;
    let task = scene.tested("corp")?;
    assert_eq!(outcomes(&task), PASSED, "{task:#}");
    ensure!(identity(&task).contains("assumed-role/lictor-oidc/lictor-control-plane"), "{task:#}");
    let output = scene.put("web-password", lictor_tests::PASSWORD.as_bytes(), &["--manager", "corp"])?;
    ensure!(output.stderr.contains("not sealed"), "{}", output.stderr);
    scene.credential("web", "web-password", &windows)?;
    // An agent that is nobody at AWS, and needs not to be anybody.
    let agent = scene.stack.agent("agent-1", &[("AWS_EC2_METADATA_DISABLED", "true")])?;
    scene.runs("web", &[])?;
    // What passes is waited for there, too.
    scene.put("web-password", lictor_tests::PASSWORD.as_bytes(), &["--manager", "corp"])?;
    scene
        .aws
        .rules(&[json!({"action": "kms:Decrypt", "do": "error", "code": "KMSInternalException", "status": 500})])?;
    scene.waits_for_kms("web", "has an internal failure")?;
    drop(agent);

    let _agent = scene.agent("agent-2", &[])?;
    scene.manager("corp", &role)?;
    let task = scene.tested("corp")?;
    assert_eq!(outcomes(&task), PASSED, "{task:#}");
    ensure!(identity(&task).contains("assumed-role/lictor-oidc/lictor-agent-2"), "{task:#}");
    scene.web("corp", &windows)?;
    assert_eq!(scene.runs("web", &[])?, "agent-2");

    // The trust policy names one secret manager.
    scene.manager("other", &role)?;
    let task = scene.tested("other")?;
    assert_eq!(outcomes(&task), NOBODY, "{task:#}");
    let failure = &task["result"]["error"];
    assert_eq!(failure["code"], "kms.web_identity_denied", "{task:#}");
    assert_eq!(failure["suspects"][0]["code"], "kms.suspect_subject", "{task:#}");
    // A key that the issuer does not publish.
    let Some(stranger) = Aws::start("imds", &[])? else { return Ok(()) };
    scene.aws.order("tokens", &json!({"issuers": {ISSUER: stranger.url()}}))?;
    scene.manager("corp", &[&role[..], &["--duration", "20m"]].concat())?;
    let task = scene.tested("corp")?;
    assert_eq!(task["result"]["error"]["code"], "kms.token_rejected", "{task:#}");

    // Tokens go nowhere but where the settings say.
    let elsewhere = stranger.url();
    let put = ["secret-manager", "put", "corp", "aws-kms", "--key", scene.made("/alias_arn")?];
    for connectivity in ["agent", "platform"] {
        let there = ["--endpoint", &elsewhere, "--sts-endpoint", &elsewhere, "--connectivity", connectivity];
        scene.lictor(&[&put[..], &role, &there].concat())?;
        let task = scene.tested("corp")?;
        let failure = &task["result"]["error"];
        assert_eq!(failure["code"], "secret_manager.unusable", "{task:#}");
        ensure!(failure["message"].as_str().is_some_and(|text| text.contains("oidc.endpoints")), "{task:#}");
    }
    Ok(())
}
