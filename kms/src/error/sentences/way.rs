//! The way to AWS: out of reach, out of time, too much.

use super::{Action, Error, Kind, Stage, Way, at, clean, of, suspect, told};

fn whom(way: &Way, action: Action) -> String {
    way.endpoint.clone().unwrap_or_else(|| format!("{} in {}", action.service(), way.region))
}

pub(crate) fn throttled(action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Passing,
        "kms.throttled",
        format!("{} throttles {}", action.service(), action.name()),
        "The account makes more requests than its quota in this region; attempts with growing pauses were throttled, too.",
        "Try again later, and raise the quota for requests to KMS if it happens often. This program asks once for each data key and keeps it for minutes.",
        text,
    )
}

pub(crate) fn outage(way: &Way, action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Passing,
        "kms.outage",
        format!("{} has an internal failure", whom(way, action)),
        "Attempts with growing pauses failed, too.",
        "Try again later; see the AWS Health Dashboard.",
        text,
    )
}

pub(crate) fn unreachable(way: &Way, action: Action, why: &str) -> Error {
    at(
        action,
        Kind::Passing,
        "kms.unreachable",
        format!("{} cannot be reached", whom(way, action)),
        format!("{}.", clean(why).trim_end_matches('.')),
        "Look at name resolution, routes and proxies (`HTTPS_PROXY`, `NO_PROXY`) from where this program runs.",
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_no_route",
            "The network has no way to AWS: neither NAT nor a VPC endpoint.",
            "Make VPC endpoints for `kms` and `sts`, or give a proxy.",
        ),
        suspect(
            "kms.suspect_endpoint",
            "The endpoint of the secret manager is wrong.",
            "Leave it empty unless it is a VPC endpoint with a name of its own.",
        ),
    ])
}

pub(crate) fn tls(way: &Way, action: Action, why: &str) -> Error {
    at(
        action,
        Kind::Other,
        "kms.tls",
        format!("no TLS session with {}", whom(way, action)),
        format!("{}.", clean(why).trim_end_matches('.')),
        "If a proxy breaks TLS open, its authority must be among those of the system. If the endpoint has a name of its own, its \
         certificate must have it, too.",
    )
}

pub(crate) fn timeout(way: &Way, action: Action) -> Error {
    at(
        action,
        Kind::Passing,
        "kms.timeout",
        format!("{} does not answer {} in time", whom(way, action), action.name()),
        "The connection stands or is being made, and no answer comes.",
        "Look for firewalls and proxies that drop packets without a word, and whether the VPC endpoint's security group lets port 443 in.",
    )
}

pub(crate) fn deadline(stage: Stage) -> Error {
    of(
        stage,
        Kind::Passing,
        "kms.deadline",
        "no time is left for AWS",
        "The time for asking AWS ended before there was an answer: that of the task, or what one request may take at most.",
        "Look for firewalls and proxies that drop packets without a word. Where tasks have little time, give them more.",
        None,
    )
}

pub(crate) fn answer(action: Action, why: &str) -> Error {
    at(
        action,
        Kind::Other,
        "kms.answer",
        format!("the answer to {} cannot be used", action.name()),
        format!("{}.", clean(why).trim_end_matches('.')),
        "Look at the endpoint, and at proxies on the way: something that is not AWS may answer.",
    )
}

pub(crate) fn refused(way: &Way, action: Action, code: &str, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Other,
        "kms.refused",
        format!("{} refuses {}: {}", whom(way, action), action.name(), clean(code)),
        "This answer is not known here.",
        "Look the code up in the API reference of the service.",
        text,
    )
}

pub(crate) fn stopped(stage: Stage) -> Error {
    of(
        stage,
        Kind::Passing,
        "kms.stopped",
        "the program stops",
        "The request to AWS was given up because this program ends.",
        "Nothing: the task is taken up elsewhere, or reported as handed back.",
        None,
    )
}
