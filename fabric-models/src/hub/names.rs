//! Names of models, revisions and files, checked before they become part of a path or of an address.

use std::fmt;

use fabric_core::{InvalidValue, printable};

/// Longest part of a model's name; the hub allows 96 characters.
const MAX_NAME: usize = 96;

/// Longest file name that usual file systems allow.
const MAX_FILE_NAME: usize = 255;

/// Name of a model on the hub: `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelName {
    owner: String,
    name: String,
}

impl ModelName {
    /// Parses `owner/name`.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidValue> {
        // Two hyphens separate owner and name in the cache.
        let is_part = |part: &str| is_plain(part) && part.len() <= MAX_NAME && !part.contains("--");
        match text.split_once('/').filter(|(owner, name)| is_part(owner) && is_part(name)) {
            Some((owner, name)) => Ok(Self { owner: owner.to_owned(), name: name.to_owned() }),
            None => Err(InvalidValue::new(
                "name of a model on the hub",
                quoted(text),
                "`owner/name` of letters, digits, `-`, `_` and `.`",
                "copy the name from the model's page",
            )),
        }
    }

    /// Name of the model's folder in the cache.
    pub(super) fn folder_name(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Returns whether a name is a file name on every system and means the same in an address: letters, digits, `.`, `_`,
/// `-` and `+`, with neither a `.` at an end nor `..`.
pub(super) fn is_plain(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    !name.is_empty()
        && name.len() <= MAX_FILE_NAME
        && name.chars().all(is_allowed)
        && !name.starts_with(['.', '-'])
        && !name.ends_with('.')
        && !name.contains("..")
}

/// Returns whether a repository can have a file of this name. git allows neither absolute paths nor `..`. It does allow
/// `\`, which separates folders on some systems and is refused.
pub(super) fn is_possible_path(path: &str) -> bool {
    !path.contains(['\\', '\0']) && path.split('/').all(|part| !["", ".", ".."].contains(&part))
}

/// Returns whether a revision is the full hash of a commit.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// Checks the name of a branch, a tag or a commit.
pub(super) fn check_revision(revision: &str) -> Result<(), InvalidValue> {
    if revision.split('/').all(is_plain) {
        return Ok(());
    }
    Err(InvalidValue::new(
        "revision of a model",
        quoted(revision),
        "a branch, a tag or a commit such as `main`, of letters, digits, `-`, `_`, `.`, `+` and `/`",
        "copy the name from the model's page, or leave it out for `main`",
    ))
}

/// Checks the name of a variant of the weights.
pub(super) fn check_variant(variant: &str) -> Result<(), InvalidValue> {
    if !variant.is_empty() && variant.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(InvalidValue::new("variant", quoted(variant), "a word such as `fp16`", "name a variant, or none"))
}

/// Returns a name in quotes, for messages.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", printable(text))
}
