//! Decoder of HTML character references (`&amp;`, `&#233;`, `&eacute`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use super::mojibake::without_c1;

/// Replaces complete references that end in a semicolon, as ftfy does; also `&EACUTE;` for `É`.
pub(super) fn unescape_complete(text: &str) -> Cow<'_, str> {
    replace_references(text, |body| {
        let digits = body.strip_prefix('#').unwrap_or(body);
        let length = digits.bytes().take(25).take_while(u8::is_ascii_alphanumeric).count();
        if !(1..=24).contains(&length) || digits.as_bytes().get(length) != Some(&b';') {
            return None;
        }
        let name = &body[..body.len() - digits.len() + length + 1];
        let value = if name.starts_with('#') {
            // `&#59;` is kept: the published code takes a semicolon in the result as a sign of an incomplete
            // replacement.
            numeric(name).filter(|(value, used)| *used == name.len() && value != ";")?.0
        } else {
            named(name).map(str::to_owned).or_else(|| upper_cased(name))?
        };
        Some((value, name.len()))
    })
}

/// Replaces all references that a browser replaces, including unterminated ones (`&eacute`, `&notit;`), as Python's
/// `html.unescape`.
pub(super) fn unescape_all(text: &str) -> Cow<'_, str> {
    replace_references(text, |body| {
        if body.starts_with('#') {
            return numeric(body);
        }
        let mut name = &body[..body
            .char_indices()
            .take(33)
            .enumerate()
            .find(|(i, (_, c))| *i == 32 || matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';'))
            .map_or(body.len(), |(_, (offset, _))| offset)];
        if !name.is_empty() && body[name.len()..].starts_with(';') {
            name = &body[..=name.len()];
        }
        // The whole name, or the longest known prefix of at least two characters.
        let ends = name.char_indices().map(|(i, c)| i + c.len_utf8()).skip(1).collect::<Vec<_>>();
        ends.into_iter().rev().find_map(|end| Some((named(&name[..end])?.to_owned(), end)))
    })
}

/// Calls `reference` with the text after each `&`; it returns a replacement and the number of bytes to replace.
fn replace_references(text: &str, reference: impl Fn(&str) -> Option<(String, usize)>) -> Cow<'_, str> {
    let mut rest = text;
    let mut out = String::new();
    while let Some(at) = rest.find('&') {
        let (before, body) = (&rest[..at], &rest[at + 1..]);
        out.push_str(before);
        match reference(body) {
            Some((value, used)) => {
                out.push_str(&value);
                rest = &body[used..];
            }
            None => {
                out.push('&');
                rest = body;
            }
        }
    }
    if out.is_empty() && rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Returns the value of a name; the name includes its semicolon, if any.
fn named(name: &str) -> Option<&'static str> {
    static NAMES: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
        let code = |hex| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32).expect("a code point in our table");
        let entry = |line: &'static str| {
            let (name, codes) = line.split_once(' ').expect("a name and a value in our table");
            (name, codes.split(' ').map(code).collect())
        };
        include_str!("../data/html_entities.txt").lines().map(entry).collect()
    });
    NAMES.get(name).map(String::as_str)
}

/// Returns the value of a name that was upper-cased together with its text, if it is unambiguous.
fn upper_cased(name: &str) -> Option<String> {
    let ambiguous = (2..name.len()).any(|end| named(&name[..end]).is_some());
    if ambiguous || name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    named(&name.to_ascii_lowercase()).map(str::to_uppercase)
}

/// Parses `#233;`, `#xE9;` or `#233` to its value and length in bytes.
fn numeric(body: &str) -> Option<(String, usize)> {
    let digits = body.strip_prefix('#')?;
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    let length = digits.chars().take_while(|c| c.is_digit(radix)).count();
    if length == 0 {
        return None;
    }
    // Leading zeros are allowed; a number with more digits than any code point is not a character.
    let code = digits[..length].chars().fold(0_u32, |code, digit| {
        code.saturating_mul(radix).saturating_add(digit.to_digit(radix).unwrap_or_default())
    });
    let semicolon = usize::from(digits[length..].starts_with(';'));
    Some((character(code), body.len() - digits.len() + length + semicolon))
}

/// Returns the text of a numeric reference, by the rules of HTML 5.
fn character(code: u32) -> String {
    match (code, char::from_u32(code)) {
        (0, _) | (_, None) => "\u{fffd}".to_owned(),
        (0x0d, _) => "\r".to_owned(),
        (0x80..=0x9f, Some(c)) => without_c1(c).to_string(),
        (0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef, _) => String::new(),
        (_, Some(_)) if code & 0xfffe == 0xfffe => String::new(),
        (_, Some(c)) => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_references_are_replaced() {
        for (text, expected) in [
            ("&lt;tag&gt;", "<tag>"),
            ("P&eacute;rez", "Pérez"),
            ("P&EACUTE;REZ", "PÉREZ"),
            ("BUNDESSTRA&SZLIG;E", "BUNDESSTRASSE"),
            ("&ntilde; &Ntilde; &NTILDE; &nTILDE;", "ñ Ñ Ñ &nTILDE;"),
            ("&#x1F600; &#128512;", "😀 😀"),
            ("&#x80;&#0;&#xD800;&#1;", "€\u{fffd}\u{fffd}"),
            ("&&amp;amp;", "&&amp;"),
        ] {
            assert_eq!(unescape_complete(text), expected);
        }
    }

    #[test]
    fn incomplete_references_stay() {
        for text in ["AT&T", "this&not that", "&amp", "&#59;", "&#12ab;", "&#xg;", "&nosuchname;", "&", "&;", "&#;"] {
            assert_eq!(unescape_complete(text), text);
        }
    }

    #[test]
    fn browsers_also_read_unfinished_references() {
        for (text, expected) in [
            ("&amp", "&"),
            ("&notit;", "¬it;"),
            ("&notin;", "∉"),
            ("caf&eacute", "café"),
            ("&#233 &#xe9;", "é é"),
            ("&#99999999999999999999;", "\u{fffd}"),
            ("&nosuchname; &é; & &;", "&nosuchname; &é; & &;"),
        ] {
            assert_eq!(unescape_all(text), expected);
        }
    }
}
