//! Devices of other machines, over burn's remote protocol on WebSocket.

use std::net::TcpListener;

use burn::tensor::Device;
use burn::tensor::remote::RemoteHost;
use burn::tensor::server::{RemoteServer, WebSocketTransport};

use crate::DeviceError;

/// Connects to a device of the server at `url`.
pub(crate) fn connect(url: &str, index: usize) -> Result<Device, DeviceError> {
    let unreachable =
        |error: &dyn std::fmt::Display| DeviceError::Unreachable { url: url.to_owned(), message: error.to_string() };
    Device::remote_options(&RemoteHost::websocket(url)).device_index(index).init().map_err(|error| unreachable(&error))
}

/// Serves a device to other machines, until the process is asked to end (Ctrl+C, SIGTERM).
///
/// Anyone who can reach the listener can compute on the device: connections are neither encrypted nor
/// authenticated, so listen only where trusted machines can connect (`127.0.0.1`, a private network, a tunnel).
/// burn's own `RemoteServer` with Iroh provides both, and its devices work with this library as well.
///
/// ```no_run
/// let listener = std::net::TcpListener::bind("127.0.0.1:3000")?;
/// fabric_backends::serve(&fabric_backends::default_device()?, listener)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns an error if the listener cannot be used.
pub fn serve(device: &Device, listener: TcpListener) -> Result<(), DeviceError> {
    let address = listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
    RemoteServer::new([device.clone()])
        .serve(WebSocketTransport::from_listener(listener))
        .map_err(|error| DeviceError::NotServed { address, message: error.to_string() })
}
