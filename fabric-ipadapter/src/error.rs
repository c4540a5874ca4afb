//! Error type of this crate.

use fabric_core::{InvalidValue, printable_value};
use fabric_models::load::LoadError;
use fabric_models::lora::LoraError;

/// Error when an adapter cannot be loaded or used.
///
/// Each message says what failed and where, what was expected, what was found, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The tensors of a file are not those of an adapter.
    #[error(
        "{place}: {what}: expected {expected}, got {got}; is this an IP-Adapter? get the file again, or another one",
        place = printable_value(.place),
        what = printable_value(.what),
        expected = printable_value(.expected),
        got = printable_value(.got)
    )]
    NotAnAdapter {
        /// The file.
        place: String,
        /// The part of it that is wrong.
        what: String,
        /// The value that was found.
        got: String,
        /// The value that was expected.
        expected: String,
    },
    /// Adapter, image encoder and U-Net do not fit together.
    #[error("{adapter} does not fit: {value}", adapter = printable_value(.adapter))]
    Unfit {
        /// Description of the adapter.
        adapter: String,
        /// The part that does not fit.
        value: InvalidValue,
    },
    /// A setting has an invalid value.
    #[error(transparent)]
    Setting(#[from] InvalidValue),
    /// The weights cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The LoRA of a FaceID file does not fit.
    #[error(transparent)]
    Lora(#[from] LoraError),
}

impl From<AdapterError> for fabric_core::Error {
    fn from(error: AdapterError) -> Self {
        Self::Model(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that a file may contain: commands to a terminal, a forged line, reversed text, and far too long ones.
    fn hostile_texts() -> [String; 5] {
        [
            "\u{1b}[2J\u{1b}]0;title\u{7}\0".to_owned(),
            "a\r\nerror: all is well\n".to_owned(),
            "safe\u{202e}gpj.exe\u{9b}31m\u{2028}".to_owned(),
            "\u{1b}".repeat(1 << 20),
            "é".repeat(1 << 20),
        ]
    }

    /// Asserts that a message is one line without characters that a terminal would execute, of at most about 1000
    /// bytes.
    #[track_caller]
    fn assert_printable(message: &str) {
        let is_executed = |letter: char| letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}');
        assert!(!message.contains(is_executed), "{message:?}");
        assert!(message.len() < 1100, "{} bytes: {message:.200}", message.len());
    }

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let refused = |place: &str, what: &str, got: &str, expected: &str| AdapterError::NotAnAdapter {
                place: place.to_owned(),
                what: what.to_owned(),
                got: got.to_owned(),
                expected: expected.to_owned(),
            };
            let value = |what: &str, got: &str| InvalidValue::new(what, got, "a number", "get it again");
            let errors = [
                refused(&text, "a matrix", "none", "one"),
                refused("x.bin", &text, "none", "one"),
                refused("x.bin", "a matrix", &text, "one"),
                refused("x.bin", "a matrix", "none", &text),
                AdapterError::Unfit { adapter: "a plus adapter".to_owned(), value: value("U-Net", &text) },
                AdapterError::Unfit { adapter: text.clone(), value: value("U-Net", "1") },
                AdapterError::Setting(value(&text, "1")),
                AdapterError::Load(LoadError::NoSuchTensor { place: "x.bin".to_owned(), tensor: text.clone() }),
                AdapterError::Lora(LoraError::Scale { place: text.clone(), scale: f32::NAN }),
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
            let scales = crate::LayerScales::from_json(&format!("[{}]", serde_json::json!(text)));
            assert_printable(&scales.expect_err("a list of texts").to_string());
        }
    }

    #[cfg(feature = "train")]
    #[test]
    fn no_message_hands_a_text_from_a_data_set_to_the_terminal() {
        use std::io;
        use std::path::PathBuf;

        use crate::train::{DataError, Dataset, Skipped};

        let folder = tempfile::tempdir().expect("a folder");
        for text in hostile_texts() {
            let skipped = |reason: &str| vec![Skipped { line: 1, reason: reason.to_owned() }];
            let (path, hostile) = (PathBuf::from("data.jsonl"), PathBuf::from(&text));
            let errors = [
                DataError::Io { path: path.clone(), source: io::Error::other(text.clone()) },
                DataError::Io { path: hostile.clone(), source: io::Error::other("gone") },
                DataError::TooManyBroken { path: path.clone(), most: 0, skipped: skipped(&text) },
                DataError::TooManyBroken { path: hostile.clone(), most: 0, skipped: skipped("no image") },
                DataError::Empty { path: hostile },
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));

            let text = &text[..text.floor_char_boundary(100_000)];
            let image = serde_json::json!({ "image": text, "text": "a star" });
            let field = serde_json::json!({ text: 1 });
            let path = folder.path().join("data.jsonl");
            std::fs::write(&path, format!("{image}\n{field}\n")).expect("a written file");
            let error = Dataset::open(&path, 1).expect_err("two broken lines");
            let DataError::TooManyBroken { skipped, .. } = &error else { panic!("{error}") };
            assert_eq!(skipped.len(), 2);
            skipped.iter().for_each(|line| assert_printable(&line.reason));
            assert_printable(&error.to_string());
        }
    }
}
