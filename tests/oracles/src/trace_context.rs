//! The trace that a caller or the control plane names.

use lictor_telemetry::context;

/// A `traceparent`.
///
/// - What is taken has identifiers that are not zero, and is written as version 00 in 55 characters.
/// - What was written is read back the same; what is of version 00 already comes back as it was, but for flags that nobody knows.
pub fn traceparent(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(taken) = context::parse(text) else { return };
    assert!(taken.is_valid() && text.len() <= 512);
    let written = context::text(&taken);
    assert_eq!(written.len(), 55);
    assert_eq!(context::parse(&written), Some(taken));
    if text.starts_with("00-") {
        assert_eq!(text.get(..53), written.get(..53));
    }
}
