//! Devices of other machines, over burn's remote protocol on WebSocket.

mod frames;
mod guard;

use std::fmt;
use std::net::TcpListener;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use burn::tensor::Device;
use burn::tensor::remote::RemoteHost;
use burn::tensor::server::{AuthorizationRequest, ClientId, PeerAuthorizer, RemoteServer, TokenAuthorizer};

use self::guard::{Admitted, Guard};
use crate::DeviceError;

/// Environment variable with the token that a client presents to the servers of its remote devices.
pub(crate) const TOKEN_VARIABLE: &str = "FABRIC_REMOTE_TOKEN";

/// Longest time for connecting to a device. burn tries for 16 seconds to reach a server that has just
/// been started.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// Connects to a device of the server at `url`, with the token of [`TOKEN_VARIABLE`] if there is one.
pub(crate) fn connect(url: &str, index: usize) -> Result<Device, DeviceError> {
    connect_within(url, index, std::env::var(TOKEN_VARIABLE).ok().as_deref(), CONNECT_PATIENCE)
}

/// Returns a device of another machine, whose server needs this token ([`ServeOptions::with_token`]).
///
/// [`device`](crate::device) takes the token from the environment variable `FABRIC_REMOTE_TOKEN` instead.
///
/// # Errors
///
/// Returns an error if the server cannot be reached, refuses the token, or does not answer within 30 seconds.
pub fn remote_device(url: &str, index: usize, token: &str) -> Result<Device, DeviceError> {
    connect_within(url, index, Some(token), CONNECT_PATIENCE)
}

fn connect_within(url: &str, index: usize, token: Option<&str>, patience: Duration) -> Result<Device, DeviceError> {
    let unreachable = |message: String| DeviceError::Unreachable { url: url.to_owned(), message };
    let mut host = RemoteHost::websocket(url);
    if let Some(token) = token {
        host = host.with_credential(token);
    }
    // A server that accepts the connection and then stays silent would block this thread for ever.
    let (sender, answer) = mpsc::channel();
    let connect = move || {
        let connected = Device::remote_options(&host).device_index(index).init();
        // Nobody waits any more if the time is over.
        let _ = sender.send(connected.map_err(|error| error.to_string()));
    };
    thread::Builder::new().name("fabric-connect".into()).spawn(connect).map_err(|e| unreachable(e.to_string()))?;
    match answer.recv_timeout(patience) {
        Ok(connected) => connected.map_err(unreachable),
        Err(RecvTimeoutError::Timeout) => Err(DeviceError::Silent { url: url.to_owned(), seconds: patience.as_secs() }),
        Err(RecvTimeoutError::Disconnected) => Err(unreachable("the connection panicked".to_owned())),
    }
}

/// Limits of a server, and the token that its clients need.
///
/// ```
/// let options = fabric_backends::ServeOptions::default().with_token("a secret").with_connections(4);
/// ```
#[derive(Clone)]
pub struct ServeOptions {
    token: Option<String>,
    connections: usize,
    message_bytes: u64,
    pending_bytes: u64,
}

impl Default for ServeOptions {
    /// No token, 32 connections, messages of up to 512 MiB, and 1 GiB of unfinished messages.
    fn default() -> Self {
        Self { token: None, connections: 32, message_bytes: 512 << 20, pending_bytes: 1 << 30 }
    }
}

impl fmt::Debug for ServeOptions {
    // Without the token, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions")
            .field("needs_token", &self.token.is_some())
            .field("connections", &self.connections)
            .field("message_bytes", &self.message_bytes)
            .field("pending_bytes", &self.pending_bytes)
            .finish()
    }
}

impl ServeOptions {
    /// Serves only clients that present this token; they take it from the environment variable `FABRIC_REMOTE_TOKEN`.
    /// The token is not encrypted on its way.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets the maximum number of connections at a time. A client has one for each of its devices.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the maximum length of a message from a client in bytes. The longest messages carry a tensor of weights.
    #[must_use]
    pub fn with_message_bytes(mut self, bytes: u64) -> Self {
        self.message_bytes = bytes;
        self
    }

    /// Sets the maximum length of all messages together that clients have begun and not finished, in bytes.
    #[must_use]
    pub fn with_pending_bytes(mut self, bytes: u64) -> Self {
        self.pending_bytes = bytes;
        self
    }
}

/// Serves a device to other machines with the default [`ServeOptions`]; see [`serve_with`].
///
/// # Errors
///
/// Returns an error if the listener cannot be used.
pub fn serve(device: &Device, listener: TcpListener) -> Result<(), DeviceError> {
    serve_with(device, listener, &ServeOptions::default())
}

/// Serves a device to other machines, until the process is asked to end (Ctrl+C, SIGTERM).
///
/// Connections are not encrypted, and without a token everyone who can reach the listener can compute on the device:
/// listen only where trusted machines can connect (`127.0.0.1`, a private network, a tunnel). A client that is let in
/// can use all memory of the device and of this process, which ends if there is none left. burn's own `RemoteServer`
/// with Iroh encrypts connections, and its devices work with this library as well.
///
/// Connections of web pages are refused (they have an `Origin`), and so are those beyond the limits of `options`. A
/// client that does not say within ten seconds what it wants is disconnected, and one that stops within a message
/// after a minute.
///
/// ```no_run
/// use fabric_backends::{ServeOptions, default_device, serve_with};
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:3000")?;
/// serve_with(&default_device()?, listener, &ServeOptions::default().with_token("a secret"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error if the listener cannot be used, or the token is empty.
pub fn serve_with(device: &Device, listener: TcpListener, options: &ServeOptions) -> Result<(), DeviceError> {
    let address = listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
    let not_served = |message: String| DeviceError::NotServed { address: address.clone(), message };
    let token = options.token.as_deref().map(TokenAuthorizer::new).transpose();
    let token = token.map_err(|error| not_served(error.to_string()))?;
    let guard = Guard::start(listener, options).map_err(|error| not_served(error.to_string()))?;
    let server = RemoteServer::new([device.clone()]);
    let server = server.with_authorizer(Authorizer { token, admitted: guard.admitted() });
    let served = server.serve(guard.transport());
    guard.stop();
    served.map_err(|error| not_served(error.to_string()))
}

/// Opens the sessions of clients that came through the guard and present the token.
struct Authorizer {
    token: Option<TokenAuthorizer>,
    admitted: Admitted,
}

impl PeerAuthorizer for Authorizer {
    fn authorize(&self, request: AuthorizationRequest<'_>) -> Result<(), String> {
        match request.client {
            ClientId::WebSocket(address) if self.admitted.contains(address) => {}
            other => return Err(format!("{other} did not come through the port that is served")),
        }
        self.token.as_ref().map_or(Ok(()), |token| token.authorize(request))
    }
}

#[cfg(test)]
mod tests;
