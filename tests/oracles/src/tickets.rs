//! What a KDC answers to a question, and credential caches that others wrote.

use lictor_kerberos::ccache;
use lictor_kerberos::enquire::Reply;

/// When the answer came: a time within those that fit into an answer.
const RECEIVED: i64 = 1_700_000_000;

/// - An answer that is read has a number or a ticket, and nothing in it is larger than the answer.
/// - Its text is one bounded line; its clock is within the years that a Kerberos time can say.
/// - A status is one of an error.
pub fn kdc_reply(data: &[u8]) {
    let Ok(reply) = Reply::parse(data, RECEIVED) else { return };
    assert_eq!(reply, Reply::parse(data, RECEIVED).unwrap_or_default(), "read twice, read differently");
    if let Some(text) = &reply.text {
        assert!(text.chars().count() <= 301 && !text.contains(char::is_control), "a text that is no line: {text:?}");
    }
    if let Some(ahead) = reply.ahead {
        assert!((-70_000_000_000..=260_000_000_000).contains(&ahead), "a clock {ahead} s ahead");
        let moved = Reply::parse(data, RECEIVED - 100).unwrap_or_default();
        assert_eq!(moved.ahead, Some(ahead + 100), "the clock does not follow ours");
    }
    assert!(reply.status.is_none_or(|status| status >> 30 == 3), "a status that is no error");
    assert!(reply.keys.len() <= 16, "{} keys", reply.keys.len());
    assert!(reply.offered.len() <= 64, "{} kinds of pre-authentication", reply.offered.len());
    let salts: usize = reply.keys.iter().filter_map(|key| key.salt.as_ref()).map(Vec::len).sum();
    assert!(salts <= data.len(), "salts of {salts} bytes out of {}", data.len());
}

/// - What is read is not larger than the file, however it lies about its lengths.
/// - What is written of it is read as the same.
/// - Looking for tickets in it works whatever they are, and finds none that has ended.
pub fn credential_cache(data: &[u8]) {
    let Ok(cache) = ccache::decode(data) else { return };
    let size: usize =
        cache.entries.iter().map(|entry| entry.ticket.len() + entry.second_ticket.len() + entry.key.len()).sum();
    assert!(size <= data.len(), "{size} bytes of tickets out of {}", data.len());
    assert!(cache.entries.len() <= data.len() / 20, "{} entries out of {} bytes", cache.entries.len(), data.len());
    match ccache::decode(&cache.encode()) {
        Ok(again) => assert!(again.entries == cache.entries, "written and read again it is another"),
        Err(why) => panic!("what was written is not read: {why}"),
    }
    for now in [0, RECEIVED, i64::MAX] {
        if let Some(ticket) = cache.tgt(now) {
            assert!(ticket.endtime > now, "a ticket that has ended");
            assert_eq!(ticket.server.components.len(), 2);
        }
    }
    for ticket in cache.credentials() {
        let _ = (ticket.ticket_server(), ticket.can_renew_at(RECEIVED), ticket.is_expired_at(RECEIVED));
    }
}
