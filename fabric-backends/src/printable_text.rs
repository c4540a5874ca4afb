//! Texts from files and callers as messages show them: short, and without characters that a terminal executes or hides.

use std::fmt::Display;

/// Number of bytes of a name that a message shows; names of published tensors have up to 90.
const MAX_NAME: usize = 160;

/// Number of bytes of a value that a message shows: a paragraph, so that a message with one value has about 1000.
const MAX_VALUE: usize = 700;

/// Number of bytes of a message of several lines, or of a table, that a program shows.
const MAX_LINES: usize = 1 << 16;

/// Returns a name from a file for a message: on one line, cut after about 160 bytes, and with the characters escaped
/// that a terminal would execute or hide.
///
/// ```
/// assert_eq!(fabric_backends::printable_text::printable("down.0.weight"), "down.0.weight");
/// assert_eq!(fabric_backends::printable_text::printable("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
/// ```
pub fn printable(name: impl Display) -> String {
    one_line(&name, MAX_NAME)
}

/// Returns a value, a path or the message of another library for a message: as [`printable`] does, but cut after about
/// 700 bytes.
///
/// ```
/// assert_eq!(fabric_backends::printable_text::printable_value("one\ntwo"), "one\\ntwo");
/// assert!(fabric_backends::printable_text::printable_value("é".repeat(1 << 20)).len() < 710);
/// ```
pub fn printable_value(value: impl Display) -> String {
    one_line(&value, MAX_VALUE)
}

/// Returns a message of several lines, or a table, with its line breaks: cut after about 65,000 bytes, and with all
/// other characters escaped that a terminal would execute or hide.
///
/// ```
/// assert_eq!(fabric_backends::printable_text::printable_lines("é:\n  \u{1b}[2J"), "é:\n  \\u{1b}[2J");
/// ```
pub fn printable_lines(text: &str) -> String {
    escaped(text, MAX_LINES, |letter| letter == '\n')
}

/// Returns a value for a message: on one line, cut after about `most` bytes, and with the characters escaped that a
/// terminal would execute or hide. Doing it twice changes nothing more.
pub fn one_line(value: &dyn Display, most: usize) -> String {
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
pub fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(letter, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}
