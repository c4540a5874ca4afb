//! Settings from the environment variables that all tools of the hub use.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use fabric_core::InvalidValue;

use super::HubError;
use super::token::Token;
use crate::load::LoadError;

/// Settings that the environment gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Environment {
    /// `HF_ENDPOINT`.
    pub(super) endpoint: Option<String>,
    /// `HF_HUB_CACHE`, or the folder `hub` in `HF_HOME`; by default in the home folder's `.cache/huggingface`.
    pub(super) cache: Option<PathBuf>,
    /// `HF_TOKEN`, or the content of the file `HF_TOKEN_PATH`; by default the file `token` beside the folder `hub`.
    pub(super) token: Option<Token>,
    /// Whether `HF_HUB_OFFLINE` is set.
    pub(super) offline: bool,
}

impl Environment {
    /// Reads the variables of this process.
    pub(super) fn read() -> Result<Self, HubError> {
        fn variable(name: &str) -> Option<OsString> {
            std::env::var_os(name)
        }
        Self::from_variables(variable, std::env::home_dir())
    }

    /// Reads variables by name. An empty variable counts as absent.
    pub(super) fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| given(name).map(PathBuf::from);
        let text = |name: &str| {
            let utf8 = |value: OsString| {
                let invalid = |_| InvalidValue::new(name, "other bytes", "text in UTF-8", "set the variable again");
                value.into_string().map_err(invalid)
            };
            given(name).map(utf8).transpose()
        };
        let caches = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
        let hub_home = path("HF_HOME").or_else(|| caches.map(|caches| caches.join("huggingface")));
        let in_home = |name: &str| hub_home.as_ref().map(|folder| folder.join(name));
        let token = match text("HF_TOKEN")?.and_then(|text| Token::new(&text, "HF_TOKEN")) {
            None => path("HF_TOKEN_PATH").or_else(|| in_home("token")).map(token_in).transpose()?.flatten(),
            token => token,
        };
        let is_true = |value: String| ["1", "true", "yes", "on"].contains(&&*value.to_ascii_lowercase());
        Ok(Self {
            endpoint: text("HF_ENDPOINT")?,
            cache: path("HF_HUB_CACHE").or_else(|| in_home("hub")),
            token,
            offline: text("HF_HUB_OFFLINE")?.is_some_and(is_true),
        })
    }
}

/// Reads the token of a file; `None` if there is no such file.
fn token_in(path: PathBuf) -> Result<Option<Token>, LoadError> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Token::new(&text, format!("the file {}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LoadError::io(&path, "read the token", error)),
    }
}
