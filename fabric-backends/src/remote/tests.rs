use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;

/// Address of a guard with these options that serves a free port, and the guard.
fn guard(options: &ServeOptions) -> (std::net::SocketAddr, Guard) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    (address, Guard::start(listener, options).expect("a guard"))
}

fn head(path: &str, more: &str) -> Vec<u8> {
    let upgrade =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n";
    format!("GET {path} HTTP/1.1\r\nHost: gpu\r\n{upgrade}{more}\r\n").into_bytes()
}

/// Header of a message of this length, with its mask.
fn message_header(length: u32) -> Vec<u8> {
    [[0x82, 0xff, 0, 0, 0, 0].as_slice(), &length.to_be_bytes(), &[0; 4]].concat()
}

fn connect(address: std::net::SocketAddr, request: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).expect("a connection");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    client.write_all(request).expect("sent");
    client
}

/// Everything that a client gets until its connection ends.
fn answer(client: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is ended with data on its way ends with an error.
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The next connection of the guard to the server behind it.
fn behind(guard: &Guard) -> TcpStream {
    let (server, _) = guard.behind().accept().expect("a connection of the guard");
    server.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    server
}

#[test]
fn a_server_that_accepts_and_stays_silent_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let start = Instant::now();
    let error = connect_within(&url, 0, None, Duration::from_secs(1)).expect_err("nobody answers");
    assert_eq!(error, DeviceError::Silent { url: url.clone(), seconds: 1 });
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(error.to_string().contains("no answer within 1 s"), "{error}");
}

#[test]
fn bytes_of_a_session_pass_unchanged_in_both_directions() {
    let (address, guard) = guard(&ServeOptions::default());
    let request = head("/session", "");
    let message = [vec![0x82, 0x85, 1, 2, 3, 4], b"hello".to_vec()].concat();
    let mut client = connect(address, &[request.clone(), message.clone()].concat());
    let mut server = behind(&guard);
    let mut got = vec![0; request.len() + message.len()];
    server.read_exact(&mut got).expect("the request");
    assert_eq!(got, [request, message].concat());
    let place = server.peer_addr().expect("an address");
    assert!(guard.admitted().contains(place), "the guard's own connection is let in");
    assert!(!guard.admitted().contains(address), "no other one is");
    let long = vec![0x7f; 1 << 20];
    server.write_all(&long).expect("sent");
    let mut got = vec![0; long.len()];
    client.read_exact(&mut got).expect("the answer");
    assert!(got == long);
    // The end of one side is the end of the other one.
    client.shutdown(Shutdown::Both).expect("closed");
    assert_eq!(server.read(&mut got).expect("the end"), 0);
    let gone = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        !guard.admitted().contains(place)
    });
    assert!(gone, "an address that is free again is not let in");
    guard.stop();
}

#[test]
fn web_pages_and_other_requests_are_refused() {
    let (address, guard) = guard(&ServeOptions::default());
    for (request, status) in [
        (head("/session", "Origin: https://example.org\r\n"), "HTTP/1.1 403"),
        (head("/session", "oRiGiN : null\r\n"), "HTTP/1.1 403"),
        (head("/data", "Origin: http://127.0.0.1\r\n"), "HTTP/1.1 403"),
        (head("/", ""), "HTTP/1.1 404"),
        (head("/session?x", ""), "HTTP/1.1 404"),
        (b"POST /session HTTP/1.1\r\n\r\n".to_vec(), "HTTP/1.1 404"),
        (b"\xff\xfe\r\n\r\n".to_vec(), "HTTP/1.1 404"),
        // Requests in which the server could see other messages than the guard.
        (b"GET /session HTTP/1.1\r\n\r\n".to_vec(), "HTTP/1.1 400"),
        (head("/session", "Content-Length: 5\r\n"), "HTTP/1.1 400"),
        (head("/session", "Transfer-Encoding: chunked\r\n"), "HTTP/1.1 400"),
        (head("/session", "Sec-WebSocket-Version: 12\r\n"), "HTTP/1.1 400"),
        (head("/session", "X: 1\n\n\r\n"), "HTTP/1.1 400"),
        // A head that is too long, or does not end.
        (head("/session", &format!("X: {}\r\n", "x".repeat(20_000))), ""),
        (b"GET /session HTTP/1.1\r\n".to_vec(), ""),
    ] {
        let answer = answer(&mut connect(address, &request));
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert!(answer.starts_with(status) && answer.is_empty() == status.is_empty(), "{shown:?}: {answer}");
    }
    guard.behind().set_nonblocking(true).expect("a listener");
    assert!(guard.behind().accept().is_err(), "a connection reached the server");
    guard.stop();
}

#[test]
fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let (address, guard) = guard(&ServeOptions::default().with_connections(2));
    let clients = [connect(address, &head("/session", "")), connect(address, &head("/data", ""))];
    let servers = [behind(&guard), behind(&guard)];
    let refused = answer(&mut connect(address, &head("/session", "")));
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    drop(clients);
    drop(servers);
    let served = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        let mut client = connect(address, &head("/nothing", ""));
        answer(&mut client).starts_with("HTTP/1.1 404")
    });
    assert!(served, "places are not free again");
    guard.stop();
}

#[test]
fn messages_that_are_too_long_end_only_their_own_connection() {
    let options = ServeOptions::default().with_message_bytes(1000).with_pending_bytes(1500);
    let (address, guard) = guard(&options);
    // One message is too long on its own, in one connection; elsewhere two are too long together.
    let session = head("/session", "");
    let mut long = connect(address, &[session.clone(), message_header(1001)].concat());
    let mut first = connect(address, &[session.clone(), message_header(1000)].concat());
    let _servers = [behind(&guard), behind(&guard)];
    assert_eq!(answer(&mut long), "");
    let mut second = connect(address, &[session.clone(), message_header(501)].concat());
    let mut server = behind(&guard);
    assert_eq!(answer(&mut second), "");
    let mut got = Vec::new();
    let _ = server.read_to_end(&mut got);
    assert_eq!(got, session, "the header of the message was passed on");
    // A message that has ended does not count.
    first.write_all(&[0; 1000]).expect("the message");
    let passes = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        let _client = connect(address, &[session.clone(), message_header(600)].concat());
        let mut got = vec![0; session.len() + 14];
        behind(&guard).read_exact(&mut got).is_ok()
    });
    assert!(passes, "a finished message still counts");
    first.write_all(&message_header(10)).expect("the first connection goes on");
    // A request for a tensor of another server is short.
    let mut transfer = connect(address, &[head("/data", ""), message_header(1025)].concat());
    let _server = behind(&guard);
    assert_eq!(answer(&mut transfer), "");
    guard.stop();
}

#[test]
fn no_message_about_a_device_commands_the_terminal() {
    let text = || "\u{1b}[2J\nerror: all is well\u{202e}".repeat(1000);
    let errors = [
        DeviceError::Unknown { name: text() },
        DeviceError::NotAnswering { kind: crate::DeviceKind::Cuda(0), message: text() },
        DeviceError::Isa { got: text() },
        DeviceError::Matmul { got: text() },
        DeviceError::Unreachable { url: text(), message: text() },
        DeviceError::Silent { url: text(), seconds: 1 },
        DeviceError::NotServed { address: text(), message: text() },
    ];
    for error in errors.map(|error| error.to_string()) {
        assert!(!error.chars().any(crate::printable_text::is_hidden) && error.len() < 2000, "{error:.300?}");
    }
}

#[test]
fn a_token_is_not_in_what_is_printed() {
    let options = ServeOptions::default().with_token("open sesame");
    assert!(!format!("{options:?}").contains("sesame"), "{options:?}");
}
