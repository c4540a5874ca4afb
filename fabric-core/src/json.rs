//! Reader for JSON as Python's `json` module writes it.
//!
//! Python writes `NaN`, `Infinity` and `-Infinity`, which JSON does not have, and editors put a byte-order mark in
//! front of a file. Configurations of published models contain both.
//!
//! A short text can hold values that take a hundred times its length in memory. [`from_str_within`] refuses it before
//! it is parsed.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, Error as _};

/// The words that Python writes for non-finite numbers. The longest comes first.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Maximum memory in bytes of the values in a file of settings, as [`memory_of_values`] estimates it: enough for a list
/// of a hundred thousand numbers, or for ten thousand objects.
pub const MAX_SETTINGS_MEMORY: u64 = 8 << 20;

/// Memory of a value in bytes: 32 of its own, and as much for a short text or the name of a field.
const VALUE_BYTES: u64 = 64;

/// Memory of an object with a field in bytes: a map makes room for eleven fields at once.
const OBJECT_BYTES: u64 = 640;

/// Parses JSON, including the extensions of Python's `json` module.
///
/// A byte-order mark at the beginning is skipped. `NaN`, `Infinity` and `-Infinity` are read as strings of the
/// same name: they are harmless in fields that are not read, and yield an error that quotes them where a number
/// is expected.
///
/// ```
/// let value: serde_json::Value = fabric_core::json::from_str(r#"{"lambda_min_clipped": -Infinity}"#)?;
/// assert_eq!(value["lambda_min_clipped"], "-Infinity");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Errors
///
/// Returns an error if the text is not JSON or does not hold a `T`.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(&quoted(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)))
}

/// Parses JSON like [`from_str`], from UTF-8 bytes.
///
/// # Errors
///
/// Returns an error like [`from_str`], and if the bytes are not UTF-8.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => from_str(text),
        // Let the parser report the position of the first invalid byte.
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Parses JSON like [`from_str`], unless its values would take more than `most` bytes of memory
/// ([`memory_of_values`]).
///
/// # Errors
///
/// Returns an error like [`from_str`], and if the text has too many values.
pub fn from_str_within<T: DeserializeOwned>(text: &str, most: u64) -> Result<T, serde_json::Error> {
    check_memory(text.as_bytes(), most)?;
    from_str(text)
}

/// Parses JSON like [`from_str_within`], from UTF-8 bytes.
///
/// # Errors
///
/// Returns an error like [`from_str_within`], and if the bytes are not UTF-8.
pub fn from_slice_within<T: DeserializeOwned>(bytes: &[u8], most: u64) -> Result<T, serde_json::Error> {
    check_memory(bytes, most)?;
    from_slice(bytes)
}

fn check_memory(text: &[u8], most: u64) -> Result<(), serde_json::Error> {
    let got = memory_of_values(text);
    if got <= most {
        return Ok(());
    }
    Err(serde_json::Error::custom(format_args!("its values would take {got} bytes of memory, expected at most {most}")))
}

/// Estimates how many bytes of memory the values in JSON text take besides long texts: `[0,0,0]` takes 16 times its
/// length, and `[{"":0}]` almost a hundred times.
///
/// The text need not be valid JSON.
pub fn memory_of_values(text: &[u8]) -> u64 {
    // An upper bound: commas and brackets in texts count too.
    let cost = |byte: &u8| match byte {
        b',' | b'[' => VALUE_BYTES,
        b'{' => OBJECT_BYTES,
        _ => 0,
    };
    text.iter().map(cost).sum()
}

/// Returns whether JSON text is a list, behind white space or a byte-order mark.
///
/// serde also reads the fields of a struct from a list, in their order, and from an empty list if all have defaults. A
/// reader that accepts only objects calls this to refuse lists.
pub fn is_list(text: &[u8]) -> bool {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start().starts_with(b"[")
}

/// Puts quotes around the words for non-finite numbers, except within strings.
fn quoted(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = if next == '"' {
            string_length(rest)
        } else if let Some(word) = WORDS.iter().find(|word| rest.starts_with(**word)) {
            result.push('"');
            result.push_str(word);
            result.push('"');
            rest = &rest[word.len()..];
            continue;
        } else {
            next.len_utf8()
        };
        result.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Cow::Owned(result)
}

/// Returns the length in bytes of the string at the start of `text`, including its quotes; all of `text` if the
/// string does not end.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn pythons_numbers_that_are_not_finite_are_read_outside_of_strings_only() {
        let text = r#"{"a": -Infinity, "b": [Infinity,NaN], "NaN": "Infinity \" NaN", "c": {"d\\": NaN}, "é": -1}"#;
        let value: Value = from_str(text).unwrap();
        let expected = json!({"a": "-Infinity", "b": ["Infinity", "NaN"], "NaN": "Infinity \" NaN",
            "c": {"d\\": "NaN"}, "é": -1});
        assert_eq!(value, expected);
        assert_eq!(from_slice::<Value>(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(from_str::<Value>("\u{feff}{\"a\": NaN}").unwrap(), json!({"a": "NaN"}));
        assert_eq!(from_slice::<Value>(b"\xef\xbb\xbf[1]").unwrap(), json!([1]));
        assert!(from_str::<Value>("\u{feff}\u{feff}1").is_err());
    }

    #[test]
    fn a_list_is_told_behind_white_space_and_a_byte_order_mark() {
        for text in ["[]", " \r\n\t[1", "\u{feff}[]", "\u{feff} [{}]"] {
            assert!(is_list(text.as_bytes()), "{text:?}");
        }
        for text in ["", "{\"a\": []}", "\u{feff}{}", "1", "\"[\""] {
            assert!(!is_list(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn short_texts_of_many_values_are_refused_before_they_are_parsed() {
        let objects = format!("[{}0", "{\"\":0},".repeat(100));
        // The text does not end, so an error that speaks of memory came before the parser.
        let error = from_str_within::<Value>(&objects, 70_000).unwrap_err().to_string();
        assert!(error.contains("would take 70464 bytes of memory, expected at most 70000"), "{error}");
        let error = from_slice_within::<Value>(objects.as_bytes(), 70_463).unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
        let whole = format!("{objects}]");
        assert_eq!(from_str_within::<Value>(&whole, 70_464).unwrap().as_array().unwrap().len(), 101);
        assert_eq!(from_slice_within::<Vec<f64>>(b"[1,2,3]", 192).unwrap(), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn what_python_does_not_read_is_an_error() {
        for text in ["", "+Infinity", "NaNa", "nan", "inf", "\"NaN", "{\"a\": Infinity", "- Infinity", "[NaN NaN]"] {
            assert!(from_str::<Value>(text).is_err(), "{text}");
        }
        assert!(from_slice::<Value>(b"\"\xff\"").is_err());
    }

    #[test]
    fn a_number_that_is_not_finite_is_quoted_in_the_error_where_a_number_is_expected() {
        let error = from_str::<Vec<f64>>("[1.0, NaN]").unwrap_err().to_string();
        assert!(error.contains("\"NaN\""), "{error}");
    }
}
