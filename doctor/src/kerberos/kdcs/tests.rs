use super::*;
use crate::step::{Outcome, Step};

fn taken(judge: impl FnOnce(&mut Steps<'_>)) -> Vec<Step> {
    let mut tell = |_: &Step| {};
    let mut steps = Steps::new(&mut tell);
    judge(&mut steps);
    steps.finish()
}

fn told(judge: impl FnOnce(&mut Steps<'_>)) -> (Outcome, String, String) {
    let steps = taken(judge);
    let [step] = steps.as_slice() else { panic!("{steps:#?}") };
    let code = step.finding.as_ref().map_or(String::new(), |finding| finding.code.to_string());
    (step.outcome, code, step.detail.clone())
}

fn alice() -> Principal {
    Principal::new(1, ["alice"], "CORP.EXAMPLE")
}

fn place(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::from([192, 0, 2, last]), 88)
}

fn asked(last: u8, udp: Option<Option<io::ErrorKind>>, tcp: Option<io::ErrorKind>) -> Asked {
    let reply = |error: Option<io::ErrorKind>| error.map_or_else(|| Ok(Reply::default()), |kind| Err(kind.into()));
    Asked { name: format!("dc{last}.corp.example"), address: place(last), udp: udp.map(reply), tcp: reply(tcp) }
}

#[test]
fn half_a_firewall_is_told_from_a_dead_kdc() {
    use io::ErrorKind as E;
    let (silent, refused) = (Some(E::TimedOut), Some(E::ConnectionRefused));
    let both = |asked: &[Asked]| (told(|steps| udp(asked, &alice(), steps)), told(|steps| tcp(asked, &alice(), steps)));
    for (asked, over_udp, over_tcp) in [
        (vec![asked(1, Some(None), None)], "", ""),
        (vec![asked(1, Some(silent), None), asked(2, Some(None), None)], "kerberos.udp_blocked", ""),
        (vec![asked(1, Some(None), silent)], "", "kerberos.tcp_blocked"),
        (vec![asked(1, Some(refused), refused), asked(2, Some(None), None)], "kerberos.kdc_dead", "kerberos.kdc_dead"),
        (vec![asked(1, Some(silent), refused)], "kerberos.kdc_unreachable", "kerberos.kdc_unreachable"),
        (vec![asked(1, Some(silent), Some(E::InvalidData))], "kerberos.not_a_kdc", "kerberos.not_a_kdc"),
        (vec![asked(1, None, None)], "", ""),
    ] {
        let (udp, tcp) = both(&asked);
        assert_eq!((udp.1.as_str(), tcp.1.as_str()), (over_udp, over_tcp), "{asked:?}");
    }
    let (udp, tcp) = both(&[asked(1, None, None)]);
    assert_eq!((udp.0, tcp.0), (Outcome::Skipped, Outcome::Passed));
    let (udp, _) = both(&[asked(1, Some(silent), refused), asked(2, Some(None), None)]);
    assert_eq!(udp.2, "dc1.corp.example (192.0.2.1:88): no answer; dc2.corp.example (192.0.2.2:88) answers");
}

#[test]
fn clocks_are_judged_by_the_kdc_that_is_nearest() {
    for (offsets, outcome, code) in [
        (&[][..], Outcome::Unknown, ""),
        (&[0], Outcome::Passed, ""),
        (&[60], Outcome::Passed, ""),
        (&[-61], Outcome::Warning, "kerberos.clock_drift"),
        (&[300], Outcome::Warning, "kerberos.clock_drift"),
        (&[-301], Outcome::Failed, "kerberos.clock_skew"),
        (&[1, 2], Outcome::Passed, ""),
        (&[1, 900], Outcome::Warning, "kerberos.clocks_disagree"),
        (&[400, 900], Outcome::Failed, "kerberos.clock_skew"),
        (&[i64::MAX, i64::MIN + 1], Outcome::Failed, "kerberos.clock_skew"),
    ] {
        let told_by: Vec<(SocketAddr, i64)> = offsets.iter().map(|ahead| (place(1), *ahead)).collect();
        let (found, said, _) = told(|steps| judge_clock(&told_by, &alice(), steps));
        assert_eq!((found, said.as_str()), (outcome, code), "{offsets:?}");
    }
}
