use super::*;
use crate::step::{Outcome, Step};

fn told(judge: impl FnOnce(&mut Steps<'_>)) -> (Outcome, String) {
    let mut tell = |_: &Step| {};
    let mut steps = Steps::new(&mut tell);
    judge(&mut steps);
    let steps = steps.finish();
    let [step] = steps.as_slice() else { panic!("{steps:#?}") };
    (step.outcome, step.finding.as_ref().map_or(String::new(), |finding| finding.code.to_string()))
}

fn rules(settings: &str) -> Canonical {
    let text = format!("[libdefaults]\n{settings}");
    canonical(&Configuration::parse(&text, std::path::Path::new("krb5.conf")).unwrap())
}

#[test]
fn what_mit_does_with_names_is_read_from_its_settings() {
    for (settings, forward, reverse) in [
        ("", true, true),
        (" rdns = no\n", true, false),
        (" rdns = true\n", true, true),
        (" dns_canonicalize_hostname = false\n", false, false),
        (" dns_canonicalize_hostname = fallback\n rdns = true\n", false, false),
    ] {
        assert_eq!(rules(settings), Canonical { forward, reverse }, "{settings}");
    }
}

#[test]
fn names_of_addresses_count_where_somebody_asks_for_tickets_by_them() {
    let address = IpAddr::from([192, 0, 2, 1]);
    let named = |name: &str| vec![(address, Ok(name.to_owned()))];
    let lost = |lost| vec![(address, Err(lost))];
    let both = Canonical { forward: true, reverse: true };
    for (host, names, rules, outcome, code) in [
        ("web1.corp.example", named("web1.corp.example"), Some(both), Outcome::Passed, ""),
        ("web1.corp.example", named("node7.corp.example"), Some(both), Outcome::Warning, "dns.reverse_mismatch"),
        ("web1.corp.example", named("node7.corp.example"), None, Outcome::Passed, ""),
        ("web1", named("web1.corp.example"), Some(both), Outcome::Passed, ""),
        ("web1", named("web10.corp.example"), Some(both), Outcome::Warning, "dns.reverse_mismatch"),
        ("web1.corp.example", lost(Lost::NoAddress), Some(both), Outcome::Passed, ""),
        ("web1.corp.example", lost(Lost::Late), Some(both), Outcome::Unknown, ""),
    ] {
        let found = told(|steps| judge_names(host, &names, rules, steps));
        assert_eq!((found.0, found.1.as_str()), (outcome, code), "{host} {names:?}");
    }
}

#[test]
fn names_from_outside_are_tidied() {
    assert_eq!(tidy("WEB1.corp.example."), "web1.corp.example");
    assert_eq!(tidy("a\u{1b}[31m\n"), "a[31m");
    assert_eq!(tidy(&"x".repeat(1000)).len(), 255);
}

#[tokio::test]
async fn a_name_that_is_not_answered_in_time_is_late() {
    // The limit has passed already: nothing is waited for.
    assert_eq!(forward("localhost", Instant::now() - Duration::from_millis(1)).await.unwrap_err(), Lost::Late);
    let names = reverse(&[IpAddr::from([127, 0, 0, 1])], Instant::now() - Duration::from_millis(1)).await;
    assert_eq!(names, [(IpAddr::from([127, 0, 0, 1]), Err(Lost::Late))]);
}
