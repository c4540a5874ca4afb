//! Port of `ftfy.fix_text` with its default settings: repairs wrong encodings, HTML entities and typography.
//!
//! OpenAI cleaned CLIP's captions with ftfy, and reference tokenizers with ftfy installed still use it. The rules,
//! their order and their character categories are those of ftfy 6.3 (Robyn Speer, Apache-2.0); the output must be
//! equal.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::html::unescape_complete;
use super::mojibake::{Work, fix_encoding, without_c1};

/// Fixes the text line by line.
pub(super) fn fix_text(text: &str) -> String {
    let mut html = false;
    let mut work = Work::on(text);
    let mut fixed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        // A `<` marks HTML, in which entities are intended; this also applies to all later lines.
        html |= line.contains('<');
        fixed.push_str(&fix_line(line, !html, &mut work));
    }
    fixed
}

/// Applies all fixes repeatedly until the line does not change or the work limit is reached.
fn fix_line<'a>(line: &'a str, unescape: bool, work: &mut Work) -> Cow<'a, str> {
    let mut line = Cow::Borrowed(line);
    while work.take(line.len()) {
        let mut fixed = if unescape { unescape_complete(&line) } else { Cow::Borrowed(&*line) };
        if !fixed.is_ascii() {
            fixed = Cow::Owned(straighten(&fix_encoding(&fixed, work)));
        }
        if fixed.bytes().any(is_control) || !fixed.is_ascii() {
            fixed = Cow::Owned(remove_controls(&fixed).nfc().collect());
        }
        if fixed == line {
            break;
        }
        line = Cow::Owned(fixed.into_owned());
    }
    line
}

/// Replaces single characters by plainer equivalents.
fn straighten(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().map(without_c1) {
        if let Some(letters) = ligature(c) {
            out.extend(letters.chars().map(straight_quote));
        } else if c == '\u{3000}' {
            out.push(' ');
        } else if ('\u{ff01}'..='\u{ffef}').contains(&c) {
            // Full-width Latin and half-width Katakana and Hangul.
            out.extend(std::iter::once(c).nfkc());
        } else {
            out.push(straight_quote(c));
        }
    }
    out
}

fn straight_quote(c: char) -> char {
    match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        _ => c,
    }
}

/// Returns the letters of a typographic ligature.
fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Returns whether [`remove_controls`] changes this ASCII control.
fn is_control(byte: u8) -> bool {
    matches!(byte, 0x00..=0x08 | 0x0b | 0x0d..=0x1f | 0x7f)
}

/// Converts all line breaks to `\n`, and removes terminal escapes and invisible characters.
fn remove_controls(text: &str) -> String {
    static TERMINAL_ESCAPE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("a pattern of our own"));
    let text = text.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    let text = TERMINAL_ESCAPE.replace_all(&text, "");
    let invisible = |c: char| match c {
        '\0'..='\x7f' => is_control(c as u8),
        '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' => true,
        _ => false,
    };
    text.chars().filter(|&c| !invisible(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixes_are_those_of_the_reference() {
        for (text, expected) in [
            ("Broken text&hellip; it&#x2019;s ﬂubberiﬁc!", "Broken text… it's flubberific!"),
            ("&macr;\\_(ã\u{83}\u{84})_/&macr;", "¯\\_(ツ)_/¯"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ", "LOUD NOISES"),
            ("Ｕﾀｰﾝ", "Uターン"),
            ("ﾊﾞ", "バ"),
            ("\u{201c}here\u{2019}s a test\u{201d}", "\"here's a test\""),
            ("\x1b[36;44mI'm blue\x1b[0m", "I'm blue"),
            ("a\r\nb\rc\u{2028}d", "a\nb\nc\nd"),
            ("cafe\u{301}\u{feff}\0", "café"),
            ("ŉ", "'n"),
        ] {
            assert_eq!(fix_text(text), expected);
        }
    }

    #[test]
    fn entities_stay_in_html_and_in_all_lines_after_it() {
        assert_eq!(fix_text("&amp;\n<b>&amp;\n&amp;"), "&\n<b>&amp;\n&amp;");
    }

    #[test]
    fn fixing_twice_is_fixing_once() {
        for text in ["&amp;amp;amp;", "ÃƒÆ’Ã‚Â©", "&Atilde;&copy;", "ŉ ﬃ ½ Ⅷ", "&#x1b;[0m", "a\u{301}\u{302}"]
        {
            let once = fix_text(text);
            assert_eq!(fix_text(&once), once);
        }
    }

    #[test]
    fn seven_hundred_bytes_are_fixed_to_the_end() {
        assert_eq!(fix_text(&format!("&{}é", "amp;".repeat(170))), "&é");
        assert_eq!(fix_text(&format!("日Ã{}", "ƒ".repeat(340))), "日Ã");
    }
}
