//! Check that a JPEG file has the codes of all its pixels.
//!
//! The decoder fills pixels whose codes are missing with grey and reports success. This check reads the codes without
//! their values, before memory for the pixels is allocated.

use std::ops::ControlFlow;

/// Blocks of 8x8 values have 64 coefficients.
const COEFFICIENTS: usize = 64;

/// Number of bits of the longest code.
const LONGEST: usize = 16;

/// Maximum number of scans that are checked; the decoder refuses more.
const MAX_SCANS: usize = 100;

/// Checks that each scan of a JPEG file has a code for each of its blocks. Of a progressive file, scans that refine
/// other scans are not checked. Everything else, such as the tables, is left to the decoder: where they cannot be read,
/// the check ends.
///
/// # Errors
///
/// Returns a description of the scan that ends too early or has an invalid code.
pub(super) fn check_scans(bytes: &[u8]) -> Result<(), String> {
    let mut file = Jpeg::default();
    let mut at = 2;
    loop {
        match file.segment(bytes, at) {
            ControlFlow::Continue(next) => at = next?,
            ControlFlow::Break(()) => return Ok(()),
        }
    }
}

/// Component of the frame, such as the brightness.
struct Component {
    id: u8,
    horizontal: usize,
    vertical: usize,
}

/// Table of Huffman codes. Codes of one length are consecutive numbers, and shorter codes come first.
struct Codes {
    /// Length and symbol of the code that 8 bits begin with; the length is 0 if the code is longer.
    short: [(u8, u8); 256],
    /// For each length up to 16, the first 16 bits that begin with no code of at most this length.
    ends: [u32; LONGEST + 1],
    /// Number of codes that are shorter than each length.
    shorter: [usize; LONGEST + 1],
    symbols: Vec<u8>,
}

impl Codes {
    /// Creates a table from the number of codes of each length. Returns `None` if there are more than 16 bits allow.
    fn new(counts: &[u8; LONGEST], symbols: &[u8]) -> Option<Self> {
        let mut codes =
            Self { short: [(0, 0); 256], ends: [0; LONGEST + 1], shorter: [0; LONGEST + 1], symbols: symbols.to_vec() };
        let (mut end, mut index) = (0, 0);
        for (length, count) in (1..).zip(counts) {
            codes.shorter[length] = index;
            for _ in 0..*count {
                let start = end;
                end += 1 << (LONGEST - length);
                if length <= 8 {
                    codes.short.get_mut(start >> 8..end >> 8)?.fill((length as u8, *symbols.get(index)?));
                }
                index += 1;
            }
            codes.ends[length] = end as u32;
        }
        (end <= 1 << LONGEST && index == symbols.len()).then_some(codes)
    }

    /// Returns length and symbol of the code that 16 bits begin with.
    fn find(&self, bits: u32) -> Option<(usize, u8)> {
        let (length, symbol) = self.short[bits as usize >> 8];
        if length > 0 {
            return Some((length.into(), symbol));
        }
        let length = (9..=LONGEST).find(|length| bits < self.ends[*length])?;
        let index = (bits - self.ends[length - 1]) >> (LONGEST - length);
        Some((length, *self.symbols.get(self.shorter[length] + index as usize)?))
    }
}

/// Component of a scan, with its tables of codes.
struct Part<'a> {
    blocks: usize,
    dc: Option<&'a Codes>,
    ac: Option<&'a Codes>,
}

/// Frame, tables and scans of a file, as far as its segments were read.
#[derive(Default)]
struct Jpeg {
    width: usize,
    height: usize,
    components: Vec<Component>,
    is_progressive: bool,
    /// Number of units after which the codes begin anew; 0 if they never do.
    interval: usize,
    /// Components that a scan has.
    seen: Vec<u8>,
    /// Number of scans so far.
    scans: usize,
    dc: [Option<Codes>; 4],
    ac: [Option<Codes>; 4],
}

impl Jpeg {
    /// Reads the segment from position `at` on. Returns the position of the next one, or breaks at the end of the
    /// image, or where the decoder has to judge.
    fn segment(&mut self, bytes: &[u8], at: usize) -> ControlFlow<(), Result<usize, String>> {
        let Some(marker) = next_marker(bytes, at) else { return ControlFlow::Break(()) };
        let kind = bytes[marker + 1];
        if matches!(kind, 0x01 | 0xd0..=0xd8) {
            return ControlFlow::Continue(Ok(marker + 2));
        }
        if kind == 0xd9 {
            return match self.components.iter().position(|one| !self.seen.contains(&one.id)) {
                Some(index) => ControlFlow::Continue(Err(format!("component {index} has no scan"))),
                None => ControlFlow::Break(()),
            };
        }
        let Some((body, next)) = body_of(bytes, marker + 2) else { return ControlFlow::Break(()) };
        let is_read = match kind {
            0xc0..=0xc2 => self.frame(body, kind == 0xc2),
            0xc4 => self.codes(body),
            // Kinds of files that the decoder refuses.
            0xc3 | 0xc5..=0xcf => None,
            0xdd => body.first_chunk().map(|interval| self.interval = u16::from_be_bytes(*interval).into()),
            0xda if self.scans == MAX_SCANS => None,
            0xda => match self.scan(body, &bytes[next..]) {
                Some(Err(what)) => return ControlFlow::Continue(Err(what)),
                scan => scan.map(|_| ()),
            },
            _ => Some(()),
        };
        if is_read.is_some() { ControlFlow::Continue(Ok(next)) } else { ControlFlow::Break(()) }
    }

    fn frame(&mut self, body: &[u8], is_progressive: bool) -> Option<()> {
        let &[_, h1, h0, w1, w0, count, ref components @ ..] = body else { return None };
        if !self.components.is_empty() {
            // A second image in one file, whose size nobody has checked.
            return None;
        }
        (self.height, self.width) = (u16::from_be_bytes([h1, h0]).into(), u16::from_be_bytes([w1, w0]).into());
        let (components, _) = components.get(..usize::from(count) * 3)?.as_chunks();
        let component = |&[id, sampling, _]: &[u8; 3]| Component {
            id,
            horizontal: usize::from(sampling >> 4),
            vertical: usize::from(sampling & 15),
        };
        self.components = components.iter().map(component).collect();
        self.is_progressive = is_progressive;
        let is_valid = |one: &Component| (1..=4).contains(&one.horizontal) && (1..=4).contains(&one.vertical);
        (self.width > 0 && self.height > 0 && self.components.iter().all(is_valid)).then_some(())
    }

    /// Reads tables of codes: for each length from 1 to 16 the number of codes, then their symbols.
    fn codes(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((&[place, ref counts @ ..], rest)) = body.split_first_chunk::<{ LONGEST + 1 }>() {
            let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(total)?;
            let codes = Codes::new(counts, symbols)?;
            body = rest;
            let tables = if place >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(place & 15))? = Some(codes);
        }
        body.is_empty().then_some(())
    }

    /// Reads the codes of a scan. Returns `None` where its header cannot be understood.
    fn scan(&mut self, body: &[u8], data: &[u8]) -> Option<Result<(), String>> {
        self.scans += 1;
        let (count, rest) = body.split_first()?;
        let (parts, rest) = rest.split_at_checked(usize::from(*count) * 2)?;
        let &[first, last, approximation] = rest else { return None };
        let widest = self.components.iter().map(|one| one.horizontal).max()?;
        let tallest = self.components.iter().map(|one| one.vertical).max()?;
        let (mut columns, mut rows) = (self.width.div_ceil(8 * widest), self.height.div_ceil(8 * tallest));
        let seen: Vec<u8> = parts.iter().step_by(2).copied().collect();
        let mut all = Vec::new();
        for &[id, tables] in parts.as_chunks().0 {
            let component = self.components.iter().find(|one| one.id == id)?;
            let mut blocks = component.horizontal * component.vertical;
            if *count == 1 {
                // A component alone is not padded to the units of all.
                columns = (self.width * component.horizontal).div_ceil(8 * widest);
                rows = (self.height * component.vertical).div_ceil(8 * tallest);
                blocks = 1;
            }
            let [dc, ac] = [(&self.dc, tables >> 4), (&self.ac, tables & 15)]
                .map(|(tables, index)| tables.get(usize::from(index)).and_then(Option::as_ref));
            all.push(Part { blocks, dc, ac });
        }
        if self.is_progressive && approximation >> 4 != 0 {
            // A scan that refines others. Its codes depend on the values of those.
            return Some(Ok(()));
        }
        let coefficients = if self.is_progressive { (first.into(), last.into()) } else { (0, COEFFICIENTS - 1) };
        let units = columns * rows;
        let mut codes = Reader::new(data);
        for unit in 0..units {
            let is_restart = self.interval > 0 && unit > 0 && unit.is_multiple_of(self.interval);
            if is_restart && codes.restart().is_none() {
                return Some(Err(format!("a scan ends after {unit} of {units} units")));
            }
            for part in &all {
                for _ in 0..part.blocks {
                    match codes.block(part, coefficients)? {
                        Ok(()) => {}
                        Err(Fault::End) => return Some(Err(format!("a scan ends after {unit} of {units} units"))),
                        Err(Fault::Code) => return Some(Err(format!("unit {unit} of {units} of a scan has no code"))),
                    }
                }
            }
        }
        self.seen.extend(seen);
        Some(Ok(()))
    }
}

/// Returns the position of the next marker.
fn next_marker(bytes: &[u8], at: usize) -> Option<usize> {
    let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff);
    bytes.get(at..)?.windows(2).position(is_marker).map(|next| at + next)
}

/// Returns the body of the segment whose length is at a position, and the position behind it.
fn body_of(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    Some((bytes.get(at + 2..at + length)?, at + length))
}

/// Reason why a block cannot be read.
enum Fault {
    /// The data ends before the block.
    End,
    /// The bits are no code.
    Code,
}

/// Reader of the codes of a scan.
struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the highest on; zeros behind them.
    bits: u64,
    count: usize,
    /// Number of further blocks without coefficients, in progressive files.
    empty_blocks: usize,
}

impl<'a> Reader<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, bits: 0, count: 0, empty_blocks: 0 }
    }

    /// Fills the bits up to the next marker.
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.at..self.at + 2) {
                Some([0xff, 0x00]) => {
                    self.at += 1;
                    0xff
                }
                Some(&[byte, _]) if byte != 0xff => byte,
                _ => return,
            };
            self.at += 1;
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn take(&mut self, count: usize) -> Result<usize, Fault> {
        if count > self.count {
            return Err(Fault::End);
        }
        let taken = if count == 0 { 0 } else { self.bits >> (64 - count) };
        self.bits <<= count;
        self.count -= count;
        Ok(taken as usize)
    }

    /// Reads a code and returns its symbol. The values of at most 16 bits that follow it are filled in as well.
    fn code(&mut self, codes: &Codes) -> Result<usize, Fault> {
        self.fill();
        let Some((length, symbol)) = codes.find((self.bits >> (64 - LONGEST)) as u32) else {
            return Err(if self.count < LONGEST { Fault::End } else { Fault::Code });
        };
        self.take(length)?;
        Ok(symbol.into())
    }

    /// Reads the coefficients from the first to the last of a block. Returns `None` where a table is missing or a symbol
    /// is not one of the format.
    fn block(&mut self, part: &Part<'_>, (first, last): (usize, usize)) -> Option<Result<(), Fault>> {
        let mut at = first;
        if at == 0 {
            match self.code(part.dc?) {
                Ok(size) if size > LONGEST => return None,
                Ok(size) => {
                    if let Err(fault) = self.take(size) {
                        return Some(Err(fault));
                    }
                }
                Err(fault) => return Some(Err(fault)),
            }
            at = 1;
        } else if self.empty_blocks > 0 {
            self.empty_blocks -= 1;
            return Some(Ok(()));
        }
        if at > last {
            return Some(Ok(()));
        }
        let read = self.further(part.ac?, at, last);
        Some(read.map(|run| self.empty_blocks = if first == 0 { 0 } else { run }))
    }

    /// Reads the coefficients from position `at` on. Returns the number of blocks behind this one that are empty.
    fn further(&mut self, codes: &Codes, mut at: usize, last: usize) -> Result<usize, Fault> {
        while at <= last {
            let symbol = self.code(codes)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            match (run, size) {
                (15, 0) => at += 16,
                // The rest of this block is empty.
                (run, 0) => return Ok((1 << run) - 1 + self.take(run)?),
                (run, size) => {
                    at += run + 1;
                    self.take(size)?;
                }
            }
        }
        Ok(0)
    }

    /// Continues behind the next marker, if it says that the codes begin anew.
    fn restart(&mut self) -> Option<()> {
        let marker = next_marker(self.data, self.at)?;
        (self.bits, self.count, self.empty_blocks) = (0, 0, 0);
        self.at = marker + 2;
        matches!(self.data[marker + 1], 0xd0..=0xd7).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/jpeg");
        std::fs::read(folder.join(format!("{name}.jpg"))).expect("a file of the tests")
    }

    /// Positions behind the headers of the scans.
    fn scans(bytes: &[u8]) -> Vec<usize> {
        let is_scan = |at: &usize| bytes[*at..].starts_with(&[0xff, 0xda, 0]);
        (0..bytes.len()).filter(is_scan).map(|at| at + 2 + usize::from(bytes[at + 3])).collect()
    }

    const SEQUENTIAL: [&str; 6] = ["444", "422", "420", "420-restart", "grey", "cmyk"];
    const PROGRESSIVE: [&str; 4] = ["progressive", "progressive-restart", "grey-progressive", "flat-progressive"];

    #[test]
    fn files_of_all_kinds_are_complete() {
        for name in SEQUENTIAL.iter().chain(&PROGRESSIVE) {
            assert_eq!(check_scans(&fixture(name)), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_scan_that_is_cut_anywhere_is_refused_though_an_end_marker_follows() {
        for name in SEQUENTIAL.iter().chain(&PROGRESSIVE) {
            let whole = fixture(name);
            let first = scans(&whole)[0];
            let end = next_marker(&whole, first).expect("a marker");
            // The last bytes may be codes of one unit and the padding behind them.
            for at in first..end - 3 {
                let cut = [&whole[..at], &[0xff, 0xd9]].concat();
                let error = check_scans(&cut).expect_err(name);
                assert!(error.contains("a scan ends after") || error.contains("has no code"), "{name}: {error}");
            }
        }
    }

    #[test]
    fn a_larger_frame_than_the_scan_fills_is_refused() {
        for name in SEQUENTIAL.iter().chain(&PROGRESSIVE) {
            let mut bytes = fixture(name);
            let frame = (0..bytes.len()).find(|at| bytes[*at] == 0xff && matches!(bytes[at + 1], 0xc0..=0xc2));
            let height = frame.expect("a frame") + 5;
            bytes[height] = 0x1f;
            assert!(check_scans(&bytes).is_err(), "{name}");
        }
    }

    #[test]
    fn a_component_without_a_scan_is_refused() {
        let whole = fixture("444");
        let start = (0..whole.len()).find(|at| whole[*at..].starts_with(&[0xff, 0xda])).expect("a scan");
        let without = [&whole[..start], &[0xff, 0xd9]].concat();
        assert_eq!(check_scans(&without), Err("component 0 has no scan".to_owned()));
    }

    #[test]
    fn further_scans_and_frames_than_the_decoder_reads_are_left_to_it() {
        let whole = fixture("flat-progressive");
        let (start, end) = (scans(&whole)[0], whole.len() - 2);
        let frame = (0..whole.len()).find(|at| whole[*at] == 0xff && whole[at + 1] == 0xc2).expect("a frame");
        let length = usize::from(u16::from_be_bytes([whole[frame + 2], whole[frame + 3]])) + 2;
        let mut larger = whole[frame..frame + length].to_vec();
        larger[5..9].fill(0xff);
        // The missing codes behind the second frame would be an error.
        let two_frames = [&whole[..end], &larger, &whole[frame + length..]].concat();
        assert_eq!(check_scans(&two_frames), Ok(()));
        let header = whole[..start].windows(2).rposition(|two| two == [0xff, 0xda]).expect("a scan");
        let next = next_marker(&whole, start).expect("a marker");
        let many = whole[header..next].repeat(MAX_SCANS);
        let cut = [&whole[..end], &many, &whole[header..start], &[0xff, 0xd9]].concat();
        assert_eq!(check_scans(&cut), Ok(()));
    }

    #[test]
    fn tables_and_headers_that_cannot_be_read_are_left_to_the_decoder() {
        for bytes in [
            b"\xff\xd8".as_slice(),
            b"\xff\xd8\xff\xc4\x00\x02\xff\xd9",
            b"\xff\xd8\xff\xc4\x00\x14\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\xff\xd9",
            b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x00\x00\xff\xd9",
            b"\xff\xd8\xff\xda\x00\x00",
            b"\xff\xd8\xff\xdd\x00\x03\x00",
        ] {
            assert_eq!(check_scans(bytes), Ok(()), "{bytes:02x?}");
        }
    }
}
