//! Rules of access: programs and pages of this machine, or all who know the token.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};
use fabric::core::InvalidValue;
use sha2::{Digest, Sha256};

use crate::StudioError;

/// Name of the cookie that holds the token.
pub(crate) const COOKIE: &str = "studio_token";

/// Rules of access to a server.
///
/// Without a token, requests must name this machine as their host, so that a page of another site cannot reach the
/// server under a name of its own (DNS rebinding). With a token, every request must have it.
#[derive(Debug, Clone)]
pub struct Access {
    /// Names of the server, with the port.
    hosts: Vec<String>,
    token: Option<Token>,
}

/// SHA-256 of the secret text that requests must have.
#[derive(Debug, Clone)]
pub(crate) struct Token([u8; 32]);

impl Access {
    /// Creates the rules of a server that listens at this address.
    ///
    /// # Errors
    ///
    /// Returns an error if the address can be reached from other machines and there is no token, or if the token cannot
    /// be part of an address or a cookie.
    pub fn new(address: SocketAddr, token: Option<&str>) -> Result<Self, StudioError> {
        if token.is_none() && !address.ip().is_loopback() {
            let expected = "an address of this machine alone, such as 127.0.0.1, or a token besides";
            let help = "give --token with a secret text, or leave --listen out";
            return Err(InvalidValue::new("--listen", address.ip(), expected, help).into());
        }
        let own = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), "[::1]".to_owned()];
        if !names.contains(&own) {
            names.push(own);
        }
        let port = address.port();
        let mut hosts: Vec<String> = names.iter().map(|name| format!("{name}:{port}")).collect();
        // Browsers leave out the usual port.
        if port == 80 {
            hosts.extend(names);
        }
        Ok(Self { hosts, token: token.map(Token::new).transpose()? })
    }

    pub(crate) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Whether this is a name of the server.
    pub(crate) fn is_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    pub(crate) fn hosts(&self) -> String {
        self.hosts.join(", ")
    }
}

impl Token {
    fn new(text: &str) -> Result<Self, InvalidValue> {
        let is_usable = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if !text.is_empty() && text.bytes().all(is_usable) {
            return Ok(Self(Sha256::digest(text).into()));
        }
        // The token itself is a secret.
        let got = if text.is_empty() { "nothing" } else { "other characters" };
        let expected = "letters, digits, `-`, `.`, `_` and `~`";
        Err(InvalidValue::new("--token", got, expected, "make one with `openssl rand -hex 16`"))
    }

    /// Whether a text is the token. The time that it takes tells nothing about the token, because hashes are compared.
    pub(crate) fn is(&self, text: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(text).into();
        self.0.iter().zip(given).fold(0, |difference, (own, given)| difference | (own ^ given)) == 0
    }

    /// Whether a request has the token, as `Authorization: Bearer TOKEN` or as a cookie.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let texts = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let bearer = texts(header::AUTHORIZATION).filter_map(|text| text.strip_prefix("Bearer "));
        let cookies = texts(header::COOKIE).flat_map(|text| text.split(';'));
        let cookies = cookies.filter_map(|text| text.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        bearer.chain(cookies).any(|text| self.is(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: &str, token: Option<&str>) -> Result<Access, StudioError> {
        Access::new(address.parse().expect("an address"), token)
    }

    #[test]
    fn an_address_for_other_machines_needs_a_token() {
        for address in ["0.0.0.0:7860", "192.168.0.7:7860", "[::]:7860"] {
            let message = access(address, None).expect_err("no token").to_string();
            assert!(message.starts_with("--listen: expected") && message.contains("--token"), "{message}");
            assert!(access(address, Some("s3cret")).is_ok());
        }
        for address in ["127.0.0.1:7860", "127.0.0.2:7860", "[::1]:7860"] {
            assert!(access(address, None).is_ok(), "{address}");
        }
    }

    #[test]
    fn the_server_has_each_of_its_names_once_and_at_the_usual_port_without_it_too() {
        let hosts = |address: &str| access(address, None).expect("no token is needed").hosts();
        assert_eq!(hosts("127.0.0.1:7860"), "127.0.0.1:7860, localhost:7860, [::1]:7860");
        let access = access("127.0.0.2:80", None).expect("no token is needed");
        for host in ["127.0.0.2", "127.0.0.2:80", "localhost", "[::1]"] {
            assert!(access.is_host(host), "{host}");
        }
        assert!(!access.is_host("127.0.0.3") && !access.is_host("") && !access.is_host(":80"));
    }

    #[test]
    fn a_token_that_a_cookie_cannot_hold_is_refused_and_not_shown() {
        for token in ["", "a b", "se;cret", "pässword", "a\r\nSet-Cookie: b"] {
            let message = access("127.0.0.1:7860", Some(token)).expect_err("no token").to_string();
            assert!(message.starts_with("--token: expected"), "{message}");
            assert!(token.is_empty() || !message.contains(token), "{message}");
        }
    }

    #[test]
    fn the_token_is_found_in_either_header_and_nowhere_else() {
        let access = access("127.0.0.1:7860", Some("s3cret")).expect("a token");
        let has = |name: header::HeaderName, value: &str| {
            let headers = HeaderMap::from_iter([(name, value.parse().expect("a header"))]);
            access.token().expect("the token").is_in(&headers)
        };
        assert!(has(header::AUTHORIZATION, "Bearer s3cret"));
        assert!(has(header::COOKIE, "a=b; studio_token=s3cret;c=d"));
        for value in ["s3cret", "Bearer s3cre", "Bearer s3cret2", "Bearer ", "Basic s3cret"] {
            assert!(!has(header::AUTHORIZATION, value), "{value}");
        }
        for value in ["studio_token=", "token=s3cret", "studio_tokens3cret", "x=studio_token=s3cret"] {
            assert!(!has(header::COOKIE, value), "{value}");
        }
    }
}
