//! Server on this machine that speaks the hub's protocol, with the faults of networks and of hostile servers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::repository::{MODEL, Repository};

/// Commit that the branch `main` names.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Name of the listing in [`HubServer::set_fault`] and [`Served::path`].
pub(crate) const LISTING: &str = "the listing";

/// Fault in the answers for one path.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection is closed after so many bytes of the content.
    Cut(usize),
    /// Nothing follows after so many bytes of the content.
    Hang(usize),
    /// There is no answer, not even a status.
    Silence,
    /// The request is refused with this status.
    Status(u16),
    /// Another size is announced.
    Size(usize),
    /// Another `ETag` is announced.
    Etag(String),
    /// Another commit is named.
    Commit(String),
    /// The whole content is sent, whatever range was asked for.
    NoRanges,
    /// Another server has the content: this is its address.
    Redirect(String),
    /// Another listing is sent.
    Text(String),
}

/// Request that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) method: String,
    /// Path of the file, or [`LISTING`].
    pub(crate) path: String,
    /// Value of the header `Authorization`.
    pub(crate) authorization: Option<String>,
    /// Bytes of the content that were sent.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
struct State {
    files: Repository,
    faults: Mutex<BTreeMap<String, Fault>>,
    served: Mutex<Vec<Served>>,
    stopped: AtomicBool,
}

/// Server of one model, which stops when it is dropped.
#[derive(Debug)]
pub(crate) struct HubServer {
    address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

impl HubServer {
    pub(crate) fn start(files: Repository) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (faults, served) = (Mutex::default(), Mutex::default());
        let state = Arc::new(State { files, faults, served, stopped: AtomicBool::new(false) });
        let shared = Arc::clone(&state);
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&shared);
                // A client may close the connection early.
                thread::spawn(move || drop(stream.and_then(|stream| state.answer(stream))));
            }
        });
        Self { address, state, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the fault of a file or of the listing.
    pub(crate) fn set_fault(&self, path: &str, fault: Fault) {
        lock(&self.state.faults).insert(path.to_owned(), fault);
    }

    /// Removes all faults.
    pub(crate) fn heal(&self) {
        lock(&self.state.faults).clear();
    }

    /// Returns the answered requests, and forgets them.
    pub(crate) fn take_served(&self) -> Vec<Served> {
        std::mem::take(&mut *lock(&self.state.served))
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // The thread waits for a connection.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

/// Request of a client.
#[derive(Debug)]
struct Request {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    fn read(stream: &TcpStream) -> std::io::Result<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let mut words = first.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Ok(Self { method, target, headers })
    }

    /// First byte of the requested range.
    fn start(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

impl State {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = Request::read(&stream)?;
        let target = request.target.split('?').next().unwrap_or_default();
        let listing = format!("/api/models/{MODEL}/revision/");
        let file = format!("/{MODEL}/resolve/{COMMIT}/");
        if let Some(revision) = target.strip_prefix(&listing) {
            let known = ["main", "refs%2Fpr%2F1", COMMIT].contains(&revision);
            self.answer_listing(&request, known, stream)
        } else if let Some(path) = target.strip_prefix(&file) {
            self.answer_file(&request, path, stream)
        } else {
            self.send(&request, target, 404, &[], b"", stream)
        }
    }

    fn answer_listing(&self, request: &Request, known: bool, stream: TcpStream) -> std::io::Result<()> {
        let files: Vec<Value> = self.files.keys().map(|path| json!({ "rfilename": path })).collect();
        let text = match self.fault(LISTING) {
            Some(Fault::Text(text)) => text,
            _ => json!({ "id": MODEL, "sha": COMMIT, "siblings": files }).to_string(),
        };
        self.send(request, LISTING, if known { 200 } else { 404 }, &[], text.as_bytes(), stream)
    }

    fn answer_file(&self, request: &Request, path: &str, stream: TcpStream) -> std::io::Result<()> {
        let Some(content) = self.files.get(path) else {
            return self.send(request, path, 404, &[], b"", stream);
        };
        let fault = self.fault(path);
        let etag = match &fault {
            Some(Fault::Etag(etag)) => etag.clone(),
            _ => etag(path, content),
        };
        let size = if let Some(Fault::Size(size)) = fault { size } else { content.len() };
        let commit = if let Some(Fault::Commit(commit)) = &fault { commit.as_str() } else { COMMIT };
        let mut headers = vec![
            ("X-Repo-Commit", commit.to_owned()),
            ("X-Linked-Size", size.to_string()),
            ("X-Linked-Etag", format!("\"{etag}\"")),
            ("Accept-Ranges", "bytes".to_owned()),
        ];
        if let Some(Fault::Redirect(server)) = &fault {
            headers.push(("Location", format!("{server}/{MODEL}/resolve/{COMMIT}/{path}?signature=1")));
            return self.send(request, path, 302, &headers, b"", stream);
        }
        headers.push(("ETag", format!("W/\"{etag}\"")));
        match request.start().filter(|_| !matches!(fault, Some(Fault::NoRanges))) {
            Some(start) if start < content.len() => {
                let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                headers.push(("Content-Range", range));
                self.send(request, path, 206, &headers, &content[start..], stream)
            }
            _ => self.send(request, path, 200, &headers, content, stream),
        }
    }

    /// Sends an answer, with the fault of this path.
    fn send(
        &self,
        request: &Request,
        path: &str,
        status: u16,
        headers: &[(&str, String)],
        content: &[u8],
        mut stream: TcpStream,
    ) -> std::io::Result<()> {
        let fault = self.fault(path);
        let status = if let Some(Fault::Status(status)) = fault { status } else { status };
        let sent = match fault {
            Some(Fault::Cut(bytes) | Fault::Hang(bytes)) => bytes.min(content.len()),
            _ => content.len(),
        };
        let sent = if request.method == "HEAD" { 0 } else { sent };
        lock(&self.served).push(Served {
            method: request.method.clone(),
            path: path.to_owned(),
            authorization: request.headers.get("authorization").cloned(),
            bytes: sent,
        });
        if !matches!(fault, Some(Fault::Silence)) {
            let mut head = format!("HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n", content.len());
            headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
            stream.write_all(&content[..sent])?;
            stream.flush()?;
        }
        let hangs = match fault {
            Some(Fault::Silence) => true,
            Some(Fault::Hang(_)) => request.method == "GET",
            _ => false,
        };
        while hangs && !self.stopped.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn fault(&self, path: &str) -> Option<Fault> {
        lock(&self.faults).get(path).cloned()
    }
}

/// Identifier of a content: the SHA-256 of weights, and a shorter one for other files.
pub(crate) fn etag(path: &str, content: &[u8]) -> String {
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    let is_large = [".safetensors", ".bin"].iter().any(|extension| path.ends_with(extension));
    if is_large { digest } else { digest[..40].to_owned() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
