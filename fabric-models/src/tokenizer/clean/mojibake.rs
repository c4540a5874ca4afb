//! Repair of UTF-8 that was decoded with a single-byte encoding.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

use super::badness::is_bad;
use super::codepages::{CODE_PAGES, WINDOWS_1252_INDEX, clue, clues};

/// Work limit: number of bytes that may still be processed.
///
/// Fixing ends when nothing changes, but contrived texts change as often as they have characters
/// (`&amp;amp;amp;...`). Texts of up to 700 bytes and up to 30 changes never reach the limit; a text that reaches it
/// is left partially fixed.
pub(super) struct Work(usize);

impl Work {
    pub(super) fn on(text: &str) -> Self {
        Self((1 << 20) + 64 * text.len())
    }

    /// Subtracts `bytes` from the limit; returns false if it is exhausted.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Repeats [`step`] until nothing changes or the work limit is reached.
pub(super) fn fix_encoding<'a>(text: &'a str, work: &mut Work) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    while work.take(text.len())
        && let Some(fixed) = step(&text, work)
    {
        if fixed == text {
            break;
        }
        text = Cow::Owned(fixed);
    }
    text
}

/// Converts C1 controls, which are Windows-1252 decoded as Latin-1.
pub(super) fn without_c1(c: char) -> char {
    if ('\u{80}'..='\u{9f}').contains(&c) { CODE_PAGES[WINDOWS_1252_INDEX].decode_upper(c as u8) } else { c }
}

/// Removes one layer of garbling; `None` if no layer is found.
fn step(text: &str, work: &mut Work) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    // First, the whole text as UTF-8 decoded with one of the encodings.
    for page in CODE_PAGES.iter() {
        let Some(mut bytes) = page.encode(text) else { continue };
        if page.restores_a0 {
            bytes = restore_a0(&bytes);
        }
        if page.sloppy {
            bytes = replace_lossy(&bytes);
        }
        if let Some(fixed) = decode(&bytes) {
            return Some(fixed);
        }
    }
    // Then parts of the text.
    let fixed = fix_parts(text, work);
    if fixed != text {
        return Some(fixed);
    }
    // Last, characters of Windows-1252 decoded as Latin-1.
    Some(text.chars().map(without_c1).collect())
}

/// Restores byte A0 where it was replaced by a space, if the result is likely UTF-8.
fn restore_a0(bytes: &[u8]) -> Vec<u8> {
    // `Ã ` is the word `à` and keeps its space, except at the start of the Portuguese `às`, `àquele`, ...
    static A_GRAVE: LazyLock<Regex> = LazyLock::new(|| bytes_pattern(r"\xc3 ( |quele|quela|quilo|s )?"));
    static ALTERED: LazyLock<Regex> = LazyLock::new(|| {
        bytes_pattern(concat!(
            r"[\xc2\xc3\xc5\xce\xd0\xd9] ",
            r"|[\xe2\xe3] [\x80-\x84\x86-\x9f\xa1-\xbf]",
            r"|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf] ",
            r"|\xf0 [\x80-\xbf][\x80-\xbf]",
            r"|\xf0[\x80-\xbf] [\x80-\xbf]",
            r"|\xf0[\x80-\xbf][\x80-\xbf] ",
        ))
    });
    let words = A_GRAVE.replace_all(bytes, |got: &Captures<'_>| match got.get(1) {
        Some(_) => got[0].to_vec(),
        None => b"\xc3\xa0 ".to_vec(),
    });
    let restore = |byte: &u8| if *byte == b' ' { 0xa0 } else { *byte };
    ALTERED.replace_all(&words, |got: &Captures<'_>| got[0].iter().map(restore).collect::<Vec<u8>>()).into_owned()
}

/// Replaces sequences with lost bytes (0x1A, sometimes `?`) by U+FFFD.
fn replace_lossy(bytes: &[u8]) -> Vec<u8> {
    static LOSSY: LazyLock<Regex> = LazyLock::new(|| {
        bytes_pattern(concat!(
            r"[\xc2-\xdf]\x1a",
            r"|[\xc2-\xc3]\?",
            r"|\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
            r"|\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
            r"|[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
            r"|[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
            r"|[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
            r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
            r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
            r"|\x1a",
        ))
    });
    LOSSY.replace_all(bytes, "\u{fffd}".as_bytes()).into_owned()
}

fn bytes_pattern(pattern: &str) -> Regex {
    Regex::new(&format!("(?-u){pattern}")).expect("a pattern of our own")
}

/// Decodes UTF-8 and its variants: surrogates as two sequences of three bytes (CESU-8), NUL as C0 80 (Java).
fn decode(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let special = rest.iter().enumerate().position(|(i, _)| variant(&rest[i..]).is_some()).unwrap_or(rest.len());
        text.push_str(str::from_utf8(&rest[..special]).ok()?);
        let Some((c, length)) = variant(&rest[special..]) else { return Some(text) };
        text.push(c);
        rest = &rest[special + length..];
    }
}

/// Decodes the first character if it is encoded in a variant of UTF-8, and returns its length in bytes.
fn variant(bytes: &[u8]) -> Option<(char, usize)> {
    match *bytes {
        // The published code also accepts C0 before a line break, and removes the line break with it.
        [0xc0, 0x80, ..] | [0xc0, b'\n'] => Some(('\0', 2)),
        [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
            let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
            let code = 0x10000 + bits(a, 0x0f, 16) + bits(b, 0x3f, 10) + bits(c, 0x0f, 6) + bits(d, 0x3f, 0);
            char::from_u32(code).map(|c| (c, 6))
        }
        _ => None,
    }
}

/// Fixes runs that look like UTF-8 in the wrong encoding, each separately.
fn fix_parts(text: &str, work: &mut Work) -> String {
    let characters: Vec<(usize, char)> = text.char_indices().collect();
    let offset = |i: usize| characters.get(i).map_or(text.len(), |(offset, _)| *offset);
    let mut fixed = String::with_capacity(text.len());
    let mut i = 0;
    while i < characters.len() {
        // Fixing a few characters in the middle of a longer garbled run would make it worse.
        let inside = i > 0 && clues(characters[i - 1].1) & clue::CONTINUES_STRICTLY != 0;
        let end = if inside { i } else { run_end(&characters, i) };
        if end == i {
            fixed.push(characters[i].1);
            i += 1;
            continue;
        }
        let run = &text[offset(i)..offset(end)];
        // Strictly shorter, so that the recursion ends.
        if run.len() < text.len() && is_bad(run) {
            fixed.push_str(&fix_encoding(run, work));
        } else {
            fixed.push_str(run);
        }
        i = end;
    }
    fixed
}

/// Returns the end of the longest run of UTF-8-like sequences that starts at `start` (`start` if there is none).
fn run_end(characters: &[(usize, char)], start: usize) -> usize {
    let mut end = start;
    while let Some(&(_, lead)) = characters.get(end) {
        let lead = clues(lead);
        let length = match lead {
            _ if lead & clue::LEADS_TWO != 0 => 2,
            _ if lead & clue::LEADS_THREE != 0 => 3,
            _ if lead & clue::LEADS_FOUR != 0 => 4,
            _ => break,
        };
        let Some(tail) = characters.get(end + 1..end + length) else { break };
        if !tail.iter().all(|&(_, c)| clues(c) & clue::CONTINUES != 0) {
            break;
        }
        end += length;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fixed(text: &str, expected: &str) {
        assert_eq!(fix_encoding(text, &mut Work::on(text)), expected);
    }

    #[test]
    fn text_read_in_each_encoding_is_read_again() {
        fixed("schÃ¶n", "schön");
        fixed("âœ” No problems", "✔ No problems");
        fixed("РџСЂРёРІРµС‚, вЂ”", "Привет, —");
        fixed("├⌐t├⌐", "été");
        fixed("√©t√©", "été");
    }

    #[test]
    fn layers_are_removed_until_none_is_left() {
        fixed("Ã\u{83}Â©", "é");
        fixed("ÃƒÂ©", "é");
    }

    #[test]
    fn spaces_that_were_no_break_spaces_are_restored() {
        fixed("voilÃ  le travail", "voilà le travail");
        fixed("Ã la mode", "à la mode");
    }

    #[test]
    fn lost_bytes_become_the_replacement_character() {
        fixed("â€œ like this â€\u{fffd}", "“ like this \u{fffd}");
    }

    #[test]
    fn parts_are_fixed_in_good_text() {
        fixed("日本 Ã©tÃ© 日本", "日本 été 日本");
    }

    #[test]
    fn variants_of_utf8_are_understood() {
        assert_eq!(decode(b"\xed\xa0\xbd\xed\xb8\x8d!").as_deref(), Some("😍!"));
        assert_eq!(decode(b"a\xc0\x80b").as_deref(), Some("a\0b"));
        assert_eq!(decode(b"\xed\x95\x9c").as_deref(), Some("한"));
        assert_eq!(decode(b"\xed\xa0\xbd"), None);
        assert_eq!(decode(b"\xc0a"), None);
    }

    #[test]
    fn good_text_is_left_alone() {
        for text in ["", "plain", "Ångström", "à la carte", "Привет", "日本語", "Ã"] {
            fixed(text, text);
        }
    }
}
