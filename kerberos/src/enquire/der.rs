//! The little of DER that a question to a KDC and its answer are made of. Definite lengths, one-byte tags.

use super::wire::Malformed;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const GENERAL_STRING: u8 = 0x1b;
pub(crate) const SEQUENCE: u8 = 0x30;

/// `[number]`, explicit.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// `[APPLICATION number]`.
pub(crate) const fn application(number: u8) -> u8 {
    0x60 | number
}

/// One value with its tag and length.
pub(crate) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let skip = bytes.iter().take_while(|byte| **byte == 0).count();
            let significant = bytes.get(skip..).unwrap_or_default();
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or_default());
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A value made of others.
pub(crate) fn of(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    value(tag, &parts.concat())
}

pub(crate) fn integer(number: i64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let mut start = 0;
    // As short as it can be with its sign.
    while let Some([first, second, ..]) = bytes.get(start..) {
        if (*first == 0 && *second < 0x80) || (*first == 0xff && *second >= 0x80) {
            start += 1;
        } else {
            break;
        }
    }
    value(INTEGER, bytes.get(start..).unwrap_or_default())
}

/// Values that follow one another.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next value: its tag and content.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Malformed> {
        let Some((tag, rest)) = self.0.split_first() else { return Ok(None) };
        // No message of Kerberos has a tag of several bytes here.
        if tag & 0x1f == 0x1f {
            return Err(Malformed("a tag of several bytes"));
        }
        let (length, rest) = rest.split_first().ok_or(Malformed("a value without a length"))?;
        let (length, rest) = if *length < 0x80 {
            (usize::from(*length), rest)
        } else {
            let count = usize::from(length & 0x7f);
            if count == 0 || count > 4 {
                return Err(Malformed("a length that is not one of DER"));
            }
            let (bytes, rest) = rest.split_at_checked(count).ok_or(Malformed("a length cut off"))?;
            (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed("a value longer than what holds it"))?;
        self.0 = rest;
        Ok(Some((*tag, content)))
    }

    /// The content of the next value, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.next()? {
            Some((found, content)) if found == tag => Ok(content),
            _ => Err(Malformed("a value of another kind than expected")),
        }
    }
}

/// A number that fits.
pub(crate) fn read_integer(content: &[u8]) -> Result<i64, Malformed> {
    let (Some(first), 1..=8) = (content.first(), content.len()) else {
        return Err(Malformed("a number out of bounds"));
    };
    let sign = if *first & 0x80 == 0 { 0 } else { -1 };
    Ok(content.iter().fold(sign, |number, byte| (number << 8) | i64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for number in [0, 1, 127, 128, 255, 256, 0x7fff_ffff, -1, -128, -129, i64::MIN, i64::MAX] {
            let bytes = integer(number);
            let content = Reader::new(&bytes).expect(INTEGER).unwrap();
            assert_eq!(read_integer(content).unwrap(), number);
        }
        for length in [0, 1, 127, 128, 255, 256, 65_536] {
            let content = vec![7; length];
            assert_eq!(Reader::new(&value(OCTET_STRING, &content)).expect(OCTET_STRING).unwrap(), content);
        }
        // X.690 8.3: the shortest form.
        assert_eq!(integer(128), [2, 2, 0, 128]);
        assert_eq!(integer(-128), [2, 1, 128]);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = value(OCTET_STRING, &[0; 300]);
        for end in 1..whole.len() {
            assert!(Reader::new(&whole[..end]).next().is_err(), "{end}");
        }
        assert!(Reader::new(&[]).next().unwrap().is_none());
        assert!(Reader::new(&[4, 0x85, 0, 0, 0, 0, 0]).next().is_err());
        assert!(Reader::new(&[4, 0x80, 0, 0]).next().is_err());
        assert!(Reader::new(&[0x1f, 1, 0]).next().is_err());
    }
}
