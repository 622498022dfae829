//! HTTP, TLS and authentication.

use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use lictor_winrm::auth::ntlm::NtlmContext;
use lictor_winrm::auth::{Handshake, Step};
use lictor_winrm::connection::Candidate;
use lictor_winrm::target::{AuthKind, Scheme};
use lictor_winrm::wsman::{self, Response};
use tokio::time::Instant;

use super::{Check, Finding, check};
use crate::lab::{Lab, failure};
use crate::wire::Wire;

pub(super) fn checks() -> Vec<Check> {
    vec![
        check!(
            Always,
            "identify.anonymous",
            "Identify is answered without any credential, and tells vendor and stack but no version of the system",
            "notes 1; winrm/src/connection.rs",
            anonymous_identify
        ),
        check!(
            Always,
            "auth.offer",
            "an empty POST without credential is answered with 401, and the scheme in use is among those offered",
            "notes 1 and 7; winrm/src/auth.rs",
            offer
        ),
        check!(
            Always,
            "auth.legs",
            "NTLM: 401 with a challenge, then 200, both to empty POSTs; Basic: no leg, the first request is answered",
            "notes 7; winrm/src/auth.rs",
            legs
        ),
        check!(
            Always,
            "auth.spnego",
            "NTLM inside SPNEGO works as well as raw tokens do",
            "notes 7; winrm/src/auth/ntlm.rs",
            spnego
        ),
        check!(
            Always,
            "auth.sealing",
            "NTLM over http: sealed messages are answered sealed, and Identify tells the version of the system",
            "notes 8, [MS-WSMV] 2.2.9.1; winrm/src/auth/seal.rs",
            sealing
        ),
        check!(
            Always,
            "tls.channel_bindings",
            "NTLM over https is accepted with channel bindings of the server's certificate",
            "notes 7, RFC 5929; winrm/src/connection/binding.rs",
            channel_bindings
        ),
        check!(
            Always,
            "http.no_length",
            "a POST without Content-Length is answered with 411",
            "notes 1; winrm/src/connection/link.rs",
            no_length
        ),
        check!(
            Always,
            "http.wrong_path",
            "another path than /wsman is answered with 404",
            "notes 1; winrm/src/error/advice.rs",
            wrong_path
        ),
        check!(
            Always,
            "http.foreign_seal",
            "a sealed body on a connection without security context is answered with 400 and no body",
            "notes 1, seen in reports about other clients",
            foreign_seal
        ),
    ]
}

async fn anonymous_identify(lab: &Lab) -> Result<Finding> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut candidate = Candidate::reach(&lab.target, deadline).await.map_err(|error| failure(&error))?;
    let identify = Bytes::from_static(wsman::IDENTIFY.as_bytes());
    let answer = match candidate.identify(identify, Duration::from_secs(30)).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Finding::judge(false, [failure(&error).to_string()])),
    };
    Ok(match wsman::parse(&answer.body, None)? {
        Response::Identified(identity) => Finding::judge(
            identity.vendor.contains("Microsoft") && identity.version.starts_with("OS: 0.0.0"),
            [
                format!("vendor {:?}, version {:?}", identity.vendor, identity.version),
                format!("the connection stays open: {}", candidate.is_usable()),
            ],
        ),
        other => Finding::judge(false, [other.name().to_owned()]),
    })
}

async fn offer(lab: &Lab) -> Result<Finding> {
    let mut wire = Wire::open(&lab.target).await?;
    let answer = wire.post(lab.target.endpoint.path(), &[("Content-Type", SOAP)], true, b"").await?;
    let wanted = match lab.target.auth {
        AuthKind::Basic => "Basic",
        AuthKind::Ntlm | AuthKind::Negotiate | AuthKind::Kerberos => "Negotiate",
    };
    let schemes = answer.schemes();
    let offered = schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(wanted));
    Ok(Finding::judge(
        answer.status == 401 && offered,
        [
            format!("HTTP {}, offered: {}", answer.status, schemes.join(", ")),
            format!("Server: {}; Connection: {}", answer.all("Server").join(", "), answer.all("Connection").join(", ")),
            format!("a body of {} bytes", answer.body.len()),
        ],
    ))
}

async fn legs(lab: &Lab) -> Result<Finding> {
    if lab.target.auth == AuthKind::Basic || lab.target.endpoint.scheme() == Scheme::Https {
        let mut line = lab.connect().await?;
        let before = line.0.exchanges();
        lab.list(&mut line).await?;
        let expected = if lab.target.auth == AuthKind::Basic { 0 } else { 2 };
        let told = format!("{before} exchanges before the first request, which was answered at once");
        return Ok(Finding::judge(before == expected && line.0.exchanges() == before + 1, [told]));
    }
    let mut context = NtlmContext::raw(&lab.target.credential, None)?;
    let (mut handshake, mut value) = Handshake::begin(&mut context)?;
    let mut wire = Wire::open(&lab.target).await?;
    let mut seen = Vec::new();
    let mut statuses = Vec::new();
    loop {
        let fields = [("Content-Type", SOAP), ("Authorization", value.as_str())];
        let answer = wire.post(lab.target.endpoint.path(), &fields, true, b"").await?;
        let challenges = answer.all("WWW-Authenticate");
        let described = challenges.iter().map(|challenge| {
            let (scheme, token) = challenge.split_once(' ').unwrap_or((challenge, ""));
            format!("{scheme} with {} characters", token.len())
        });
        seen.push(format!("HTTP {}: {}", answer.status, described.collect::<Vec<_>>().join("; ")));
        statuses.push(answer.status);
        match handshake.answer(&mut context, answer.status, challenges.iter().map(|field| field.as_bytes())) {
            Ok(Step::Send(next)) => value = next,
            Ok(Step::Done) => return Ok(Finding::judge(statuses == [401, 200], seen)),
            Err(error) => {
                seen.push(error.to_string());
                return Ok(Finding::judge(false, seen));
            }
        }
    }
}

async fn spnego(lab: &Lab) -> Result<Finding> {
    if lab.target.auth == AuthKind::Basic {
        return Ok(Finding::skipped("this run uses Basic"));
    }
    let mut evidence = Vec::new();
    let mut both = true;
    for auth in [AuthKind::Negotiate, AuthKind::Ntlm] {
        let mut target = lab.target.clone();
        target.auth = auth;
        match lab.connect_as(&target).await {
            Ok(mut line) => {
                let answered = lab.list(&mut line).await;
                both &= answered.is_ok();
                let told = answered.map_or_else(|error| format!("{error:#}"), |reply| reply.brief());
                evidence.push(format!("{}: {} legs, then {told}", line.0.info().auth, line.0.exchanges() - 1));
            }
            Err(error) => {
                both = false;
                evidence.push(format!("{auth:?}: {error:#}"));
            }
        }
    }
    Ok(Finding::judge(both, evidence))
}

async fn sealing(lab: &Lab) -> Result<Finding> {
    if lab.target.auth == AuthKind::Basic || lab.target.endpoint.scheme() == Scheme::Https {
        return Ok(Finding::skipped("messages of this run are not sealed: Basic, or https"));
    }
    let mut line = lab.connect().await?;
    let identify = Bytes::from_static(wsman::IDENTIFY.as_bytes());
    let answer = line.0.exchange(identify, Duration::from_secs(30)).await.map_err(|error| failure(&error))?;
    let Response::Identified(identity) = wsman::parse(&answer.body, None)? else {
        return Err(anyhow!("the answer is no IdentifyResponse"));
    };
    let tells = identity.version.starts_with("OS: ") && !identity.version.starts_with("OS: 0.0.0");
    let sealed = line.0.info().sealed;
    Ok(Finding::judge(sealed && tells, [format!("sealed: {sealed}, version {:?}", identity.version)]))
}

async fn channel_bindings(lab: &Lab) -> Result<Finding> {
    if lab.target.endpoint.scheme() == Scheme::Http || lab.target.auth == AuthKind::Basic {
        return Ok(Finding::skipped("needs https and NTLM"));
    }
    let mut line = lab.connect().await?;
    let reply = lab.list(&mut line).await?;
    let tls = line.0.info().tls.as_ref().map(ToString::to_string).unwrap_or_default();
    let sent = lab.target.send_channel_bindings;
    Ok(Finding::judge(reply.fault().is_none(), [format!("{tls}, bindings sent: {sent}"), reply.brief()]))
}

async fn no_length(lab: &Lab) -> Result<Finding> {
    let mut wire = Wire::open(&lab.target).await?;
    let answer = wire.post(lab.target.endpoint.path(), &[("Content-Type", SOAP)], false, b"").await?;
    Ok(Finding::judge(answer.status == 411, [format!("HTTP {}", answer.status)]))
}

async fn wrong_path(lab: &Lab) -> Result<Finding> {
    let mut wire = Wire::open(&lab.target).await?;
    let answer = wire.post("/lictor-verify-nothing-here", &[("Content-Type", SOAP)], true, b"").await?;
    Ok(Finding::judge(answer.status == 404, [format!("HTTP {}", answer.status)]))
}

async fn foreign_seal(lab: &Lab) -> Result<Finding> {
    if lab.target.auth == AuthKind::Basic {
        return Ok(Finding::skipped("this run uses Basic"));
    }
    const PROTOCOL: &str = "application/HTTP-SPNEGO-session-encrypted";
    let content_type = format!("multipart/encrypted;protocol=\"{PROTOCOL}\";boundary=\"Encrypted Boundary\"");
    let mut body = format!(
        "--Encrypted Boundary\r\n\tContent-Type: {PROTOCOL}\r\n\tOriginalContent: type={SOAP};Length=32\r\n\
         --Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n"
    )
    .into_bytes();
    body.extend(16_u32.to_le_bytes());
    body.extend([1; 16]);
    body.extend([0; 32]);
    body.extend(b"--Encrypted Boundary--\r\n");
    let mut wire = Wire::open(&lab.target).await?;
    let fields = [("Content-Type", content_type.as_str())];
    let answer = wire.post(lab.target.endpoint.path(), &fields, true, &body).await?;
    let told = format!("HTTP {}, a body of {} bytes", answer.status, answer.body.len());
    Ok(Finding::judge(answer.status == 400 && answer.body.is_empty(), [told]))
}

const SOAP: &str = "application/soap+xml;charset=UTF-8";
