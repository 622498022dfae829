//! `sim.exe`: the program that exists only here, made to be asserted on.

use std::time::Duration;

use super::Session;

const USAGE: &str =
    "usage: sim.exe bytes N | lines N MS | sleep MS | mark NAME | argv ARGS | stdin | exit N | stderr TEXT\r\n";

pub(super) async fn program(session: &Session, arguments: &[String]) -> u32 {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    match words.as_slice() {
        ["bytes", count] if number(count).is_some() => bytes(session, number(count).unwrap_or_default()).await,
        ["lines", count, pause] if number(count).is_some() && number(pause).is_some() => {
            lines(session, number(count).unwrap_or_default(), Duration::from_millis(number(pause).unwrap_or_default()))
                .await
        }
        ["sleep", time] if number(time).is_some() => {
            session.sleep(Duration::from_millis(number(time).unwrap_or_default())).await;
            0
        }
        ["mark", name] => {
            session.machine.mark(name);
            0
        }
        ["argv", arguments @ ..] => {
            session.print(&format!("{}\r\n", serde_json::Value::from(arguments.to_vec()))).await;
            0
        }
        ["stdin"] => {
            while let Some(data) = session.read(64 * 1024).await {
                session.write(&session.stdout, &data).await;
            }
            0
        }
        // Exit codes are 32 bits; a negative one is its two's complement.
        ["exit", code] if code.parse::<i64>().is_ok() => code.parse::<i64>().map_or(1, |code| code as u32),
        ["stderr", text @ ..] => {
            session.print_error(&format!("{}\r\n", text.join(" "))).await;
            0
        }
        _ => {
            session.print_error(USAGE).await;
            2
        }
    }
}

/// Exactly `count` bytes of 64-byte lines, numbered from 0.
async fn bytes(session: &Session, count: u64) -> u32 {
    const LINES_PER_BLOCK: u64 = 512;
    let mut block = Vec::with_capacity(64 * LINES_PER_BLOCK as usize);
    let mut written = 0;
    let mut line = 0;
    while written < count {
        block.clear();
        for _ in 0..LINES_PER_BLOCK {
            block.extend_from_slice(format!("{line:063}\n").as_bytes());
            line += 1;
        }
        let length = usize::try_from(count - written).unwrap_or(usize::MAX).min(block.len());
        session.write(&session.stdout, &block[..length]).await;
        written += length as u64;
    }
    0
}

/// `count` lines, numbered from 1, with a pause after each but the last.
async fn lines(session: &Session, count: u64, pause: Duration) -> u32 {
    for line in 1..=count {
        session.print(&format!("line {line}\r\n")).await;
        if line < count {
            session.sleep(pause).await;
        }
    }
    0
}
