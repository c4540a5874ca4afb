//! Heuristic that detects garbled text by sequences of characters that are rare in real text.

use std::sync::LazyLock;

use regex::Regex;

/// Returns whether some of the text appears to be decoded with the wrong encoding.
pub(super) fn is_bad(text: &str) -> bool {
    static BAD: LazyLock<Regex> = LazyLock::new(|| Regex::new(&pattern()).expect("a pattern of our own"));
    BAD.is_match(text)
}

// Classes of characters that occur in UTF-8 decoded as another encoding, as contents of character classes.
const COMMON: &str = r"\xa0\xad·´–—―…’";
const C1: &str = r"\x80-\x9f";
const BAD: &str = "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}ªº";
const LAW: &str = "¶§";
const CURRENCY: &str = "¢£¥₧€";
const OPENING: &str = "¡«¿©\u{384}\u{385}‘‚“„•‹\u{f8ff}";
const CLOSING: &str = "®»˝”›™";
const NUMERIC: &str = "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№";
/// Letters used in kaomoji, which may be next to any character.
const KAOMOJI: &str = "Ò-ÖÙ-Üò-öø-üŐŌŪŲ°";
const UPPER_ACCENTED: &str = "À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER_ACCENTED: &str = "ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ";
const UPPER_COMMON: &str = "ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я";
const LOWER_COMMON: &str = "α-ωάέήίΰа-џ";
const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓";

/// Returns one pattern of all unlikely sequences. `\s` and `\w` are spelled out as Python defines them.
fn pattern() -> String {
    let space = r"\s\x1c-\x1f";
    let arabic = format!("[ØÙ][{COMMON}{CURRENCY}{BAD}{NUMERIC}{OPENING}ŸŠ®°µ»]");
    let accented = format!("{LOWER_ACCENTED}{UPPER_ACCENTED}");
    let garbled = format!("{accented}{BOX}{OPENING}{CLOSING}{CURRENCY}{NUMERIC}{LAW}");
    [
        format!("[{C1}]"),
        format!("[{BAD}{garbled}][{BAD}]"),
        format!("[a-zA-Z][{LOWER_COMMON}{UPPER_COMMON}][{BAD}]"),
        format!("[{BAD}][{garbled}]"),
        format!("[{LOWER_ACCENTED}{LOWER_COMMON}{BOX}{CLOSING}{CURRENCY}{NUMERIC}][{UPPER_ACCENTED}]"),
        format!("[{BOX}{CLOSING}{CURRENCY}{NUMERIC}][{LOWER_ACCENTED}]"),
        format!("[{LOWER_ACCENTED}{BOX}{CLOSING}][{CURRENCY}]"),
        format!("[{space}][{UPPER_ACCENTED}][{CURRENCY}]"),
        format!("[{UPPER_ACCENTED}{BOX}][{NUMERIC}{LAW}]"),
        format!("[{accented}{BOX}{CURRENCY}{CLOSING}][{OPENING}][{NUMERIC}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{BOX}{LAW}][{CLOSING}][{OPENING}]"),
        format!("[{CURRENCY}{NUMERIC}{BOX}][{OPENING}]"),
        format!("[a-z][{UPPER_ACCENTED}][{OPENING}{CURRENCY}]"),
        format!("[{BOX}][{KAOMOJI}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{OPENING}{CLOSING}{LAW}][{BOX}]"),
        format!("[{BOX}][{CLOSING}]"),
        format!(r"[{accented}][{OPENING}{CLOSING}][\p{{L}}\p{{N}}_]"),
        // The ligature œ before anything but a plain letter; the degree sign after a capital.
        "[Œœ][^A-Za-z]".to_owned(),
        format!("[{UPPER_ACCENTED}]°"),
        // Windows-1252: two characters; Arabic, of which four are required; South Asian alphabets.
        format!(r"[ÂÃÎÐ][€œŠš¢£Ÿž\xa0\xad®©°·»{OPENING}{CLOSING}–—´]"),
        "×[²³]".to_owned(),
        format!("{arabic}{arabic}"),
        "à[²µ¹¼½¾]".to_owned(),
        // MacRoman.
        "√[±∂†≠®™´≤≥¥µø]".to_owned(),
        "≈[°¢]".to_owned(),
        "‚Ä[ìîïòôúùû†°¢π]".to_owned(),
        "‚[âó][àä°ê]".to_owned(),
        // Windows-1251: U+2000 and on; Latin-1 and Cyrillic; Latin-1 encoded twice.
        "вЂ".to_owned(),
        format!("[ВГРС][{C1}{BAD}{OPENING}{CLOSING}{CURRENCY}°µ][ВГРС]"),
        "ГўВЂВ.[A-Za-z ]".to_owned(),
        // `à`, `á` and the no-break space in Windows-1252.
        r"Ã[\xa0¡]".to_owned(),
        format!("[a-z][{space}]?[ÃÂ] "),
        "^[ÃÂ] ".to_owned(),
        format!("[a-z.,?!{CLOSING}]Â[ {OPENING}{CLOSING}]"),
        // Windows-1253: U+2000 and on; Latin-1 and Greek. Windows-1257.
        r"β€[™\xa0Ά\xad®°]".to_owned(),
        format!("[ΒΓΞΟ][{C1}{BAD}{OPENING}{CLOSING}{CURRENCY}°][ΒΓΞΟ]"),
        "ā€".to_owned(),
    ]
    .join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_in_many_scripts_is_not_bad() {
        for text in
            ["plain", "café à la crème", "Привет, мир", "Ångström 20°C", "(╯°□°)╯︵ ┻━┻", "日本語", "½ ¾ ×2", "£5 – €6"]
        {
            assert!(!is_bad(text), "{text}");
        }
    }

    #[test]
    fn utf8_read_as_something_else_is_bad() {
        for text in ["schÃ¶n", "â€œquotedâ€", "РџСЂРёРІРµС‚ вЂ", "âœ” done", "voilÃ le travail", "√©t√©", "├⌐t├⌐"]
        {
            assert!(is_bad(text), "{text}");
        }
    }
}
