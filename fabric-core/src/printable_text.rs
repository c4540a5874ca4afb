//! Texts from files and callers as messages show them: short, and without characters that a terminal executes or hides.

use std::fmt::Display;

/// Number of bytes of a name that a message shows; names of published tensors have up to 90.
const MAX_NAME: usize = 160;

/// Number of bytes of a value that a message shows: a paragraph, so that a message with one value has about 1000.
const MAX_VALUE: usize = 700;

/// Number of bytes of accepted values that a message shows: lists of all known names have up to 1500.
pub(crate) const MAX_EXPECTED: usize = 2000;

/// Number of bytes of a message of several lines, or of a table, that a program shows.
const MAX_LINES: usize = 1 << 16;

/// Returns a name from a file for a message: on one line, cut after about 160 bytes, and with the characters escaped
/// that a terminal would execute or hide.
///
/// ```
/// assert_eq!(fabric_core::printable("down.0.weight"), "down.0.weight");
/// assert_eq!(fabric_core::printable("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
/// ```
pub fn printable(name: impl Display) -> String {
    one_line(&name, MAX_NAME)
}

/// Returns a value, a path or the message of another library for a message: as [`printable`] does, but cut after about
/// 700 bytes.
///
/// ```
/// assert_eq!(fabric_core::printable_value("one\ntwo"), "one\\ntwo");
/// assert!(fabric_core::printable_value("é".repeat(1 << 20)).len() < 710);
/// ```
pub fn printable_value(value: impl Display) -> String {
    one_line(&value, MAX_VALUE)
}

/// Returns a message of several lines, or a table, with its line breaks: cut after about 65,000 bytes, and with all
/// other characters escaped that a terminal would execute or hide.
///
/// ```
/// assert_eq!(fabric_core::printable_lines("é:\n  \u{1b}[2J"), "é:\n  \\u{1b}[2J");
/// ```
pub fn printable_lines(text: &str) -> String {
    escaped(text, MAX_LINES, |letter| letter == '\n')
}

/// Returns a value for a message: on one line, cut after about `most` bytes, and with the characters escaped that a
/// terminal would execute or hide. Doing it twice changes nothing more.
pub(crate) fn one_line(value: &dyn Display, most: usize) -> String {
    escaped(&value.to_string(), most, |_| false)
}

/// Returns the beginning of a text, in which hidden characters are escaped unless they are to be kept.
fn escaped(text: &str, most: usize, is_kept: impl Fn(char) -> bool) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        if shown.len() >= most {
            shown.push_str(" ...");
            break;
        }
        if is_hidden(letter) && !is_kept(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Whether a terminal executes or hides a character instead of showing it: control characters, line separators, marks
/// that change the direction of the text around them, and characters without width. The joiners U+200C and U+200D are
/// not hidden, because words and emoji contain them.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(letter, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ContentHash, ImageError, MetadataError};
    use crate::schedule::{SamplerKind, SchedulerConfig};
    use crate::session::SessionError;
    use crate::{Error, InvalidValue};

    /// Names that a file may contain: commands to a terminal, a forged line, reversed text, and far too long ones.
    fn hostile_names() -> [String; 9] {
        [
            "\u{1b}[2J\u{1b}]0;title\u{7}".to_owned(),
            "a\r\nerror: all is well\n".to_owned(),
            "safe\u{202e}gpj.exe\u{2066}\u{2069}\u{200f}".to_owned(),
            "\u{9b}31m\u{85}\u{2028}\u{2029}".to_owned(),
            "no\u{feff}width\u{200b}\u{2060}\u{e0041}".to_owned(),
            "\0".repeat(1 << 16),
            "\u{1b}".repeat(1 << 16),
            "é".repeat(1 << 16),
            "x".repeat(1 << 20),
        ]
    }

    #[track_caller]
    fn assert_printable(message: &str) {
        assert!(!message.chars().any(is_hidden), "{message:?}");
        assert!(message.len() < 4000, "{} bytes: {message:.200}", message.len());
    }

    #[test]
    fn no_error_hands_a_name_from_a_file_to_the_terminal() {
        for name in hostile_names() {
            let json = |text: &str| serde_json::from_str::<NoFields>(text).unwrap_err();
            let quoted = format!("{{{}: 1}}", serde_json::json!(name));
            let place = || "session.json".to_owned();
            let value = InvalidValue::new(&*name, &name, "a number", "choose one");
            let text = |source: Box<dyn std::error::Error + Send + Sync>| MetadataError::Text {
                place: place(),
                keyword: "fabric",
                source,
            };
            let errors: [Box<dyn Display>; 15] = [
                Box::new(value.clone()),
                Box::new(Error::Settings(value.clone())),
                Box::new(InvalidValue { what: "a".to_owned(), expected: name.clone(), ..value.clone() }),
                Box::new(SessionError::Json { place: place(), source: json(&quoted) }),
                Box::new(SessionError::Version { place: place(), got: name.clone(), expected: String::new() }),
                Box::new(SessionError::Inconsistent {
                    place: place(),
                    what: name.clone(),
                    got: name.clone(),
                    expected: String::new(),
                }),
                Box::new(ImageError::Read { place: name.clone(), source: std::io::Error::other("gone") }),
                Box::new(ImageError::Corrupt { place: place(), format: "PNG", source: name.clone().into() }),
                Box::new(MetadataError::Absent { place: name.clone() }),
                Box::new(MetadataError::Chunk { place: name.clone(), keyword: "fabric", what: name.clone() }),
                Box::new(text(json(&quoted).into())),
                Box::new(text(value.into())),
                Box::new(name.parse::<ContentHash>().unwrap_err()),
                Box::new(name.parse::<SamplerKind>().unwrap_err()),
                Box::new(SchedulerConfig::from_json(&serde_json::json!(name).to_string()).unwrap_err()),
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
            assert_printable(&printable(&name));
            assert_printable(&printable_value(&name));
            assert!(!printable_lines(&name).chars().any(|letter| letter != '\n' && is_hidden(letter)));
        }
    }

    /// A struct that refuses all fields, so that serde quotes their names.
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoFields {}

    #[test]
    fn ordinary_texts_are_shown_as_they_are() {
        for text in ["a \"red\" star's light\\path", "日本 é ✩", "e\u{301} 👩\u{200d}🚀", ""] {
            assert_eq!([printable(text), printable_value(text), printable_lines(text)], [text; 3]);
        }
        let error = InvalidValue::new("`steps`", "\"many\"", "1 to 10", "choose one");
        assert_eq!(error.to_string(), "`steps`: expected 1 to 10, got \"many\"; choose one");
        assert_eq!(printable_value("one\ntwo\t3"), "one\\ntwo\\t3");
        assert_eq!(printable_lines("one\ntwo\t3"), "one\ntwo\\t3");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(printable("é".repeat(1000)), format!("{} ...", "é".repeat(80)));
        assert_eq!(printable_value("a".repeat(701)), format!("{} ...", "a".repeat(700)));
        assert_eq!(printable_value("a".repeat(700)), "a".repeat(700));
        assert_eq!(printable_lines(&"a\n".repeat(1 << 20)), format!("{} ...", "a\n".repeat(1 << 15)));
    }

    #[test]
    fn a_text_that_was_made_printable_stays_as_it_is() {
        for name in hostile_names() {
            let shown = printable_value(&name);
            if name.len() < 100 {
                assert_eq!(printable_value(&shown), shown);
            }
            assert_printable(&printable_value(&shown));
        }
        let cut = printable("x".repeat(1000));
        assert_eq!(printable(&cut), cut);
    }
}
