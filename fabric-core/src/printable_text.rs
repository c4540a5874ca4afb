//! Texts from files and callers as messages show them; the functions are those of `fabric-backends`, whose messages show
//! such texts too.

pub use fabric_backends::printable_text::{printable, printable_lines, printable_value};

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use fabric_backends::printable_text::is_hidden;

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
