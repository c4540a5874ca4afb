//! Writer of PNG files that checks nothing, so that it can write invalid ones.

/// The first bytes of every PNG file.
pub(crate) const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Returns a file with these chunks.
pub(crate) fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    [SIGNATURE.as_slice(), &chunks.concat()].concat()
}

/// Returns a chunk with its length and checksum.
pub(crate) fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind.as_slice(), data].concat();
    [(data.len() as u32).to_be_bytes().as_slice(), &body, &checksum(&body).to_be_bytes()].concat()
}

/// Returns the data of a header.
pub(crate) fn header(width: u32, height: u32, depth: u8, colour_type: u8) -> Vec<u8> {
    [width.to_be_bytes().as_slice(), &height.to_be_bytes(), &[depth, colour_type, 0, 0, 0]].concat()
}

/// Returns a zlib stream of one uncompressed block of at most 65,535 bytes.
pub(crate) fn zlib(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a short block");
    let block = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
    let adler = data.iter().fold([1_u32, 0], |[sum, sums], byte| {
        let sum = (sum + u32::from(*byte)) % 65_521;
        [sum, (sums + sum) % 65_521]
    });
    let adler = adler[1] << 16 | adler[0];
    [[0x78, 1, 1].as_slice(), &block, data, &adler.to_be_bytes()].concat()
}

/// Returns a zlib stream of many equal bytes, which has one byte for about 160 of them.
pub(crate) fn zlib_run(byte: u8, count: usize) -> Vec<u8> {
    assert!(byte < 144 && count > 0, "a byte whose code has eight bits");
    let literal = (0x30 + u32::from(byte), 8);
    let mut bits = Bits::default();
    // The last block, with fixed codes.
    [1, 1, 0].into_iter().for_each(|bit| bits.push(bit));
    bits.push_code(literal);
    for _ in 0..(count - 1) / 258 {
        // The last 258 bytes again, from a distance of one.
        bits.push_code((0b1100_0101, 8));
        bits.push_code((0, 5));
    }
    (0..(count - 1) % 258).for_each(|_| bits.push_code(literal));
    bits.push_code((0, 7));
    let (value, count) = (u64::from(byte), count as u64);
    let sum = (1 + count * value) % 65_521;
    let sums = (count + value * (count * (count + 1) / 2)) % 65_521;
    let adler = (sums << 16 | sum) as u32;
    [[0x78, 1].as_slice(), &bits.bytes, &adler.to_be_bytes()].concat()
}

/// Bits, which fill each byte from its lowest bit up.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn push(&mut self, bit: u32) {
        let at = self.count % 8;
        if at == 0 {
            self.bytes.push(0);
        }
        *self.bytes.last_mut().expect("a byte") |= (bit as u8) << at;
        self.count += 1;
    }

    /// Adds a Huffman code of this value and length, from its highest bit down.
    fn push_code(&mut self, (code, length): (u32, u32)) {
        (0..length).rev().for_each(|at| self.push(code >> at & 1));
    }
}

/// The checksum of a chunk.
fn checksum(body: &[u8]) -> u32 {
    !body.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}
