//! The fault proxy does what it is told: a test of the tests.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lictor_tests::{Cut, Direction, Proxy, eventually};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come for "nothing" to be believed.
const NOTHING: Duration = Duration::from_millis(200);

/// A proxy with one connection through it: the client's end and the server's.
fn pair() -> Result<(Proxy, TcpStream, TcpStream, TcpListener)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let proxy = Proxy::start(listener.local_addr()?)?;
    let client = TcpStream::connect(proxy.address())?;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_nodelay(true)?;
    }
    Ok((proxy, client, server, listener))
}

fn says(from: &mut TcpStream, to: &mut TcpStream, words: &[u8]) -> Result<()> {
    from.write_all(words)?;
    let mut heard = vec![0; words.len()];
    to.read_exact(&mut heard)?;
    assert_eq!(heard, words);
    Ok(())
}

fn hears_nothing(end: &mut TcpStream) -> Result<()> {
    end.set_read_timeout(Some(NOTHING))?;
    let read = end.read(&mut [0; 10]);
    end.set_read_timeout(Some(PATIENCE))?;
    let error = read.err().context("something came")?;
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    Ok(())
}

fn is_reset(end: &mut TcpStream) {
    assert_eq!(end.read(&mut [0; 10]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[test]
fn both_ways_pass_until_either_side_is_done() -> Result<()> {
    let (proxy, mut client, mut server, _listener) = pair()?;
    says(&mut client, &mut server, b"question")?;
    says(&mut server, &mut client, b"answer")?;
    client.shutdown(Shutdown::Write)?;
    assert_eq!(server.read(&mut [0; 10])?, 0);
    says(&mut server, &mut client, b"the other way goes on")?;
    drop(server);
    assert_eq!(client.read(&mut [0; 10])?, 0);
    eventually("it is over", PATIENCE, || {
        anyhow::ensure!(proxy.open() == 0 && proxy.accepted() == 1);
        Ok(())
    })
}

#[test]
fn a_cut_ends_what_is_open_and_nothing_else() -> Result<()> {
    for how in [Cut::Close, Cut::Reset] {
        let (proxy, mut client, mut server, listener) = pair()?;
        says(&mut client, &mut server, b"1")?;
        proxy.cut(how);
        match how {
            Cut::Close => assert_eq!((client.read(&mut [0; 10])?, server.read(&mut [0; 10])?), (0, 0)),
            Cut::Reset => [&mut client, &mut server].into_iter().for_each(is_reset),
        }
        let mut client = TcpStream::connect(proxy.address())?;
        let (mut server, _) = listener.accept()?;
        says(&mut client, &mut server, b"2")?;
    }
    Ok(())
}

#[test]
fn a_cut_after_some_bytes_lets_just_those_pass() -> Result<()> {
    let (proxy, mut client, mut server, _listener) = pair()?;
    proxy.cut_after(Direction::Down, 7, Cut::Close);
    says(&mut client, &mut server, b"up does not count")?;
    server.write_all(b"123")?;
    server.write_all(b"456789")?;
    let mut heard = Vec::new();
    client.read_to_end(&mut heard)?;
    assert_eq!(heard, b"1234567");
    Ok(())
}

#[test]
fn a_stall_holds_one_way_and_loses_nothing() -> Result<()> {
    let (proxy, mut client, mut server, _listener) = pair()?;
    proxy.stall(Direction::Up, true);
    client.write_all(b"held")?;
    hears_nothing(&mut server)?;
    says(&mut server, &mut client, b"passes")?;
    proxy.stall(Direction::Up, false);
    let mut heard = [0; 4];
    server.read_exact(&mut heard)?;
    assert_eq!(&heard, b"held");
    // A cut gets through to a stalled connection.
    proxy.stall(Direction::Up, true);
    proxy.cut(Cut::Reset);
    is_reset(&mut client);
    Ok(())
}

#[test]
fn a_black_hole_takes_everything_and_ends_with_a_reset() -> Result<()> {
    let (proxy, mut client, mut server, _listener) = pair()?;
    proxy.black_hole(true);
    client.write_all(b"lost")?;
    server.write_all(b"lost")?;
    hears_nothing(&mut client)?;
    hears_nothing(&mut server)?;
    proxy.heal();
    is_reset(&mut client);
    is_reset(&mut server);
    Ok(())
}

#[test]
fn refusing_meets_new_connections_and_leaves_open_ones_alone() -> Result<()> {
    let (proxy, mut client, mut server, listener) = pair()?;
    proxy.refuse(true);
    let mut refused = TcpStream::connect(proxy.address())?;
    refused.set_read_timeout(Some(PATIENCE))?;
    is_reset(&mut refused);
    says(&mut client, &mut server, b"goes on")?;
    proxy.heal();
    let mut client = TcpStream::connect(proxy.address())?;
    let (mut server, _) = listener.accept()?;
    says(&mut client, &mut server, b"again")
}

#[test]
fn half_a_connection_goes_on() -> Result<()> {
    let (proxy, mut client, mut server, _listener) = pair()?;
    says(&mut client, &mut server, b"1")?;
    proxy.half_close(Direction::Up);
    assert_eq!(server.read(&mut [0; 10])?, 0);
    says(&mut server, &mut client, b"2")
}

#[test]
fn a_delay_holds_every_piece() -> Result<()> {
    let (proxy, mut client, mut server, _listener) = pair()?;
    proxy.delay(Duration::from_secs(3600));
    // The order holds for what is read from now on.
    eventually("the delay holds", PATIENCE, || {
        client.write_all(b"x")?;
        hears_nothing(&mut server)
    })
}
