use super::*;

fn entries(text: &str) -> Vec<Entry> {
    parse(text).unwrap().access.unwrap()
}

fn sid(text: &str) -> Sid {
    Sid::parse(text).unwrap()
}

/// What winrm/config has on hosts that nobody has configured, as a recording of a real host shows it.
#[test]
fn the_default_of_the_service_is_read() {
    let read = parse("O:NSG:BAD:P(A;;GA;;;BA)(A;;GR;;;IU)S:P(AU;FA;GA;;;WD)(AU;SA;GXGW;;;WD)").unwrap();
    assert_eq!((read.owner, read.group), (Some(sid("NS")), Some(sid("BA"))));
    let access = read.access.unwrap();
    assert_eq!(access.len(), 2);
    assert_eq!(
        (access[0].kind, access[0].mask, access[0].trustee.as_str()),
        (Kind::Allow, GENERIC_ALL, "S-1-5-32-544")
    );
    assert_eq!((access[1].rights(), access[1].trustee.to_string()), ("read".into(), "Interactive (S-1-5-4)".into()));
    let audited = read.audited.unwrap();
    assert_eq!((audited.len(), audited[1].kind, audited[1].mask), (2, Kind::Other, GENERIC_EXECUTE | GENERIC_WRITE));
}

/// Examples of Microsoft's pages on the security descriptor string format, on conditional entries and on resource attributes.
#[test]
fn published_examples_are_read() {
    let read = parse("O:AOG:DAD:(A;;RPWPCCDCLCSWRCWDWOGA;;;S-1-0-0)").unwrap();
    assert_eq!(read.owner, Some(sid("AO")));
    assert_eq!(read.access.unwrap()[0].mask, 0x100E_003F);
    let conditional = concat!(
        "D:(XA; ;FX;;;S-1-1-0; (@User.Title==\"PM\" && (@User.Division==\"Finance\" || @User.Division ==\" Sales\")))",
        "(XD;;FX;;;WD;(@User.x == \")\"))"
    );
    let read = entries(conditional);
    assert_eq!((read.len(), read[0].conditional, read[1].kind), (2, true, Kind::Deny));
    let labelled =
        parse("O:BAG:BAD:AI(A;OICI;FA;;;SY)S:(RA;;;;;WD; (\"Project\",TS,0,\"Windows\",\"SQL\"))(ML;;NW;;;LW)")
            .unwrap();
    assert_eq!(labelled.audited.unwrap().len(), 2);
}

#[test]
fn rights_are_numbers_or_letters() {
    for (text, mask) in [
        ("GA", GENERIC_ALL),
        ("GRGX", GENERIC_READ | GENERIC_EXECUTE),
        ("0x80000000", GENERIC_READ),
        ("0X1f01ff", 0x1F_01FF),
        ("268435456", GENERIC_ALL),
        ("010", 8),
        ("", 0),
    ] {
        assert_eq!(entries(&format!("D:(A;;{text};;;BA)"))[0].mask, mask, "{text}");
    }
    assert_eq!(entries("D:(A;;CCDC;;;BA)")[0].rights(), "rights 0x3");
}

#[test]
fn a_missing_list_is_not_an_empty_one() {
    assert_eq!(parse("O:BAG:BA").unwrap().access, None);
    assert_eq!(parse("D:NO_ACCESS_CONTROL").unwrap().access, None);
    assert_eq!(parse("D:P").unwrap().access, Some(Vec::new()));
    let both = parse("D:PS:P(AU;FA;GA;;;WD)").unwrap();
    assert_eq!((both.access, both.audited.map(|audited| audited.len())), (Some(Vec::new()), Some(1)));
    assert_eq!(parse("D:PARAIS:AR").unwrap().audited, Some(Vec::new()));
}

/// The specification's example breaks the line in the middle of a list.
#[test]
fn white_space_between_parts_is_nothing() {
    let read = parse("O:NSG:BAD:P(A;;GA;;;BA)(A;;GR;;;ER) S:P(AU;FA;GA;;;WD)\n (AU;S A; GWGX ;;;WD)\n").unwrap();
    assert_eq!((read.access.unwrap().len(), read.audited.unwrap().len()), (2, 2));
}

#[test]
fn identifiers_are_checked() {
    for good in ["S-1-5-32-544", "S-1-0x5-32-544", "S-1-12-1-1-2-3-4", "S-1-5-21-1-2-3-4294967295"] {
        assert_eq!(sid(good).as_str(), good);
    }
    for bad in
        ["", "S", "S-1-5", "S-2-5-32", "S-1-5-32-", "S-1-5--32", "S-1-5-4294967296", "S-1-0xZ-1", "ba", "S-1-5-+1"]
    {
        assert!(Sid::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(sid("RM"), sid("S-1-5-32-580"));
    assert_eq!(sid("DU").to_string(), "Domain Users (DU)");
    assert_eq!((sid("S-1-5-21-1-2-3-513").domain_rid(), sid("S-1-5-21-1-2-3").domain_rid()), (Some(513), None));
}

#[test]
fn what_is_malformed_is_refused() {
    for bad in [
        "",
        " ",
        "X:BA",
        "O:",
        "D:P(A;;GA;;;BA",
        "D:P(A;;GA;;;)",
        "D:P(A;;GA;;BA)",
        "D:P(A;ZZ;GA;;;BA)",
        "D:P(A;;GQ;;;BA)",
        "D:P(A;;G;;;BA)",
        "D:P(ZZ;;GA;;;BA)",
        "D:Q(A;;GA;;;BA)",
        "D:(A;;GA;;;BA)D:(A;;GA;;;BA)",
        "D:(A;;GA;;;BA))",
        "D:(A;;0x1ffffffff;;;BA)",
        "D:é(A;;GA;;;BA)",
        "D",
        "O:éG:BA",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn size_entries_and_nesting_are_bounded() {
    assert!(parse(&"D".repeat(MAX_LENGTH + 1)).is_err());
    let many = |count: usize| format!("D:{}", "(A;;GA;;;BA)".repeat(count));
    assert_eq!(entries(&many(MAX_ENTRIES)).len(), MAX_ENTRIES);
    assert!(parse(&many(MAX_ENTRIES + 1)).is_err());
    let deep = |depth: usize| format!("D:(XA;;GA;;;BA;{}{})", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&deep(MAX_NESTING)).is_ok());
    assert!(parse(&deep(MAX_NESTING + 1)).is_err());
}
