//! Checks of a batch: a template and its hosts become tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_proto::v1::{BatchHost, ConnectionSettings, SubmitBatchRequest, Target, TaskSpec, submit_batch_request};
use prost::Message as _;
use uuid::Uuid;

use super::{Checker, HOUR, Violations, is_text};
use crate::connection::{merge_kerberos, one_authority};
use crate::dispatch::{Route, Threshold, host_key};
use crate::store::batches::NewBatch;
use crate::store::tasks::NewTask;

/// A checked batch: one task for each host, every default filled in.
pub(crate) fn batch(request: SubmitBatchRequest, submitted_by: String) -> Result<NewBatch, Violations> {
    let mut template = request.template.unwrap_or_default();
    let common = template.target.take();
    let mut checker = Checker::default();
    let names_a_host = common.as_ref().is_some_and(|target| !target.host.is_empty());
    checker.check(!names_a_host, "template.target.host", "empty: the hosts are named in hosts");
    let common = common.and_then(|target| target.connection).unwrap_or_default();
    if template.queue_timeout.is_none() {
        template.queue_timeout = prost_types::Duration::try_from(LONGEST_WAIT).ok();
    }
    checker.check(request.retries <= MAX_RETRIES, "retries", "at most 5");
    let allowed = request.retries == 0 || template.idempotent || Route::of(&template).only_looks();
    checker.check(
        allowed,
        "retries",
        "only for a template declared idempotent: a command that may have run is never started again by itself",
    );
    let threshold = request.failure_threshold.map(|threshold| match threshold {
        submit_batch_request::FailureThreshold::MaxFailures(most) => Threshold::Count(most),
        submit_batch_request::FailureThreshold::MaxFailuresPercent(most) => Threshold::Percent(most),
    });
    let good = !matches!(threshold, Some(Threshold::Percent(101..)));
    checker.check(good, "max_failures_percent", "at most 100");
    let good = (1..=MAX_HOSTS).contains(&request.hosts.len());
    checker.check(good, "hosts", "1 to 10000");
    let key = &request.idempotency_key;
    checker.check(is_text(key, 128), "idempotency_key", "one line of at most 128 characters");
    // Checked once with a host that is good for sure, so that its faults are told once.
    let example = Target { host: "host".into(), connection: Some(common.clone()) };
    let (template, queue_timeout) = match super::task(TaskSpec { target: Some(example), ..template }, "") {
        Ok(checked) => checked,
        Err(Violations(found)) => {
            checker.violations.extend(found.into_iter().map(|text| format!("template.{text}")));
            return Err(Violations(checker.violations));
        }
    };
    if checker.violations.is_empty() {
        // A template without its host is the least that each task takes.
        let bytes = template.encoded_len().saturating_mul(request.hosts.len());
        let expected = format!(
            "all tasks together take {} MiB, and {} MiB are the most; use fewer hosts or a shorter script",
            bytes >> 20,
            MAX_BYTES >> 20
        );
        checker.check(bytes <= MAX_BYTES, "hosts", &expected);
    }
    let mut targets = Vec::new();
    if checker.violations.is_empty() {
        targets = hosts(&mut checker, request.hosts, &common);
    }
    let batch_id: Arc<str> = Uuid::now_v7().to_string().into();
    let tasks = targets
        .into_iter()
        .map(|(target, label)| {
            let mut spec = template.clone();
            spec.target = Some(target);
            if !label.is_empty() {
                spec.label = label;
            }
            NewTask {
                task_id: Uuid::now_v7().to_string(),
                spec,
                queue_timeout,
                submitted_by: submitted_by.clone(),
                idempotency_key: None,
                batch: Some(Arc::clone(&batch_id)),
                retries: request.retries,
                // One trace each: a trace of thousands of hosts is of use to nobody.
                traceparent: None,
            }
        })
        .collect();
    checker.finish(NewBatch {
        label: template.label.clone(),
        credential: template.credential.clone(),
        scope: template.selector.clone().unwrap_or_default().scope,
        batch_id,
        submitted_by,
        idempotency_key: (!request.idempotency_key.is_empty()).then_some(request.idempotency_key),
        concurrency: request.concurrency,
        threshold,
        retries: request.retries,
        tasks,
    })
}

/// Every host with what holds for it; names that are wrong or come twice are violations.
fn hosts(checker: &mut Checker, hosts: Vec<BatchHost>, common: &ConnectionSettings) -> Vec<(Target, String)> {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(hosts.len());
    let mut targets = Vec::with_capacity(hosts.len());
    for (index, host) in hosts.into_iter().enumerate() {
        let before = checker.violations.len();
        let field = |name: &str| format!("hosts[{index}].{name}");
        let mut connection = merge(host.connection.unwrap_or_default(), common);
        if host.port != 0 {
            connection.port = host.port;
        }
        let mut target = Target { host: host.host, connection: Some(connection) };
        let mut own = Checker::default();
        own.target(Some(&mut target));
        checker.violations.extend(own.violations.into_iter().map(|text| format!("hosts[{index}].{text}")));
        checker.check(is_text(&host.label, 200), &field("label"), "one line of at most 200 characters");
        if checker.violations.len() == before
            && let Some(first) = seen.insert(host_key(Some(&target)), index)
        {
            checker.violations.push(format!("{}: {:?} is hosts[{first}] again", field("host"), target.host));
        }
        if checker.violations.len() >= MAX_TOLD {
            checker.violations.push("and maybe more".into());
            break;
        }
        targets.push((target, host.label));
    }
    targets
}

/// One over the other, field by field; what neither sets stays unset.
fn merge(own: ConnectionSettings, common: &ConnectionSettings) -> ConnectionSettings {
    let pick = |own: i32, common: i32| if own == 0 { common } else { own };
    let text = |own: String, common: &String| if own.is_empty() { common.clone() } else { own };
    let (ca_pem, ca_secret) = one_authority((own.ca_pem, own.ca_secret), (&common.ca_pem, &common.ca_secret));
    ConnectionSettings {
        scheme: pick(own.scheme, common.scheme),
        port: if own.port == 0 { common.port } else { own.port },
        path: text(own.path, &common.path),
        auth: pick(own.auth, common.auth),
        ca_pem,
        skip_cert_check: own.skip_cert_check.or(common.skip_cert_check),
        message_encryption: pick(own.message_encryption, common.message_encryption),
        send_channel_bindings: own.send_channel_bindings.or(common.send_channel_bindings),
        allow_basic_over_http: own.allow_basic_over_http.or(common.allow_basic_over_http),
        kerberos: merge_kerberos(own.kerberos, common.kerberos.as_ref()),
        ca_secret,
    }
}

const MAX_HOSTS: usize = 10_000;
const MAX_RETRIES: u32 = 5;
/// All tasks of a batch are stored in one transaction.
const MAX_BYTES: usize = 64 << 20;
/// The longest that a task may wait: most tasks of a batch wait for their turn, not for an agent.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * HOUR.as_secs());
/// Bounds the answer to a list that is wrong from end to end.
const MAX_TOLD: usize = 20;
