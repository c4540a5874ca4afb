//! The access token.

use std::fmt;

use fabric_core::InvalidValue;

/// Access token and its origin. `Debug` shows the origin only.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    secret: String,
    origin: String,
}

impl Token {
    /// Creates a token from text that may have space around it; `None` if there is nothing else.
    pub(super) fn new(text: &str, origin: impl Into<String>) -> Option<Self> {
        let secret = text.trim();
        (!secret.is_empty()).then(|| Self { secret: secret.to_owned(), origin: origin.into() })
    }

    /// Checks that the token can be part of a request.
    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        if self.secret.chars().all(|c| c.is_ascii_graphic()) {
            return Ok(());
        }
        let got = "text with spaces or other characters";
        let next = "copy the token from the settings of your account";
        Err(InvalidValue::new(self.to_string(), got, "visible ASCII characters", next))
    }

    /// Value of the header `Authorization`.
    pub(super) fn authorization(&self) -> String {
        format!("Bearer {}", self.secret)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token from {}", self.origin)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.origin)
    }
}
