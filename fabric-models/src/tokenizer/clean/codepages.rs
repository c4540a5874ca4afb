//! Single-byte encodings with which UTF-8 is wrongly decoded, and the hints in their characters.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Single-byte encoding: ASCII below 0x80, a table above.
pub(super) struct CodePage {
    /// Characters of the bytes 0x80 to 0xFF.
    upper: [char; 128],
    /// Whether undefined bytes decode to C1 controls of the same value, and U+FFFD encodes to byte 0x1A.
    pub(super) sloppy: bool,
    /// Whether a space may be a lost byte 0xA0. Not in MacRoman, where that would turn an en dash and a space into
    /// `â`.
    pub(super) restores_a0: bool,
}

impl CodePage {
    /// Creates a code page. `table` holds the characters of the last bytes; the bytes before them are C1 controls.
    fn new(table: &str, sloppy: bool) -> Self {
        let characters: Vec<char> = table.chars().collect();
        let controls = 128 - characters.len();
        let character = |i: usize| match i.checked_sub(controls) {
            Some(listed) => characters[listed],
            None => char::from(0x80 + i as u8),
        };
        Self { upper: std::array::from_fn(character), sloppy, restores_a0: true }
    }

    /// Returns the character of a byte of at least 0x80.
    pub(super) fn decode_upper(&self, byte: u8) -> char {
        self.upper[usize::from(byte - 0x80)]
    }

    /// Encodes `text`; `None` if it has a character outside this encoding.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let byte = |c: char| match c {
            '\u{1a}' if self.sloppy => None,
            '\u{fffd}' if self.sloppy => Some(0x1a),
            '\0'..='\x7f' => Some(c as u8),
            _ => self.upper.iter().position(|&known| known == c).map(|i| 0x80 + i as u8),
        };
        text.chars().map(byte).collect()
    }
}

/// Flags of a character: its possible roles as a byte of UTF-8 that was decoded with a Windows encoding.
pub(super) mod clue {
    pub(in super::super) const LEADS_TWO: u8 = 1;
    pub(in super::super) const LEADS_THREE: u8 = 2;
    pub(in super::super) const LEADS_FOUR: u8 = 4;
    pub(in super::super) const CONTINUES: u8 = 8;
    /// Continuation byte whose character is rare in real text.
    pub(in super::super) const CONTINUES_STRICTLY: u8 = 16;
}

/// The encodings to try, in this order.
pub(super) static CODE_PAGES: LazyLock<[CodePage; 10]> = LazyLock::new(|| {
    let mac_roman = CodePage { restores_a0: false, ..CodePage::new(MAC_ROMAN, false) };
    [
        CodePage::new(LATIN_1, false),
        CodePage::new(WINDOWS_1252, true),
        CodePage::new(WINDOWS_1251, true),
        CodePage::new(WINDOWS_1250, true),
        CodePage::new(WINDOWS_1253, true),
        CodePage::new(WINDOWS_1254, true),
        CodePage::new(WINDOWS_1257, true),
        CodePage::new(ISO_8859_2, false),
        mac_roman,
        CodePage::new(CP437, false),
    ]
});

/// Index of Windows-1252 in [`CODE_PAGES`].
pub(super) const WINDOWS_1252_INDEX: usize = 1;

/// Returns the [`clue`] flags of a character.
pub(super) fn clues(c: char) -> u8 {
    static CLUES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
        let mut clues = HashMap::from([(' ', clue::CONTINUES)]);
        for page in &CODE_PAGES[..7] {
            for byte in 0x80..=0xff {
                let c = page.decode_upper(byte);
                *clues.entry(c).or_default() |= match byte {
                    // Punctuation that also occurs legitimately next to garbled text.
                    0x80..=0xbf if "–—―‘’‚“”„•…".contains(c) => clue::CONTINUES,
                    0x80..=0xbf => clue::CONTINUES | clue::CONTINUES_STRICTLY,
                    0xc2..=0xdf => clue::LEADS_TWO,
                    0xe0..=0xef => clue::LEADS_THREE,
                    // Planes in use: emoji and others, and tags.
                    0xf0 | 0xf3 => clue::LEADS_FOUR,
                    _ => 0,
                };
            }
        }
        clues
    });
    CLUES.get(&c).copied().unwrap_or(0)
}

const LATIN_1: &str = "\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
const WINDOWS_1252: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
const WINDOWS_1251: &str = "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя";
const WINDOWS_1250: &str = "€\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const WINDOWS_1253: &str = "€\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\u{9f}\u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
    ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήίΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ";
const WINDOWS_1254: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";
const WINDOWS_1257: &str = "€\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
    ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";
const ISO_8859_2: &str = "\u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const MAC_ROMAN: &str = "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
    ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_a_round_trip() {
        for page in CODE_PAGES.iter() {
            for byte in 0x80..=0xff {
                assert_eq!(page.encode(&page.decode_upper(byte).to_string()), Some(vec![byte]));
            }
        }
    }

    #[test]
    fn lost_characters_become_a_mark_in_sloppy_pages_only() {
        assert_eq!(CODE_PAGES[WINDOWS_1252_INDEX].encode("€\u{fffd}"), Some(vec![0x80, 0x1a]));
        assert_eq!(CODE_PAGES[WINDOWS_1252_INDEX].encode("\u{1a}"), None);
        assert_eq!(CODE_PAGES[0].encode("\u{fffd}"), None);
        assert_eq!(CODE_PAGES[0].encode("\u{1a}é"), Some(vec![0x1a, 0xe9]));
    }
}
