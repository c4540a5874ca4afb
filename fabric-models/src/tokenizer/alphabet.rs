//! Byte-level alphabet of BPE vocabularies: one printable character for each byte.

use std::sync::LazyLock;

/// Suffix of a token that ends a word.
pub(super) const END_OF_WORD: &str = "</w>";

/// All bytes in the order of their ids: printable ones of Latin-1 first.
pub(super) static BYTES: LazyLock<[u8; 256]> = LazyLock::new(|| {
    let (printable, rest): (Vec<u8>, Vec<u8>) = (0..=255_u8).partition(|&byte| is_printable(byte));
    let mut bytes = [0; 256];
    for (slot, byte) in bytes.iter_mut().zip(printable.into_iter().chain(rest)) {
        *slot = byte;
    }
    bytes
});

/// Character of each byte: itself if printable, else the next free one from U+0100 on.
pub(super) static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut characters = ['\0'; 256];
    let mut free = '\u{100}'..;
    for &byte in BYTES.iter() {
        characters[usize::from(byte)] =
            if is_printable(byte) { char::from(byte) } else { free.next().unwrap_or_default() };
    }
    characters
});

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// Returns the byte that a character of a token encodes, if it is in the alphabet.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|&byte| is_printable(byte)),
        // The unprintable bytes, in order: 0x00 to 0x20, 0x7F to 0xA0, 0xAD.
        code @ 0x100..=0x143 => BYTES.get(188 + (code - 0x100) as usize).copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for byte in 0..=255 {
            assert_eq!(byte_of(CHARACTERS[usize::from(byte)]), Some(byte));
        }
        assert_eq!(CHARACTERS[usize::from(b' ')], 'Ġ');
        assert_eq!([byte_of(' '), byte_of('\u{144}'), byte_of('日')], [None; 3]);
    }
}
