//! Tickets without a KDC, for tests: made as a KDC makes them, and handed out by a source that notes what it is asked.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use krb5::acceptor::{EncType, ServiceKey};
use krb5::{CCache, Credentials, Key, Keytab};

use super::*;

pub(crate) const REALM: &str = "CORP.EXAMPLE";
/// AES128 and AES256, with SHA-1 and SHA-2.
pub(crate) const ENCTYPES: [i32; 4] = [17, 18, 19, 20];

/// A ticket of alice's for `service`, such as `["HTTP", "win01"]`, and the keytab that opens it.
pub(crate) fn mint(enctype: i32, service: [&str; 2]) -> (Ticket, Keytab) {
    let key = Key::random(enctype).unwrap();
    let ticket = Ticket { ticket: Arc::new(credentials(&key, &service)), forwarded: None };
    let keytab = Keytab::from_keys(vec![ServiceKey::new(
        service.join("/"),
        REALM,
        1,
        EncType::from_i32(enctype).unwrap(),
        key.bytes(),
    )]);
    (ticket, keytab)
}

/// What the KDC would send for `server`, sealed with the server's key.
pub(crate) fn credentials(server_key: &Key, server: &[&str]) -> Credentials {
    let session = Key::random(server_key.enctype()).unwrap();
    let now = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let end = now + 3600;
    let inner = der(
        0x63,
        &der(
            0x30,
            &[
                der(0xa0, &der(0x03, &[0, 0, 0, 0, 0])),
                der(
                    0xa1,
                    &der(0x30, &[der(0xa0, &int(session.enctype())), der(0xa1, &der(0x04, session.bytes()))].concat()),
                ),
                der(0xa2, &text(REALM)),
                der(0xa3, &name(1, &["alice"])),
                der(0xa4, &der(0x30, &[der(0xa0, &int(1)), der(0xa1, &der(0x04, b""))].concat())),
                der(0xa5, &time(now)),
                der(0xa7, &time(end)),
            ]
            .concat(),
        ),
    );
    let cipher = server_key.encrypt(2, &inner).unwrap();
    let sealed = der(0x30, &[der(0xa0, &int(server_key.enctype())), der(0xa2, &der(0x04, &cipher))].concat());
    let ticket = der(
        0x61,
        &der(
            0x30,
            &[der(0xa0, &int(5)), der(0xa1, &text(REALM)), der(0xa2, &name(2, server)), der(0xa3, &sealed)].concat(),
        ),
    );
    // The crate's type has no constructor; it reads a credential cache.
    let mut cache = vec![5, 4, 0, 0];
    let principal = |cache: &mut Vec<u8>, kind: u32, parts: &[&str]| {
        cache.extend(kind.to_be_bytes());
        cache.extend(u32::try_from(parts.len()).unwrap().to_be_bytes());
        for part in [&[REALM], parts].concat() {
            counted(cache, part.as_bytes());
        }
    };
    principal(&mut cache, 1, &["alice"]);
    principal(&mut cache, 1, &["alice"]);
    principal(&mut cache, 2, server);
    cache.extend(u16::try_from(session.enctype()).unwrap().to_be_bytes());
    counted(&mut cache, session.bytes());
    for time in [now, now, end, 0] {
        cache.extend(time.to_be_bytes());
    }
    cache.push(0);
    cache.extend([0; 12]);
    counted(&mut cache, &ticket);
    counted(&mut cache, b"");
    CCache::decode(&cache).unwrap().credentials().next().unwrap()
}

/// Hands out tickets for the services that it knows, and notes what it is asked.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Names such as `HTTP/win01`. Whatever else is asked for is unknown.
    pub(crate) known: Vec<(String, Ticket)>,
    /// What is said instead.
    pub(crate) error: Option<TicketError>,
    pub(crate) identity: u8,
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) refused: Mutex<Vec<String>>,
}

impl Source {
    pub(crate) fn of(service: [&str; 2]) -> Self {
        Self { known: vec![(service.join("/"), mint(18, service).0)], ..Self::default() }
    }

    pub(crate) fn failing(kind: TicketErrorKind) -> Self {
        Self { error: Some(error(kind)), ..Self::default() }
    }
}

impl TicketSource for Source {
    fn ticket<'a>(
        &'a self,
        request: TicketRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Ticket, TicketError>> + Send + 'a>> {
        Box::pin(async move {
            let name = format!("{}/{}", request.service, request.host);
            self.asked.lock().unwrap().push(name.clone());
            match (&self.error, self.known.iter().find(|(known, _)| *known == name)) {
                (Some(error), _) => Err(error.clone()),
                (None, Some((_, ticket))) => Ok(ticket.clone()),
                (None, None) => Err(error(TicketErrorKind::ServiceUnknown)),
            }
        })
    }
    fn identity(&self) -> [u8; 32] {
        [self.identity; 32]
    }
    fn refused(&self, service: &str, host: &str) {
        self.refused.lock().unwrap().push(format!("{service}/{host}"));
    }
}

pub(crate) fn error(kind: TicketErrorKind) -> TicketError {
    TicketError {
        kind,
        code: "kerberos.test",
        message: format!("no ticket: {kind:?}"),
        cause: "The cause.".into(),
        remedy: "The remedy.".into(),
        legacy_text: Some("What MIT says".into()),
    }
}

/// One DER element.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        length @ 0..=0x7f => vec![length as u8],
        length @ 0x80..=0xff => vec![0x81, length as u8],
        length => [&[0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    };
    [&[tag][..], &length, content].concat()
}

pub(crate) fn int(value: i32) -> Vec<u8> {
    // A byte more than needed is harmless here.
    der(0x02, &value.to_be_bytes()[usize::from(value.unsigned_abs() < 0x80) * 3..])
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    der(0x1b, text.as_bytes())
}

pub(crate) fn name(kind: i32, parts: &[&str]) -> Vec<u8> {
    let parts: Vec<u8> = parts.iter().flat_map(|part| text(part)).collect();
    der(0x30, &[der(0xa0, &int(kind)), der(0xa1, &der(0x30, &parts))].concat())
}

pub(crate) fn time(seconds: u32) -> Vec<u8> {
    let days = i64::from(seconds / 86_400) + 719_468;
    // The Gregorian calendar, with years that begin in March.
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    der(0x18, format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z").as_bytes())
}

fn counted(cache: &mut Vec<u8>, data: &[u8]) {
    cache.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    cache.extend(data);
}
