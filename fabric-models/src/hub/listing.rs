//! List of the files of a model's revision.

use std::collections::BTreeSet;

use fabric_core::InvalidValue;
use serde::Deserialize;

use super::names::{is_commit, is_possible_path, quoted};

/// Files of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    /// Hash of the commit that the revision names.
    pub(super) commit: String,
    /// Paths of all files in the repository.
    pub(super) files: BTreeSet<String>,
}

/// The fields of the hub's answer that are read.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Listing {
    /// Reads the hub's answer, which is untrusted.
    pub(super) fn parse(json: &[u8]) -> Result<Self, InvalidValue> {
        let next = "the server is not a hub, or a hostile one: check its address (the variable HF_ENDPOINT)";
        let answer: Answer = serde_json::from_slice(json).map_err(|error| {
            InvalidValue::new("listing of the model", error, "JSON with `sha` and `siblings`", next)
        })?;
        if !is_commit(&answer.sha) {
            return Err(InvalidValue::new("commit of the model", quoted(&answer.sha), "40 hexadecimal digits", next));
        }
        let files: BTreeSet<String> = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        if let Some(path) = files.iter().find(|path| !is_possible_path(path)) {
            let expected = "a path within the model's folder, without `..` and `\\`";
            return Err(InvalidValue::new("name of a file of the model", quoted(path), expected, next));
        }
        Ok(Self { commit: answer.sha, files })
    }

    /// Checks that a revision that is a commit was not replaced by another one.
    pub(super) fn of_revision(self, revision: &str) -> Result<Self, InvalidValue> {
        if !is_commit(revision) || self.commit == revision {
            return Ok(self);
        }
        let next = "the server is not a hub, or a hostile one: check its address (the variable HF_ENDPOINT)";
        Err(InvalidValue::new("commit of the model", self.commit, revision, next))
    }
}
