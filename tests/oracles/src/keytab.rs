//! Keytabs, from users and from the control plane.

use lictor_kerberos::keytab::{Keytab, KeytabError, parse_principal};

/// The bytes of a file.
///
/// - What is refused says where and what, within the input, in a short text.
/// - What is taken is read back the same after it was written, and holds no more than the bytes did.
/// - Principals are read as they are shown.
/// - What the `krb5` crate makes of its keys is read back, with the same keys.
pub fn keytab(data: &[u8]) {
    let keytab = match Keytab::parse(data) {
        Ok(keytab) => keytab,
        Err(error) => {
            assert!(error.to_string().len() < 200, "{error}");
            if let KeytabError::Malformed { offset, .. } = error {
                assert!(offset <= data.len(), "a place outside of the file");
            }
            return;
        }
    };
    let Ok(written) = keytab.to_bytes() else { panic!("a keytab that was read cannot be written") };
    // Without a long key version an entry grows by 4 bytes.
    assert!(written.len() <= data.len() + 4 * keytab.entries().len(), "it grew");
    assert!(Keytab::parse(&written).is_ok_and(|again| again == keytab), "read, written and read differ");
    let usable = keytab.entries().iter().filter(|entry| entry.is_usable()).count();
    assert_eq!(keytab.to_krb5().keys().len(), usable);
    for entry in keytab.entries() {
        let read = parse_principal(&entry.principal, None);
        assert!(read.is_ok_and(|read| read.components == entry.components && read.realm == entry.realm));
        assert!(keytab.find(entry).is_some(), "an entry is not found");
        assert_eq!(
            keytab.kvnos(&entry.principal).contains(&entry.kvno),
            of_version(&keytab, &entry.principal, entry.kvno)
        );
    }
    written_by_another(&keytab);
}

/// What the `krb5` crate writes, which joins the parts of a name, has the same keys.
fn written_by_another(keytab: &Keytab) {
    let ours: Vec<_> = keytab.entries().iter().filter(|entry| entry.is_usable()).collect();
    if ours.iter().any(|entry| entry.components.iter().any(|part| part.contains('/'))) {
        return;
    }
    let Ok(theirs) = Keytab::parse(&keytab.to_krb5().to_bytes()) else { panic!("another's keytab is refused") };
    assert!(ours.len() == theirs.entries().len(), "keys were lost");
    assert!(ours.iter().zip(theirs.entries()).all(|(ours, theirs)| ours.is_same_key(theirs)), "keys differ");
}

fn of_version(keytab: &Keytab, principal: &str, kvno: u32) -> bool {
    keytab.only(principal, Some(kvno)).entries().iter().any(|entry| entry.is_usable())
}
