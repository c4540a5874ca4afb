//! Random changes of an input.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Pieces of the formats that are read, and numbers at the limits of types.
const PIECES: [&[u8]; 40] = [
    b"0",
    b"-1",
    b"1e308",
    b"-0.0",
    b"NaN",
    b"Infinity",
    b"18446744073709551615",
    b"9223372036854775808",
    b"4294967296",
    b"65536",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[",
    b"{",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\x1b[2J",
    b"\n",
    b"\xff",
    b"\xe2\x80\xae",
    b":",
    b",",
    b"(",
    b")",
    b"..",
    b"/",
    b"\0",
    b"weight",
    b"IEND",
    b"IDAT",
    b"\xff\xd9",
    b"\xff\xda",
    b"VP8 ",
    b"h\0",
    b"q\0",
    b"R",
    b".",
];

/// Whole numbers at the limits of types.
const NUMBERS: [u64; 10] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// Changes one thing about an input: a bit, a byte, a number, a piece that is cut, repeated, or taken from another
/// input.
pub(crate) fn change(input: &mut Vec<u8>, other: &[u8], random: &mut ChaCha8Rng) {
    let place = |random: &mut ChaCha8Rng, length: usize| random.random_range(0..=length);
    let at = place(random, input.len());
    // Short pieces are more likely than long ones.
    let longest = 1_usize << random.random_range(0..12_u32);
    let length = random.random_range(0..=longest);
    let end = (at + length).min(input.len());
    match random.random_range(0..11_u32) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => {
            let piece = input[at..end].to_vec();
            let times = 1 << random.random_range(0..6_u32);
            drop(input.splice(at..at, piece.repeat(times)));
        }
        3 => {
            let from = place(random, other.len());
            let piece = &other[from..(from + length).min(other.len())];
            drop(input.splice(at..end, piece.iter().copied()));
        }
        4 => {
            let piece = PIECES[random.random_range(0..PIECES.len())];
            drop(input.splice(at..at, piece.iter().copied()));
        }
        5 => {
            let piece = PIECES[random.random_range(0..PIECES.len())];
            drop(input.splice(at..(at + piece.len()).min(input.len()), piece.iter().copied()));
        }
        6 => number_in_bytes(input, at, random),
        7 => number_in_digits(input, at, random),
        _ => {
            if let Some(byte) = input.get_mut(at) {
                match random.random_range(0..3_u32) {
                    0 => *byte ^= 1 << random.random_range(0..8_u32),
                    1 => *byte = random.random(),
                    _ => *byte = byte.wrapping_add(if random.random() { 1 } else { u8::MAX }),
                }
            }
        }
    }
}

/// Writes a number of one to eight bytes over those at a place.
fn number_in_bytes(input: &mut [u8], at: usize, random: &mut ChaCha8Rng) {
    let number = NUMBERS[random.random_range(0..NUMBERS.len())];
    let width = 1_usize << random.random_range(0..4_u32);
    let bytes = if random.random() { number.to_le_bytes() } else { (number << (64 - 8 * width)).to_be_bytes() };
    input.iter_mut().skip(at).zip(&bytes[..width]).for_each(|(byte, new)| *byte = *new);
}

/// Replaces the digits of the next number in the text by those of another one.
fn number_in_digits(input: &mut Vec<u8>, at: usize, random: &mut ChaCha8Rng) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|next| at + next) else { return };
    let end = start + input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = NUMBERS[random.random_range(0..NUMBERS.len())].to_string();
    drop(input.splice(start..end, number.into_bytes()));
}
