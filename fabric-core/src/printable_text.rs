//! Texts from files and callers as messages show them: without characters that a terminal executes or hides.

use std::fmt::Display;

/// Number of characters of a name that a message shows; names of published tensors have up to 90.
const MAX_NAME: usize = 160;

/// Number of bytes of a value that a message shows: a long paragraph, so that a message with a few values fits on a
/// screen.
pub(crate) const MAX_VALUE: usize = 1000;

/// Number of bytes of accepted values that a message shows: lists of all known names have up to 1500.
pub(crate) const MAX_EXPECTED: usize = 2000;

/// Returns a name from a file for a message: on one line, cut after 160 characters, and with control characters
/// escaped, which a terminal would execute.
///
/// ```
/// assert_eq!(fabric_core::printable("down.0.weight"), "down.0.weight");
/// assert_eq!(fabric_core::printable("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
/// ```
pub fn printable(name: &str) -> String {
    let shown: String = name.chars().take(MAX_NAME).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_NAME).is_some() { format!("{shown} ...") } else { shown }
}

/// Returns a message of any length with its line breaks, in which all other characters that a terminal would execute or
/// hide are escaped.
///
/// ```
/// assert_eq!(fabric_core::printable_lines("é:\n  \u{1b}[2J"), "é:\n  \\u{1b}[2J");
/// ```
pub fn printable_lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => shown.push(letter),
            _ => push(&mut shown, letter),
        }
    }
    shown
}

/// Returns a value for a message: on one line, cut after about `most` bytes, and with the characters escaped that a
/// terminal would execute or hide.
pub(crate) fn one_line(value: &dyn Display, most: usize) -> String {
    let mut shown = String::new();
    for letter in value.to_string().chars() {
        if shown.len() >= most {
            shown.push_str(" ...");
            break;
        }
        push(&mut shown, letter);
    }
    shown
}

fn push(shown: &mut String, letter: char) {
    if is_hidden(letter) {
        shown.extend(letter.escape_default());
    } else {
        shown.push(letter);
    }
}

/// Whether a terminal executes or hides a character instead of showing it: control characters, line separators, and
/// marks that change the direction of the text around them.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ContentHash, MetadataError};
    use crate::schedule::{SamplerKind, SchedulerConfig};
    use crate::session::SessionError;
    use crate::{Error, InvalidValue};

    /// Names that a file may contain: commands to a terminal, a forged line, reversed text, and far too long ones.
    fn hostile_names() -> [String; 7] {
        [
            "\u{1b}[2J\u{1b}]0;title\u{7}".to_owned(),
            "a\r\nerror: all is well\n".to_owned(),
            "safe\u{202e}gpj.exe\u{2066}\u{2069}\u{200f}".to_owned(),
            "\u{9b}31m\u{85}\u{2028}\u{2029}".to_owned(),
            "\0".repeat(1 << 16),
            "\u{1b}".repeat(1 << 16),
            "é".repeat(1 << 16),
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
            let errors: [Box<dyn Display>; 11] = [
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
                Box::new(text(json(&quoted).into())),
                Box::new(text(value.into())),
                Box::new(name.parse::<ContentHash>().unwrap_err()),
                Box::new(name.parse::<SamplerKind>().unwrap_err()),
                Box::new(SchedulerConfig::from_json(&serde_json::json!(name).to_string()).unwrap_err()),
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
            assert_printable(&printable(&name));
            assert!(!printable_lines(&name).chars().any(|letter| letter != '\n' && is_hidden(letter)));
        }
    }

    /// A struct that refuses all fields, so that serde quotes their names.
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoFields {}

    #[test]
    fn ordinary_texts_are_shown_as_they_are() {
        for text in ["a \"red\" star's light\\path", "日本 é ✩", ""] {
            assert_eq!(one_line(&text, MAX_VALUE), text);
            assert_eq!(printable_lines(text), text);
        }
        let error = InvalidValue::new("`steps`", "\"many\"", "1 to 10", "choose one");
        assert_eq!(error.to_string(), "`steps`: expected 1 to 10, got \"many\"; choose one");
        assert_eq!(one_line(&"one\ntwo\t3", MAX_VALUE), "one\\ntwo\\t3");
        assert_eq!(printable_lines("one\ntwo\t3"), "one\ntwo\\t3");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(printable(&"é".repeat(1000)), format!("{} ...", "é".repeat(160)));
        assert_eq!(one_line(&"a".repeat(1001), MAX_VALUE), format!("{} ...", "a".repeat(1000)));
        assert_eq!(one_line(&"a".repeat(1000), MAX_VALUE), "a".repeat(1000));
    }
}
