//! Who a security descriptor lets in, and whether that is more than it should be.
//!
//! Administrators, Remote Management Users and Interactive are what Windows gives access by itself. Single accounts and
//! groups are somebody's decision, which is shown and not judged: nobody here can tell who their members are. Groups that
//! hold everybody, and builtin groups made for something else, are too many.

use std::collections::BTreeMap;

use super::rows::{Finding, listed};
use super::sddl::{self, Entry, GENERIC_ALL, Kind, Sid};

/// Whether somebody should have access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Windows gives it by itself.
    Usual,
    /// A single account or group.
    Single,
    /// Too many, or made for something else.
    Wide,
}

pub(super) fn judge(sddl: &str) -> Finding {
    let descriptor = match sddl::parse(sddl) {
        Ok(descriptor) => descriptor,
        Err(error) => return Finding::unknown(format!("its security descriptor cannot be read: {error}")),
    };
    let Some(entries) = descriptor.access else {
        return Finding::fail("everybody has full control: there is no list of who has access");
    };
    let allowed = allowed(&entries);
    if allowed.is_empty() {
        return Finding::pass("nobody has access over the network");
    }
    let show = |(sid, entry): (&Sid, &Entry)| {
        let condition = if entry.conditional { ", under a condition" } else { "" };
        format!("{sid}: {}{condition}", entry.rights())
    };
    let wide = listed(allowed.iter().filter(|(sid, _)| standing(sid) == Standing::Wide).map(show));
    match wide.is_empty() {
        false => Finding::fail(format!("open to {wide}")),
        true => Finding::pass(listed(allowed.iter().map(show))),
    }
}

/// Who is let in, each with all rights together.
fn allowed(entries: &[Entry]) -> BTreeMap<Sid, Entry> {
    let mut allowed: BTreeMap<Sid, Entry> = BTreeMap::new();
    let mut denied: BTreeMap<&Sid, u32> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.inherit_only && entry.mask != 0) {
        let sid = &entry.trustee;
        match entry.kind {
            Kind::Other => {}
            Kind::Deny if entry.conditional => {}
            // Whatever comes after it, nobody gets in.
            Kind::Deny if entry.mask & GENERIC_ALL != 0 && NETWORK.contains(&sid.as_str()) => break,
            Kind::Deny => *denied.entry(sid).or_default() |= entry.mask,
            Kind::Allow => {
                let refused = denied.get(sid).copied().unwrap_or_default();
                if refused & GENERIC_ALL != 0 || entry.mask & !refused == 0 {
                    continue;
                }
                let known = allowed.entry(sid.clone()).or_insert_with(|| entry.clone());
                known.mask |= entry.mask;
                known.conditional &= entry.conditional;
            }
        }
    }
    allowed
}

/// Everybody who comes over the network is one of these.
const NETWORK: &[&str] = &["S-1-5-2", "S-1-1-0"];

fn standing(sid: &Sid) -> Standing {
    // Administrators, Remote Management Users, Interactive, Local System.
    const USUAL: &[&str] = &["S-1-5-32-544", "S-1-5-32-580", "S-1-5-4", "S-1-5-18"];
    // Groups of administrators, and the local Administrator.
    const ADMINISTRATORS: &[&str] = &["DA", "EA", "SA", "LA", "S-1-5-114"];
    // Guest, Domain Users, Domain Guests, Domain Computers.
    const WIDE_IN_DOMAINS: &[u32] = &[501, 513, 514, 515];
    match sid.as_str() {
        text if USUAL.contains(&text) => Standing::Usual,
        text if ADMINISTRATORS.contains(&text) => Standing::Single,
        _ if sid.domain_rid().is_some_and(|rid| WIDE_IN_DOMAINS.contains(&rid)) => Standing::Wide,
        text if sid.name().is_some() || text.starts_with("S-1-5-32-") => Standing::Wide,
        // Of a domain or machine, of a service, of a directory in the cloud.
        text if ["S-1-5-21-", "S-1-5-80-", "S-1-12-1-"].iter().any(|kind| text.starts_with(kind)) => Standing::Single,
        _ => Standing::Wide,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn verdict(sddl: &str) -> (Verdict, String) {
        let finding = judge(sddl);
        (finding.verdict, finding.found)
    }

    /// Defaults of Windows: of the service before and since 2012, of Microsoft.PowerShell, and of a host on which
    /// Disable-PSRemoting was run.
    #[test]
    fn what_windows_has_by_itself_passes() {
        for sddl in [
            "O:NSG:BAD:P(A;;GA;;;BA)S:P(AU;FA;GA;;;WD)(AU;SA;GWGX;;;WD)",
            "O:NSG:BAD:P(A;;GA;;;BA)(A;;GR;;;IU)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)",
            "O:NSG:BAD:P(A;;GA;;;BA)(A;;GA;;;IU)(A;;GA;;;RM)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)",
        ] {
            assert_eq!(verdict(sddl).0, Verdict::Pass, "{sddl}");
        }
        let disabled = "O:NSG:BAD:P(D;;GA;;;NU)(A;;GA;;;BA)(A;;GA;;;RM)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)";
        assert_eq!(verdict(disabled), (Verdict::Pass, "nobody has access over the network".to_owned()));
    }

    #[test]
    fn a_single_account_is_shown_and_passes() {
        let (verdict, found) =
            verdict("O:NSG:BAD:P(A;;GA;;;BA)(A;;GXGR;;;S-1-5-21-1004336348-1177238915-682003330-1107)");
        assert_eq!(verdict, Verdict::Pass);
        assert!(found.contains("S-1-5-21-1004336348-1177238915-682003330-1107: read, execute"), "{found}");
    }

    #[test]
    fn those_who_are_too_many_fail_by_name() {
        for (sddl, name) in [
            ("D:(A;;GX;;;WD)", "Everyone (S-1-1-0): execute"),
            ("D:(A;;GA;;;BA)(A;;GR;;;S-1-5-11)", "Authenticated Users (S-1-5-11): read"),
            ("D:(A;;GA;;;DU)", "Domain Users (DU): full control"),
            ("D:(A;;GA;;;S-1-5-21-1-2-3-513)", "S-1-5-21-1-2-3-513"),
            ("D:(A;;0x10000000;;;ER)", "Event Log Readers (S-1-5-32-573): full control"),
            ("D:(A;;GA;;;S-1-5-32-999)", "S-1-5-32-999"),
            ("D:(XA;;GX;;;AU;(Member_of {SID(BA)}))", "execute, under a condition"),
            ("O:BAG:BA", "everybody has full control"),
            ("D:NO_ACCESS_CONTROL", "everybody has full control"),
        ] {
            let (verdict, found) = verdict(sddl);
            assert_eq!(verdict, Verdict::Fail, "{sddl}: {found}");
            assert!(found.contains(name), "{sddl}: {found}");
        }
    }

    #[test]
    fn denials_count_when_they_come_first() {
        assert_eq!(verdict("D:(D;;GA;;;WD)(A;;GA;;;WD)").0, Verdict::Pass);
        assert_eq!(verdict("D:(D;;GA;;;AU)(A;;GX;;;AU)(A;;GA;;;BA)").0, Verdict::Pass);
        assert_eq!(verdict("D:(A;;GX;;;AU)(D;;GA;;;AU)").0, Verdict::Fail);
        assert_eq!(verdict("D:(D;;GR;;;AU)(A;;GRGX;;;AU)").0, Verdict::Fail);
        assert_eq!(verdict("D:(XD;;GA;;;WD;(@User.x == 1))(A;;GX;;;WD)").0, Verdict::Fail);
        assert_eq!(verdict("D:(A;OICIIO;GA;;;WD)(A;;GA;;;BA)").0, Verdict::Pass);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        for sddl in ["", "D:(A;;GA;;;ZZ)", "nonsense", "D:(A;;GA;;;BA", "D:(QQ;;GA;;;BA)"] {
            assert_eq!(verdict(sddl).0, Verdict::Unknown, "{sddl}");
        }
    }
}
