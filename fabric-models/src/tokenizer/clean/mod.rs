//! Text cleaning before a prompt is split into words.

mod badness;
mod codepages;
mod ftfy;
mod html;
mod mojibake;

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

/// Text cleaning of one of the published tokenizers.
///
/// They differ in entities, quotes, ligatures, garbled text, CJK and special tokens; plain prompts give equal
/// results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cleaning {
    /// transformers' `CLIPTokenizer` with ftfy installed, with which the models were trained.
    #[default]
    Ftfy,
    /// transformers' `CLIPTokenizer` without ftfy: removes control characters and makes each CJK character a word.
    Basic,
    /// transformers' `CLIPTokenizerFast`: only NFC and white space.
    Fast,
    /// OpenCLIP's `SimpleTokenizer`: ftfy, then HTML unescaping twice; special tokens are `<start_of_text>` and
    /// `<end_of_text>`.
    OpenClip,
}

impl Cleaning {
    /// Cleans the text: one line, single spaces, in lower case if `lower_case` is set.
    pub(super) fn apply(self, text: &str, lower_case: bool) -> String {
        let cleaned = match self {
            Self::Ftfy => single_spaces(&ftfy::fix_text(text)),
            Self::Basic => single_spaces(&basic(text)),
            Self::Fast => single_spaces(&text.nfc().collect::<String>()),
            Self::OpenClip => {
                let fixed = ftfy::fix_text(text);
                single_spaces(&html::unescape_all(&html::unescape_all(&fixed)))
            }
        };
        match self {
            _ if !lower_case => cleaned,
            // Character by character, so a capital sigma at the end of a word becomes a medial one.
            Self::Fast => cleaned.chars().flat_map(char::to_lowercase).collect(),
            _ => cleaned.to_lowercase(),
        }
    }
}

fn single_spaces(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cleans the text like BERT's basic tokenizer as CLIP uses it: accents and punctuation are kept.
fn basic(text: &str) -> String {
    static CONTROL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{C}").expect("a pattern of our own"));
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{fffd}' => {}
            _ if CONTROL.is_match(c.encode_utf8(&mut [0; 4])) => {}
            _ if is_cjk(c) => out.extend([' ', c, ' ']),
            _ => out.push(c),
        }
    }
    out.nfc().collect()
}

/// Returns whether a character is a CJK ideograph.
fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff
        | 0x20000..=0x2a6df | 0x2a700..=0x2ceaf | 0x2f800..=0x2fa1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_cleaning_keeps_its_own_habits() {
        let text = "  &amp;amp\tＡ日b\u{200b}ΟΣ ";
        assert_eq!(Cleaning::Ftfy.apply(text, true), "&amp a日b\u{200b}ος");
        assert_eq!(Cleaning::Basic.apply(text, true), "&amp;amp ａ 日 bος");
        assert_eq!(Cleaning::Fast.apply(text, true), "&amp;amp ａ日b\u{200b}οσ");
        assert_eq!(Cleaning::OpenClip.apply(text, true), "& a日b\u{200b}ος");
        assert_eq!(Cleaning::Ftfy.apply("A  B", false), "A B");
    }
}
