//! Addresses: the server that a URL names, and the URL that a redirect leads to.

use std::net::Ipv4Addr;

use ureq::http::Uri;

/// Server that a URL names: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    authority: String,
    host: String,
}

impl Origin {
    /// Returns the server of an absolute URL with `https` or `http`; `None` for any other text.
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str().filter(|scheme| ["https", "http"].contains(scheme))?.to_owned();
        Some(Self { scheme, authority: uri.authority()?.as_str().to_owned(), host: uri.host()?.to_owned() })
    }

    /// Returns whether the server is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let is_loopback = |address: Ipv4Addr| address.is_loopback();
        ["localhost", "[::1]"].contains(&&*self.host) || self.host.parse().is_ok_and(is_loopback)
    }
}

/// Returns the URL that a redirect from `url` leads to. `None` if the location is not a path of the same server or an
/// absolute URL, or leads from `https` to `http`.
pub(super) fn redirected(url: &str, location: &str) -> Option<String> {
    let from = Origin::of(url)?;
    let target = if location.starts_with("//") {
        format!("{}:{location}", from.scheme)
    } else if location.starts_with('/') {
        format!("{}://{}{location}", from.scheme, from.authority)
    } else {
        location.to_owned()
    };
    let to = Origin::of(&target)?;
    (from.scheme == "http" || to.scheme == "https").then_some(target)
}

/// URL for messages: without the query, which can contain a signature.
pub(super) fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}
