//! Checks of connections in front of burn's server.
//!
//! burn's server accepts every connection, of pages in a browser too, and messages of up to 1 GiB from each. So it
//! listens on a port of this machine alone, and the guard on the port that is served. The guard reads the head of each
//! connection and the lengths of its messages, and passes everything else on unread. burn's server opens sessions only
//! for connections that the guard made.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::server::WebSocketTransport;
use socket2::{SockRef, TcpKeepalive};

use super::ServeOptions;
use super::frames::{Event, Frames, Refusal};

/// Longest time in which a client sends the head of its request.
const HEAD_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// Longest pause of a client within a message. Between messages there is no limit.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(60);

/// Maximum length of the head of a request in bytes; burn's has 200.
const MAX_HEAD: usize = 8 << 10;

/// Maximum length of a request for a tensor of another server, in bytes; burn's has 20.
const MAX_TRANSFER_REQUEST: u64 = 1 << 10;

/// Longest time in which a refused client reads the reason.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);

/// Maximum number of clients at a time that are told that there are too many; others are disconnected.
const MAX_TOLD: usize = 8;

/// Pause between two looks for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Asks after a pause of ten seconds whether a client is still there, as burn does.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new().with_time(Duration::from_secs(10));

/// Addresses of the guard's own connections to burn's server.
#[derive(Clone, Default)]
pub(super) struct Admitted(Arc<Mutex<HashSet<SocketAddr>>>);

impl Admitted {
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }

    fn insert(&self, address: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
    }

    fn remove(&self, address: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }
}

/// A listener that is guarded, and the one behind it.
pub(super) struct Guard {
    /// Listener of burn's server.
    behind: TcpListener,
    shared: Arc<Shared>,
    accepting: thread::JoinHandle<()>,
}

/// State that all connections share.
struct Shared {
    behind: SocketAddr,
    admitted: Admitted,
    options: ServeOptions,
    connections: AtomicUsize,
    /// Number of clients that are being told that there are too many.
    told: AtomicUsize,
    /// Bytes of all messages that have begun and not ended.
    pending: AtomicU64,
    is_over: AtomicBool,
}

impl Guard {
    /// Starts to accept connections.
    pub(super) fn start(listener: TcpListener, options: &ServeOptions) -> io::Result<Self> {
        let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            behind: behind.local_addr()?,
            admitted: Admitted::default(),
            options: options.clone(),
            connections: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            pending: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let accepting = {
            let shared = shared.clone();
            thread::Builder::new().name("fabric-guard".into()).spawn(move || accept(&listener, &shared))?
        };
        Ok(Self { behind, shared, accepting })
    }

    pub(super) fn admitted(&self) -> Admitted {
        self.shared.admitted.clone()
    }

    /// Returns the transport for burn's server.
    pub(super) fn transport(&self) -> WebSocketTransport {
        WebSocketTransport::from_listener(self.behind.try_clone().expect("another handle of a listener"))
    }

    /// Listener of the server behind the guard.
    #[cfg(test)]
    pub(super) fn behind(&self) -> &TcpListener {
        &self.behind
    }

    /// Stops accepting connections.
    pub(super) fn stop(self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // A panic of the thread was printed already.
        let _ = self.accepting.join();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_over.load(Ordering::Relaxed) {
        // An error concerns one connection (such as one that was given up), or passes (such as too many open files).
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let connection = Place::take(shared, |shared| &shared.connections, shared.options.connections);
        let spawned = if let Some(place) = connection {
            spawn(move || pass_on(client, &place.shared))
        } else if let Some(place) = Place::take(shared, |shared| &shared.told, MAX_TOLD) {
            spawn(move || {
                let _place = place;
                refuse(client, "503 Service Unavailable", "too many connections")
            })
        } else {
            continue;
        };
        if spawned.is_err() {
            thread::sleep(ACCEPT_PAUSE);
        }
    }
}

/// Starts a thread for a client. Its errors are those of a connection, which is over.
fn spawn(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("fabric-client".into()).spawn(move || drop(work())).map(drop)
}

/// Place among those that a counter allows, which is free again on drop.
struct Place {
    shared: Arc<Shared>,
    counter: fn(&Shared) -> &AtomicUsize,
}

impl Place {
    fn take(shared: &Arc<Shared>, counter: fn(&Shared) -> &AtomicUsize, most: usize) -> Option<Self> {
        let place = Self { shared: shared.clone(), counter };
        let before = counter(shared).fetch_add(1, Ordering::Relaxed);
        (before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.counter)(&self.shared).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers with an error of HTTP, and ends the connection.
fn refuse(mut client: TcpStream, status: &str, reason: &str) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(REFUSAL_PATIENCE))?;
    let length = reason.len();
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{reason}")?;
    client.shutdown(Shutdown::Write)?;
    // A connection that is closed with unread bytes loses the answer.
    let start = Instant::now();
    let mut piece = [0; 1024];
    for _ in 0..MAX_HEAD / piece.len() {
        let left = REFUSAL_PATIENCE.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        client.set_read_timeout(Some(left))?;
        if client.read(&mut piece)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Checks a connection and passes its bytes on until it ends.
fn pass_on(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    // Some systems hand the mode of the listener on.
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    // The connection works without it.
    let _ = SockRef::from(&client).set_tcp_keepalive(&KEEPALIVE);
    let (head, rest) = read_head(&mut client)?;
    let most = match judge(&head, shared.options.message_bytes) {
        Ok(most) => most,
        Err((status, reason)) => return refuse(client, status, reason),
    };
    let mut server = TcpStream::connect(shared.behind)?;
    server.set_nodelay(true)?;
    let address = server.local_addr()?;
    shared.admitted.insert(address);
    let answers = (server.try_clone()?, client.try_clone()?);
    let answering = thread::Builder::new().name("fabric-answers".into()).spawn(move || {
        let (mut server, mut client) = answers;
        // The connection ends with an error or without one; either way the other direction is told.
        let _ = io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
    let mut pending = Pending { of: shared, bytes: 0 };
    let ended = server
        .write_all(&head)
        .and_then(|()| pass_messages(&mut client, &mut server, rest, Frames::new(most), &mut pending));
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    if let Ok(answering) = answering {
        let _ = answering.join();
    }
    shared.admitted.remove(address);
    ended
}

/// Reads the head of a request. Returns it with the bytes behind it that were read too.
fn read_head(client: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let start = Instant::now();
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let left = HEAD_PATIENCE.saturating_sub(start.elapsed());
        if left.is_zero() || head.len() > MAX_HEAD {
            return Err(io::Error::from(ErrorKind::TimedOut));
        }
        client.set_read_timeout(Some(left))?;
        let count = client.read(&mut piece)?;
        if count == 0 {
            return Err(io::Error::from(ErrorKind::UnexpectedEof));
        }
        head.extend_from_slice(&piece[..count]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = head.split_off(end + 4);
            return Ok((head, rest));
        }
    }
}

/// Returns the maximum length of the messages of a connection by the head of its request, or the answer of HTTP with
/// which it is refused.
fn judge(head: &[u8], message_bytes: u64) -> Result<u64, (&'static str, &'static str)> {
    // The guard looks for `\r\n`, but the server also takes `\n` for the end of a line: it could see the end of the head
    // elsewhere, and other messages than the guard.
    let lines_end = head.iter().filter(|byte| **byte == b'\n').count();
    if lines_end != head.windows(2).filter(|two| two == b"\r\n").count() {
        return Err(BAD_REQUEST);
    }
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let most = match lines.next().unwrap_or_default() {
        "GET /session HTTP/1.1" => message_bytes,
        // Another server asks for a tensor that a session exposed to it.
        "GET /data HTTP/1.1" => MAX_TRANSFER_REQUEST,
        _ => return Err(("404 Not Found", "this is a server of burn's remote devices")),
    };
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let values = |wanted: &str| {
        let of = |(name, value): &(&str, &str)| {
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().to_lowercase())
        };
        fields.iter().filter_map(of).collect::<Vec<_>>()
    };
    // Browsers send it with every WebSocket, and clients of burn do not.
    if !values("origin").is_empty() {
        return Err(("403 Forbidden", "web pages cannot use this device"));
    }
    // The server must take the connection for a WebSocket as the guard does, or it would read a second request where the
    // guard reads messages.
    let is_websocket = values("upgrade") == ["websocket"]
        && values("connection").iter().any(|value| value.contains("upgrade"))
        && values("connection").len() == 1
        && values("sec-websocket-version") == ["13"]
        && values("sec-websocket-key").len() == 1
        && values("content-length").is_empty()
        && values("transfer-encoding").is_empty();
    if is_websocket { Ok(most) } else { Err(BAD_REQUEST) }
}

/// Answer to a request that is no WebSocket's.
const BAD_REQUEST: (&str, &str) = ("400 Bad Request", "expected the request of a WebSocket");

/// Bytes of the messages of a connection that have not ended, which count until it does.
struct Pending<'a> {
    of: &'a Shared,
    bytes: u64,
}

impl Pending<'_> {
    fn count(&mut self, event: Event) -> Result<(), Refusal> {
        match event {
            Event::Begin(bytes) => {
                let before = self.of.pending.fetch_add(bytes, Ordering::Relaxed);
                self.bytes += bytes;
                if before.saturating_add(bytes) > self.of.options.pending_bytes {
                    return Err(Refusal::TooMuchPending);
                }
            }
            Event::End(bytes) => {
                self.of.pending.fetch_sub(bytes, Ordering::Relaxed);
                self.bytes -= bytes;
            }
        }
        Ok(())
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.of.pending.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Passes the messages of a client on. What follows a header that is refused is not passed on.
fn pass_messages(
    client: &mut TcpStream,
    server: &mut TcpStream,
    first: Vec<u8>,
    mut frames: Frames,
    pending: &mut Pending<'_>,
) -> io::Result<()> {
    let mut buffer = first;
    let mut count = buffer.len();
    loop {
        let read = frames.read(&buffer[..count], |event| pending.count(event));
        read.map_err(|refusal| io::Error::new(ErrorKind::InvalidData, format!("{refusal:?}")))?;
        server.write_all(&buffer[..count])?;
        buffer.resize(1 << 16, 0);
        let patience = if frames.is_between_messages() { None } else { Some(MESSAGE_PATIENCE) };
        client.set_read_timeout(patience)?;
        count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
    }
}
