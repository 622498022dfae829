//! Encryption types by number and by name.

use super::KeytabError;

/// The encryption types that keys are made for, the best first as Active Directory has them.
pub const CREATED_ENCTYPES: [i32; 4] = [18, 17, 20, 19];

/// The name that MIT gives an encryption type.
pub fn enctype_name(enctype: i32) -> Option<&'static str> {
    NAMES.iter().find(|(number, _)| *number == enctype).and_then(|(_, names)| names.first()).copied()
}

/// An encryption type that keys can be made for, by one of its names (those of MIT, of ktpass and short ones), in any case.
pub fn parse_enctype(text: &str) -> Result<i32, KeytabError> {
    let refused = |why| KeytabError::Enctype { text: text.chars().take(64).collect(), why };
    let named = |(_, names): &&(i32, &[&str])| names.iter().any(|name| name.eq_ignore_ascii_case(text));
    match NAMES.iter().find(named) {
        Some((number, _)) if CREATED_ENCTYPES.contains(number) => Ok(*number),
        Some((23 | 24, _)) => Err(refused(
            "RC4 keys are not used by this program, and Windows is giving RC4 up; allow AES for the account and make an AES key",
        )),
        Some(_) => Err(refused("it is not used by this program; take aes256-sha1 or aes128-sha1")),
        None => Err(refused("it is not known; take aes256-sha1, aes128-sha1, aes256-sha2 or aes128-sha2")),
    }
}

const NAMES: &[(i32, &[&str])] = &[
    (18, &["aes256-cts-hmac-sha1-96", "aes256-cts", "aes256-sha1"]),
    (17, &["aes128-cts-hmac-sha1-96", "aes128-cts", "aes128-sha1"]),
    (20, &["aes256-cts-hmac-sha384-192", "aes256-sha2"]),
    (19, &["aes128-cts-hmac-sha256-128", "aes128-sha2"]),
    (23, &["arcfour-hmac", "rc4-hmac", "arcfour-hmac-md5", "rc4-hmac-nt", "rc4"]),
    (24, &["arcfour-hmac-exp", "rc4-hmac-exp", "arcfour-hmac-md5-exp"]),
    (16, &["des3-cbc-sha1", "des3-hmac-sha1", "des3-cbc-sha1-kd"]),
    (1, &["des-cbc-crc"]),
    (2, &["des-cbc-md4"]),
    (3, &["des-cbc-md5"]),
    (25, &["camellia128-cts-cmac", "camellia128-cts"]),
    (26, &["camellia256-cts-cmac", "camellia256-cts"]),
];
