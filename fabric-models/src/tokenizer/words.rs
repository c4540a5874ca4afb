//! Splits text into words.

use std::sync::LazyLock;

use regex::Regex;

use super::clean::Cleaning;

/// Returns the words of cleaned text: contractions, runs of letters, single numerals, runs of anything else.
///
/// Reproduces a quirk of Python's `regex` module, which the references use: ignoring case, the iota subscript U+0345
/// counts as a letter in a negated class but not in a plain one, so it is dropped and splits its word.
pub(super) fn words(text: &str, cleaning: Cleaning) -> impl Iterator<Item = &str> {
    const WORDS: &str = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+";
    const CONTRACTIONS: &str = "'s|'t|'re|'ve|'m|'ll|'d";
    fn compile(pattern: &str) -> Regex {
        Regex::new(pattern).expect("a pattern of our own")
    }
    static TRANSFORMERS: LazyLock<Regex> =
        LazyLock::new(|| compile(&format!(r"(?i:<\|startoftext\|>|<\|endoftext\|>|{CONTRACTIONS})|{WORDS}")));
    static OPEN_CLIP: LazyLock<Regex> =
        LazyLock::new(|| compile(&format!("(?i:<start_of_text>|<end_of_text>|{CONTRACTIONS})|{WORDS}")));
    static FAST: LazyLock<Regex> =
        LazyLock::new(|| compile(&format!(r"{CONTRACTIONS}|{}", WORDS.replace(r"\x{345}", ""))));
    let pattern = match cleaning {
        Cleaning::Ftfy | Cleaning::Basic => &TRANSFORMERS,
        Cleaning::OpenClip => &OPEN_CLIP,
        Cleaning::Fast => &FAST,
    };
    pattern.find_iter(text).map(|word| word.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_contractions_letters_numerals_and_the_rest() {
        let got: Vec<&str> = words("it's 10,000 dogs' café_日本!? ı'LL", Cleaning::Ftfy).collect();
        let expected = ["it", "'s", "1", "0", ",", "0", "0", "0", "dogs", "'", "café", "_", "日本", "!?", "ı", "'LL"];
        assert_eq!(got, expected);
        assert_eq!(words("'LL a\u{345}b", Cleaning::Ftfy).collect::<Vec<_>>(), ["'LL", "a", "b"]);
        assert_eq!(words("'LL a\u{345}b", Cleaning::Fast).collect::<Vec<_>>(), ["'", "LL", "a", "\u{345}", "b"]);
    }
}
