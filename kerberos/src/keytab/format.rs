//! The bytes of keytab files: MIT's [keytab file format], version 0x0502.
//!
//! [keytab file format]: https://web.mit.edu/kerberos/krb5-latest/doc/formats/keytab_file_format.html

use zeroize::Zeroizing;

use super::{Entry, KeytabError, MAX_BYTES, MAX_COMPONENTS, MAX_ENTRIES, display};

pub(super) fn read(data: &[u8]) -> Result<Vec<Entry>, KeytabError> {
    if data.len() > MAX_BYTES {
        return Err(KeytabError::TooLarge);
    }
    let mut input = Input { data, at: 0, end: data.len(), of: "the file" };
    match data {
        [] => return Err(KeytabError::Unusable("the file is empty")),
        [5, 2, ..] => input.at = 2,
        [5, 1, ..] => {
            return Err(KeytabError::Unusable(
                "it has the old format 0x0501, whose byte order depends on the machine; write it again with a tool of this century",
            ));
        }
        [5, 3 | 4, ..] => return Err(KeytabError::Unusable("it is a credential cache (ccache), which holds tickets")),
        [b'B', b'Q', b'I', ..] => {
            return Err(KeytabError::Unusable("it looks like the base64 of a keytab; decode it first"));
        }
        _ => return Err(malformed(0, "a keytab begins with the bytes 05 02")),
    }
    let mut entries = Vec::new();
    while input.at < input.end {
        let at = input.at;
        let length = i32::from_be_bytes(input.array("an entry's length")?);
        let size = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX);
        if length == 0 {
            // MIT ends a file so, when its last entry was deleted.
            match data.get(input.at..).and_then(|rest| rest.iter().position(|byte| *byte != 0)) {
                None => break,
                Some(position) => return Err(malformed(input.at + position, "data follows the mark of the end")),
            }
        }
        let kind = if length < 0 { "a deleted entry" } else { "an entry" };
        if size > input.end - input.at {
            let rest = input.end - input.at;
            return Err(malformed(at, format!("{kind} of {size} bytes, but only {rest} bytes are left in the file")));
        }
        let end = input.at + size;
        if length > 0 {
            if entries.len() == MAX_ENTRIES {
                return Err(KeytabError::TooLarge);
            }
            entries.push(entry(Input { data, at: input.at, end, of: "its entry" })?);
        }
        input.at = end;
    }
    Ok(entries)
}

fn entry(mut input: Input<'_>) -> Result<Entry, KeytabError> {
    let at = input.at;
    let count = usize::from(u16::from_be_bytes(input.array("the number of name parts")?));
    if count == 0 || count > MAX_COMPONENTS {
        return Err(malformed(at, format!("a name of {count} parts; it must have 1 to {MAX_COMPONENTS}")));
    }
    let realm = input.text("the realm")?;
    let components = (0..count).map(|_| input.text("a part of the name")).collect::<Result<Vec<_>, _>>()?;
    let name_type = i32::from_be_bytes(input.array("the name type")?);
    let timestamp = u32::from_be_bytes(input.array("the time")?);
    let [short_kvno] = input.array("the key version")?;
    let enctype_at = input.at;
    // Numbers of private encryption types are negative.
    let enctype = i32::from(i16::from_be_bytes(input.array("the encryption type")?));
    let key_at = input.at;
    let key = Zeroizing::new(input.counted("the key")?.to_vec());
    if key.is_empty() {
        return Err(malformed(key_at, "the key is empty"));
    }
    if let Some(length) = key_length(enctype)
        && key.len() != length
    {
        let found = key.len();
        return Err(malformed(
            enctype_at,
            format!("a key of {found} bytes for encryption type {enctype}, whose keys have {length}"),
        ));
    }
    // The 8 bits of before are superseded by 32 where there is room for them, unless those are 0. What else follows is of other
    // implementations.
    let mut kvno = u32::from(short_kvno);
    if input.end - input.at >= 4 {
        let long = u32::from_be_bytes(input.array("the long key version")?);
        if long != 0 {
            kvno = long;
        }
    }
    Ok(Entry { principal: display(&components, &realm), realm, components, name_type, kvno, enctype, timestamp, key })
}

pub(super) fn write(entries: &[Entry]) -> Result<Zeroizing<Vec<u8>>, KeytabError> {
    let strings = |entry: &Entry| entry.components.iter().map(|part| 2 + part.len()).sum::<usize>();
    let size = |entry: &Entry| 2 + 2 + entry.realm.len() + strings(entry) + 4 + 4 + 1 + 2 + 2 + entry.key.len() + 4;
    let total = entries.iter().map(|entry| 4 + size(entry)).sum::<usize>() + 2;
    if total > MAX_BYTES || entries.len() > MAX_ENTRIES {
        return Err(KeytabError::TooLarge);
    }
    // As large as it will be, so that no copy of a key is left behind by growing.
    let mut out = Zeroizing::new(Vec::with_capacity(total));
    out.extend_from_slice(&[5, 2]);
    for entry in entries {
        put_u32(&mut out, size(entry))?;
        put_u16(&mut out, entry.components.len())?;
        put_counted(&mut out, entry.realm.as_bytes())?;
        for component in &entry.components {
            put_counted(&mut out, component.as_bytes())?;
        }
        out.extend_from_slice(&entry.name_type.to_be_bytes());
        out.extend_from_slice(&entry.timestamp.to_be_bytes());
        out.push(entry.kvno.to_be_bytes()[3]);
        let enctype = i16::try_from(entry.enctype).map_err(|_| too_long())?;
        out.extend_from_slice(&enctype.to_be_bytes());
        put_counted(&mut out, &entry.key)?;
        out.extend_from_slice(&entry.kvno.to_be_bytes());
    }
    Ok(out)
}

fn put_counted(out: &mut Vec<u8>, data: &[u8]) -> Result<(), KeytabError> {
    put_u16(out, data.len())?;
    out.extend_from_slice(data);
    Ok(())
}

fn put_u16(out: &mut Vec<u8>, value: usize) -> Result<(), KeytabError> {
    out.extend_from_slice(&u16::try_from(value).map_err(|_| too_long())?.to_be_bytes());
    Ok(())
}

fn put_u32(out: &mut Vec<u8>, value: usize) -> Result<(), KeytabError> {
    out.extend_from_slice(&u32::try_from(value).map_err(|_| too_long())?.to_be_bytes());
    Ok(())
}

fn too_long() -> KeytabError {
    KeytabError::Unusable("a value does not fit the file format")
}

/// Bytes between here and the end of what they belong to.
struct Input<'a> {
    data: &'a [u8],
    at: usize,
    end: usize,
    of: &'static str,
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], KeytabError> {
        let left = self.end.saturating_sub(self.at);
        match self.data.get(self.at..self.at.saturating_add(length)) {
            Some(taken) if length <= left => {
                self.at += length;
                Ok(taken)
            }
            _ => {
                Err(malformed(self.at, format!("{what} needs {length} bytes, but only {left} are left in {}", self.of)))
            }
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], KeytabError> {
        let at = self.at;
        self.take(N, what)?.try_into().map_err(|_| malformed(at, what.to_owned()))
    }

    fn counted(&mut self, what: &str) -> Result<&'a [u8], KeytabError> {
        let length = u16::from_be_bytes(self.array(&format!("the length of {what}"))?);
        self.take(usize::from(length), what)
    }

    fn text(&mut self, what: &str) -> Result<String, KeytabError> {
        let at = self.at;
        let data = self.counted(what)?;
        match std::str::from_utf8(data) {
            Ok("") => Err(malformed(at, format!("{what} is empty"))),
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(malformed(at, format!("{what} is not UTF-8"))),
        }
    }
}

fn malformed(offset: usize, what: impl Into<String>) -> KeytabError {
    KeytabError::Malformed { offset, what: what.into() }
}

/// How long keys of an encryption type are, where we know it.
fn key_length(enctype: i32) -> Option<usize> {
    match enctype {
        17 | 19 | 23 | 25 => Some(16),
        18 | 20 | 26 => Some(32),
        16 => Some(24),
        1..=3 => Some(8),
        _ => None,
    }
}
