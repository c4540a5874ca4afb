//! Requests to the hub.

use std::io::Read;
use std::time::Duration;

use fabric_core::InvalidValue;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use super::HubError;
use super::address::{Origin, redirected, without_query};
use super::listing::Listing;
use super::names::{ModelName, quoted};
use super::remote_file::{LINKED_ETAG, LINKED_SIZE, RemoteFile};
use super::token::Token;

/// Largest accepted listing. One of 10,000 files has about 1 MB.
const MAX_LISTING_BYTES: u64 = 32 << 20;

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Client of one hub. The token is sent to the hub's own address only, not to the servers that it redirects to.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Origin,
    token: Option<Token>,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(endpoint: &str, token: Option<Token>, timeout: Duration) -> Result<Self, InvalidValue> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let Some(origin) = Origin::of(&endpoint).filter(|_| !endpoint.contains(['?', '#'])) else {
            let expected = "an address such as `https://huggingface.co`";
            let next = "correct it (the variable HF_ENDPOINT), or leave it out";
            return Err(InvalidValue::new("address of the hub", quoted(&endpoint), expected, next));
        };
        token.as_ref().map_or(Ok(()), Token::check)?;
        let limit = Some(timeout);
        // Redirects are followed here, because the hub describes a file in the headers of its redirect.
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("fabric/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(limit)
            .timeout_connect(limit)
            .timeout_send_request(limit)
            .timeout_recv_response(limit)
            .timeout_per_read(limit);
        if origin.is_loopback() {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().into(), endpoint, origin, token, timeout })
    }

    /// Lists the files of a revision.
    pub(super) fn listing(&self, model: &ModelName, revision: &str) -> Result<Listing, HubError> {
        let url = format!("{}/api/models/{model}/revision/{}", self.endpoint, revision.replace('/', "%2F"));
        let answer = self.send(&Method::GET, &url, None)?;
        let mut json = Vec::new();
        let body = answer.into_body().into_reader();
        body.take(MAX_LISTING_BYTES + 1).read_to_end(&mut json).map_err(|error| self.failed(&url, error.into()))?;
        if json.len() as u64 > MAX_LISTING_BYTES {
            let expected = format!("at most {MAX_LISTING_BYTES} bytes");
            let value = InvalidValue::new("listing of the model", "more", expected, "get another model");
            return Err(HubError::Answer { url, value });
        }
        let listing = Listing::parse(&json).and_then(|listing| listing.of_revision(revision));
        listing.map_err(|value| HubError::Answer { url, value })
    }

    /// Asks for size and identifier of a file.
    pub(super) fn describe(&self, model: &ModelName, commit: &str, path: &str) -> Result<RemoteFile, HubError> {
        let url = self.file_url(model, commit, path);
        let answer = self.send(&Method::HEAD, &url, None)?;
        RemoteFile::from_answer(path, commit, &answer)
            .map_err(|value| HubError::Answer { url: without_query(&url), value })
    }

    /// Asks for the content of a file, from a byte on.
    pub(super) fn content(&self, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        self.send(&Method::GET, url, (from > 0).then_some(from))
    }

    /// Address of a file.
    pub(super) fn file_url(&self, model: &ModelName, commit: &str, path: &str) -> String {
        format!("{}/{model}/resolve/{commit}/{path}", self.endpoint)
    }

    /// Error of a connection.
    pub(super) fn failed(&self, url: &str, error: ureq::Error) -> HubError {
        let url = without_query(url);
        match error {
            ureq::Error::Timeout(_) => HubError::Timeout { url, timeout: self.timeout },
            error => HubError::Unreachable { url, source: Box::new(error) },
        }
    }

    /// Sends a request and follows redirects. A redirect that describes a file is returned to a request for the
    /// description.
    fn send(&self, method: &Method, url: &str, from: Option<u64>) -> Result<Response<Body>, HubError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send_once(method, &url, from)?;
            let status = answer.status();
            let describes = answer.headers().contains_key(LINKED_ETAG) && answer.headers().contains_key(LINKED_SIZE);
            if status.is_success() || (status.is_redirection() && *method == Method::HEAD && describes) {
                return Ok(answer);
            }
            if !status.is_redirection() {
                return Err(self.refused(&url, status.as_u16()));
            }
            let location = header(&answer, "location").unwrap_or_default();
            let Some(next) = redirected(&url, location) else {
                let expected = "an address with `https`, or with `http` from a server without `https`";
                let value = InvalidValue::new("redirect", quoted(location), expected, "use another server");
                return Err(HubError::Answer { url: without_query(&url), value });
            };
            url = next;
        }
        let expected = format!("at most {MAX_REDIRECTS} redirects");
        let value = InvalidValue::new("answer", "one more", expected, "use another server");
        Err(HubError::Answer { url: without_query(&url), value })
    }

    fn send_once(&self, method: &Method, url: &str, from: Option<u64>) -> Result<Response<Body>, HubError> {
        // Sizes and ranges are those of the uncompressed content.
        let mut request = Request::builder().method(method.clone()).uri(url).header("accept-encoding", "identity");
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(token) = &self.token
            && Origin::of(url).as_ref() == Some(&self.origin)
        {
            request = request.header("authorization", token.authorization());
        }
        let request = request.body(()).map_err(|error| self.failed(url, ureq::Error::Http(error)))?;
        self.agent.run(request).map_err(|error| self.failed(url, error))
    }

    fn refused(&self, url: &str, status: u16) -> HubError {
        let url = without_query(url);
        let token = self.token.as_ref().map_or_else(|| "no token".to_owned(), ToString::to_string);
        match status {
            401 | 403 => HubError::Denied { url, status, token },
            404 => HubError::NotFound { url, token },
            _ => HubError::Status { url, status },
        }
    }
}

/// Value of a header, if it is text.
pub(super) fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}
