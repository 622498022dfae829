//! What fails at AWS on the way to a secret: what passes is waited out, what does not is told, and neither is held against the
//! credential.

use anyhow::{Context as _, Result, ensure};
use lictor_tests::Aws;
use serde_json::{Value, json};

use super::{PASSED, Scene, outcomes};

#[test]
fn sessions_that_end_are_renewed_in_flight() -> Result<()> {
    let Some(scene) = Scene::start("ministack")? else { return Ok(()) };
    let Some(instance) = Aws::start("imds", &["--upstream", &scene.aws.url()])? else { return Ok(()) };
    let metadata = instance.url();
    let variables = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.as_str())];
    let _agent = scene.agent("agent-1", &variables)?;
    let windows = scene.host("win-a")?;
    let role = scene.made("/roles/assumed")?;
    for (manager, arguments, assumed) in
        [("machine", &["--machine-role"][..], false), ("role", &["--role-arn", role][..], true)]
    {
        scene.aws.reset()?;
        instance.order("reset", &json!({}))?;
        scene.manager(manager, arguments)?;
        scene.web(manager, &windows)?;
        // AWS takes no session any more that it gave out until now, and the machine has new ones.
        scene.aws.order("expire", &json!({}))?;
        instance.order("expire", &json!({}))?;
        scene.runs("web", &[])?;
        let calls = scene.aws.order("calls", &json!({}))?;
        let decrypts = &calls["calls"]["kms:Decrypt"];
        assert_eq!((&decrypts["400 ExpiredTokenException"], &decrypts["200"]), (&json!(1), &json!(1)), "{calls:#}");
        assert_eq!(calls["calls"]["sts:AssumeRole"]["200"].as_u64().unwrap_or(0) >= 2, assumed, "{calls:#}");
    }
    assert_eq!(windows.failed_logons()?, 0);
    Ok(())
}

#[test]
fn throttling_is_waited_out_and_an_outage_is_told_and_over() -> Result<()> {
    let Some(scene) = Scene::start("moto")? else { return Ok(()) };
    let _agent = scene.agent("agent-1", &[])?;
    let windows = scene.host("win-a")?;
    scene.manager_of("corp", "full")?;
    scene.web("corp", &windows)?;
    let throttled = json!({"action": "kms:Decrypt", "do": "error", "code": "ThrottlingException", "times": 2});
    scene.aws.rules(&[throttled])?;
    scene.runs("web", &[])?;
    assert_eq!(scene.aws.calls("kms:Decrypt")?, 3);

    for (code, status, words) in [
        ("ThrottlingException", 400, "KMS throttles kms:Decrypt"),
        ("KMSInternalException", 500, "has an internal failure"),
    ] {
        scene.web("corp", &windows)?;
        scene.aws.rules(&[json!({"action": "kms:Decrypt", "do": "error", "code": code, "status": status})])?;
        let task = scene.task("web", &["--queue-timeout", "1s", "--", "hostname"])?;
        assert_eq!(task["state"], "rejected", "{task:#}");
        let reason = task["result"]["error"]["message"].as_str().context("reason")?;
        ensure!(reason.contains("failed to decrypt secret web-password") && reason.contains(words), "{reason}");

        // It was the way, not the secret: a task that waits meanwhile is tried again, by the one agent there is.
        scene.waits_for_kms("web", words)?;
    }
    assert_eq!(windows.failed_logons()?, 0);
    Ok(())
}

/// The credential `web` as it is listed.
fn listed(scene: &Scene) -> Result<Value> {
    let all = scene.stack.lictor_json(&["credential", "list"])?;
    let mut all = all["credentials"].as_array().context("credentials")?.clone().into_iter();
    all.find(|credential| credential["name"] == "web").context("web")
}

#[test]
fn what_aws_denies_is_told_with_suspects_and_locks_no_credential() -> Result<()> {
    let Some(scene) = Scene::start("ministack")? else { return Ok(()) };
    let _agent = scene.agent("agent-1", &[])?;
    let windows = scene.host("win-a")?;
    scene.manager_of("corp", "writer")?;
    let task = scene.tested("corp")?;
    let expected = [("identity", "passed"), ("write", "passed"), ("read", "failed")];
    assert_eq!(outcomes(&task), expected, "{task:#}");
    assert_eq!(task["result"]["error"]["stage"], "read", "{task:#}");
    scene.web("corp", &windows)?;
    for _ in 0..3 {
        let task = scene.task("web", &["--", "hostname"])?;
        assert_eq!(task["state"], "failed", "{task:#}");
        let failure = &task["result"]["error"];
        assert_eq!((&failure["stage"], &failure["code"]), (&json!("secret"), &json!("kms.denied")), "{task:#}");
        for text in ["message", "cause", "remedy"] {
            ensure!(failure[text].as_str().is_some_and(|text| text.contains("kms:Decrypt")), "{text} in {task:#}");
        }
        ensure!(failure["cause"].as_str().is_some_and(|cause| cause.contains("user/lictor-writer")), "{task:#}");
        assert_eq!(failure["suspects"][0]["code"], "kms.suspect_identity_policy", "{task:#}");
        ensure!(failure["suspects"][0]["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{task:#}");
    }
    assert_eq!((windows.failed_logons()?, windows.count("/operations/Create")?), (0, 0));
    assert!(listed(&scene)?["rejected_at"].is_null());

    // The same version, by somebody who may.
    scene.manager_of("corp", "reader")?;
    scene.runs("web", &[])?;
    assert_eq!(listed(&scene)?["version"], 1);
    Ok(())
}

#[test]
fn keys_that_cannot_be_used_are_told_apart_and_old_secrets_keep_theirs() -> Result<()> {
    let Some(scene) = Scene::start("ministack")? else { return Ok(()) };
    let _agent = scene.agent_of("agent-1", "full")?;
    let windows = scene.host("win-a")?;
    let url = scene.aws.url();
    let manager = |key: &str| {
        let put =
            ["secret-manager", "put", "corp", "aws-kms", "--key", key, "--endpoint", &url, "--sts-endpoint", &url];
        scene.lictor(&[&put[..], &["--machine-role"]].concat())
    };
    for (key, code) in [("/disabled_key", "kms.key_disabled"), ("/pending_key", "kms.key_state")] {
        manager(scene.made(key)?)?;
        let task = scene.tested("corp")?;
        let failure = &task["result"]["error"];
        assert_eq!((&failure["stage"], &failure["code"]), (&json!("write"), &json!(code)), "{task:#}");
        assert_eq!(failure["legacy_text"], "The data key could not be generated", "{task:#}");
        let file = scene.file("other", b"0ther-secret")?;
        let said = scene.refused(&["secret", "put", "other", "--value-file", &file, "--manager", "corp"])?;
        ensure!(said.contains(code), "{said}");
    }
    // A secret stays under the key that it was written with, and the secret manager says another one now.
    manager(scene.made("/other_key")?)?;
    assert_eq!(outcomes(&scene.tested("corp")?), PASSED);
    scene.web("corp", &windows)?;
    manager(scene.made("/key")?)?;
    let task = scene.task("web", &["--", "hostname"])?;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    let shown = scene.stack.lictor_json(&["secret", "show", "web-password"])?;
    assert_eq!(shown["key_id"], scene.made("/other_key")?, "{shown:#}");
    assert_eq!(windows.failed_logons()?, 0);
    Ok(())
}

#[test]
fn a_key_or_region_that_is_none_is_told_before_aws_is_asked() -> Result<()> {
    let Some(scene) = Scene::start("moto")? else { return Ok(()) };
    let _agent = scene.agent_of("agent-1", "full")?;
    let url = scene.aws.url();
    let alias = "arn:aws:kms:eu-central-1:111122223333:alias/lictor";
    for (key, region, endpoint, code) in [
        ("arn:aws:kms", "", "", "kms.key_malformed"),
        ("arn:aws:s3:::bucket", "", "", "kms.key_malformed"),
        (alias, "eu-west-1", url.as_str(), "kms.region_disagrees"),
        ("alias/lictor", "", url.as_str(), "kms.region_missing"),
        ("alias/lictor", "eu-centrl-1", "", "kms.region_unknown"),
    ] {
        let mut put = vec!["secret-manager", "put", "corp", "aws-kms", "--key", key, "--machine-role"];
        for (flag, value) in [("--region", region), ("--endpoint", endpoint), ("--sts-endpoint", endpoint)] {
            if !value.is_empty() {
                put.extend([flag, value]);
            }
        }
        // It is told when it is stored, or else when it is tested.
        let output = scene.stack.lictor(&put)?;
        if output.code == 0 {
            let task = scene.tested("corp")?;
            let failure = &task["result"]["error"];
            assert_eq!(failure["code"], code, "{key} {region}: {task:#}");
            ensure!(failure["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{task:#}");
        } else {
            ensure!(output.stderr.contains("aws_kms."), "{key} {region}: {}", output.stderr);
        }
    }
    let calls = scene.aws.order("calls", &json!({}))?;
    assert_eq!(calls["calls"], json!({}), "AWS was asked");
    Ok(())
}

#[test]
fn whoever_may_only_decrypt_is_good_enough_where_something_is_stored() -> Result<()> {
    let Some(scene) = Scene::start("ministack")? else { return Ok(()) };
    let _agent = scene.agent("agent-1", &[])?;
    let windows = scene.host("win-a")?;
    scene.manager_of("corp", "reader")?;
    let task = scene.tested("corp")?;
    let expected = [("identity", "passed"), ("write", "failed"), ("read", "skipped")];
    assert_eq!(outcomes(&task), expected, "{task:#}");
    let failure = &task["result"]["error"];
    assert_eq!((&failure["stage"], &failure["code"]), (&json!("write"), &json!("kms.denied")), "{task:#}");

    scene.manager_of("corp", "full")?;
    scene.web("corp", &windows)?;
    scene.manager_of("corp", "reader")?;
    let task = scene.tested("corp")?;
    let expected = [("identity", "passed"), ("write", "warning"), ("read", "passed")];
    assert_eq!((outcomes(&task), &task["state"]), (expected.to_vec(), &json!("succeeded")), "{task:#}");
    scene.runs("web", &[])?;
    let said = scene.lictor(&["secret-manager", "test", "corp"])?.text();
    ensure!(said.contains("Secrets can be read, not written"), "{said}");
    Ok(())
}
