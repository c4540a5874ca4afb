//! A bad input with its right outcome.

use std::fmt::Display;
use std::fs;
use std::path::Path;

/// Result of trying an input: accepted, or the message of the error.
pub(crate) type Outcome = Result<(), String>;

/// The right outcome of an input.
pub(crate) enum Expected {
    /// An error whose message has all of these words.
    Refused(Vec<String>),
    /// The input is accepted, and the documented fallback with this description acts. The case checks that itself.
    FallsBack(String),
}

/// A bad input with its right outcome.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) expected: Expected,
    /// Writes the input to an empty folder. Neither its time nor its memory counts.
    pub(crate) prepare: Box<dyn FnOnce(&Path)>,
    /// Reads or uses the input.
    pub(crate) run: Box<dyn FnOnce(&Path) -> Outcome>,
}

impl Case {
    /// Creates a case that must end with an error whose message has all of these words.
    pub(crate) fn refused(
        name: impl Into<String>,
        words: &[&str],
        prepare: impl FnOnce(&Path) + 'static,
        run: impl FnOnce(&Path) -> Outcome + 'static,
    ) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { name: name.into(), expected: Expected::Refused(words), prepare: Box::new(prepare), run: Box::new(run) }
    }

    /// Creates a case that must be accepted with this fallback; `run` returns an error if the fallback did not act.
    pub(crate) fn falls_back(
        name: impl Into<String>,
        to: impl Into<String>,
        prepare: impl FnOnce(&Path) + 'static,
        run: impl FnOnce(&Path) -> Outcome + 'static,
    ) -> Self {
        let expected = Expected::FallsBack(to.into());
        Self { name: name.into(), expected, prepare: Box::new(prepare), run: Box::new(run) }
    }
}

/// Returns the message of a typed error.
pub(crate) fn said<T, E: std::error::Error>(result: Result<T, E>) -> Outcome {
    result.map(drop).map_err(|error| error.to_string())
}

/// Checks that a fallback acted; `got` describes what happened instead.
pub(crate) fn check(holds: bool, got: impl Display) -> Outcome {
    if holds { Ok(()) } else { Err(got.to_string()) }
}

/// Prepares nothing.
pub(crate) fn nothing(_: &Path) {}

/// Prepares one file with these bytes.
pub(crate) fn file(name: &'static str, bytes: Vec<u8>) -> impl FnOnce(&Path) + 'static {
    move |place: &Path| fs::write(place.join(name), bytes).expect("a written file")
}

/// Prepares a file that begins with these bytes and continues with zeros up to a length. On most file systems it takes
/// no room.
pub(crate) fn sparse_file(name: &'static str, bytes: Vec<u8>, length: u64) -> impl FnOnce(&Path) + 'static {
    move |place: &Path| {
        fs::write(place.join(name), bytes).expect("a written file");
        let file = fs::OpenOptions::new().write(true).open(place.join(name)).expect("the file");
        file.set_len(length).expect("a longer file");
    }
}
