//! Reading `WWW-Authenticate` fields ([RFC 9110], section 11.6.1): several schemes in one field or in many.
//!
//! Malformed elements are left out rather than refused: what counts is whether our scheme is there. Bounded in the number of
//! bytes and schemes that are looked at.
//!
//! [RFC 9110]: https://www.rfc-editor.org/rfc/rfc9110

/// One challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The scheme, as written.
    pub scheme: &'a str,
    /// Its token68, if that is what follows; parameters are not kept.
    pub token: Option<&'a str>,
}

/// The challenges in the values of all `WWW-Authenticate` fields of an answer, in order.
pub fn challenges<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Vec<Challenge<'a>> {
    let mut found = Vec::new();
    let mut budget = MAX_BYTES;
    for field in fields {
        let Some(left) = budget.checked_sub(field.len()) else { break };
        budget = left;
        let Ok(text) = std::str::from_utf8(field) else { continue };
        for element in Elements(text) {
            if found.len() == MAX_CHALLENGES {
                return found;
            }
            found.extend(challenge(element));
        }
    }
    found
}

/// `scheme`, `scheme token68` or `scheme name=value`. An element that is only `name=value` belongs to the challenge before.
fn challenge(element: &str) -> Option<Challenge<'_>> {
    let end = element.find(|c: char| !is_token(c)).unwrap_or(element.len());
    let (scheme, rest) = element.split_at(end);
    if scheme.is_empty() {
        return None;
    }
    let value = rest.trim_start_matches(BLANK);
    if value.is_empty() {
        return Some(Challenge { scheme, token: None });
    }
    if value.len() == rest.len() || value.starts_with('=') {
        return None;
    }
    Some(Challenge { scheme, token: Some(value).filter(|value| is_token68(value)) })
}

/// Parts between commas, quoted strings respected, blanks trimmed.
struct Elements<'a>(&'a str);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (mut quoted, mut escaped) = (false, false);
        let end = self.0.find(|c: char| {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ => {}
            }
            c == ',' && !quoted
        });
        let (element, rest) = match end {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, ""),
        };
        self.0 = rest;
        Some(element.trim_matches(BLANK))
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.chars().all(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c))
}

const BLANK: [char; 2] = [' ', '\t'];
const MAX_BYTES: usize = 128 * 1024;
const MAX_CHALLENGES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(fields: &[&'a str]) -> Vec<(&'a str, Option<&'a str>)> {
        challenges(fields.iter().map(|field| field.as_bytes())).iter().map(|c| (c.scheme, c.token)).collect()
    }

    #[test]
    fn several_schemes_in_one_field_or_in_many() {
        assert_eq!(
            read(&["Negotiate, Kerberos", r#"Basic realm="WSMAN""#, "CredSSP"]),
            [("Negotiate", None), ("Kerberos", None), ("Basic", None), ("CredSSP", None)]
        );
        assert_eq!(
            read(&[r#"Basic realm="a, Negotiate Zm9v \" , b", charset="UTF-8", Negotiate TlRM=="#]),
            [("Basic", None), ("Negotiate", Some("TlRM=="))]
        );
        assert_eq!(
            read(&["Digest qop=\"auth\" , nonce=abc, NTLM,negotiate\t oYG2+/=="]),
            [("Digest", None), ("NTLM", None), ("negotiate", Some("oYG2+/=="))]
        );
    }

    #[test]
    fn hostile_fields_are_read_without_harm() {
        assert_eq!(read(&["", ",,, ,", "=", "=abc, \"", "\"Negotiate abc"]), []);
        assert_eq!(
            read(&["Negotiate =", "Negotiate a b", "Negotiate a=b"]),
            [("Negotiate", None), ("Negotiate", None)]
        );
        assert_eq!(read(&["Negotiate(abc)"]), []);
        let many = "A,".repeat(10_000);
        assert_eq!(read(&[&many]).len(), MAX_CHALLENGES);
        let long = "x".repeat(MAX_BYTES + 1);
        assert_eq!(read(&[&long, "Negotiate"]), []);
        assert_eq!(challenges([&b"\xff\xfe"[..], b"Basic"]).len(), 1);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(fields in proptest::collection::vec(any::<Vec<u8>>(), 0..4), text in "[ -~]{0,80}") {
            let _ = challenges(fields.iter().map(Vec::as_slice).chain([text.as_bytes()]));
        }
    }
}
