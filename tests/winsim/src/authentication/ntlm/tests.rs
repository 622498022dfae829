//! The vectors of [MS-NLMP] 4.2.4 (NTLMv2 with the user `User`, the domain `Domain` and the password `Password`).

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
        .collect()
}

/// [MS-NLMP] 4.2.1: the flags of the examples with key exchange.
const FLAGS: u32 = 0xe28a_8233;

#[test]
fn the_response_key_is_that_of_the_specification() {
    assert_eq!(response_key("Password", "User", "Domain").to_vec(), hex("0c868a403bfd7a93a3001ef22ef02e3f"));
}

#[test]
fn proof_and_session_key_are_those_of_the_specification() {
    let temporary = hex("01010000 00000000 00000000 00000000 aaaaaaaa aaaaaaaa 00000000
         02000c00 44006f00 6d006100 69006e00 01000c00 53006500 72007600 65007200 00000000 00000000");
    let key = response_key("Password", "User", "Domain");
    let proof = hmac_md5(&key, &[&hex("0123456789abcdef"), &temporary]);
    assert_eq!(proof.to_vec(), hex("68cd0ab851e51c96aabc927bebef6a1c"));
    assert_eq!(hmac_md5(&key, &[&proof]).to_vec(), hex("8de40ccadbc14a82f15cb0ad0de95ca3"));
    let mut encrypted = [0x55; 16];
    rc4(&hmac_md5(&key, &[&proof])).expect("key").apply_keystream(&mut encrypted);
    assert_eq!(encrypted.to_vec(), hex("c5dad2544fc9799094ce1ce90bc9d03e"));
}

#[test]
fn sealing_is_that_of_the_specification() {
    let mut direction = Direction::new(&[0x55; 16], FLAGS, "client-to-server").expect("keys");
    assert_eq!(direction.sealing_key, hex("59f600973cc4960a25480a7c196e4c58"));
    assert_eq!(direction.signing_key.to_vec(), hex("4788dc861b4782f35d43fd98fe1a2d39"));
    let plain = utf16("Plaintext");
    let mut data = plain.clone();
    direction.cipher.apply_keystream(&mut data);
    assert_eq!(data, hex("54e50165bf1936dc996020c1811b0f06fb5f"));
    assert_eq!(direction.mac(&plain).to_vec(), hex("010000007fb38ec5c55d497600000000"));
}

#[test]
fn messages_cut_anywhere_are_refused() {
    let negotiate = [&SIGNATURE[..], &1u32.to_le_bytes(), &FLAGS.to_le_bytes(), &[0; 16]].concat();
    for length in 0..16 {
        assert!(Challenge::new(&negotiate[..length], "HOST", "CORP").is_err());
    }
    let answer = [&SIGNATURE[..], &3u32.to_le_bytes(), &[0xff; 60]].concat();
    for length in 0..answer.len() {
        let challenge = Challenge::new(&negotiate, "HOST", "CORP").expect("valid");
        assert!(challenge.verify(&answer[..length], &[], "HOST", None).is_err());
    }
}
