//! Lengths of the WebSocket messages that a client sends.

/// Reason why a connection is ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A message is longer than allowed.
    TooLong,
    /// Unfinished messages of all clients are longer than allowed.
    TooMuchPending,
}

/// Change in the number of bytes of unfinished messages: the header of a frame adds its length, and the end of a message
/// takes away the lengths of all its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A frame of a message with this length begins.
    Begin(u64),
    /// A message with this length in all of its frames has ended.
    End(u64),
}

/// Reader of the headers of WebSocket frames (RFC 6455) in a stream of bytes, which skips what they carry.
///
/// A message may consist of several frames, between which there may be short control frames.
#[derive(Debug)]
pub(super) struct Frames {
    /// Maximum length of a message in bytes.
    most: u64,
    /// Bytes of a header that is not complete.
    header: Vec<u8>,
    /// Bytes of the current frame that are still to come.
    left: u64,
    /// Whether the message ends with the current frame.
    is_last: bool,
    /// Length of the current message up to the end of the current frame.
    message: u64,
}

impl Frames {
    pub(super) fn new(most: u64) -> Self {
        Self { most, header: Vec::new(), left: 0, is_last: true, message: 0 }
    }

    /// Returns whether all of the bytes so far are those of complete messages.
    pub(super) fn is_between_messages(&self) -> bool {
        self.header.is_empty() && self.left == 0 && self.is_last
    }

    /// Reads the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// Returns an error if a message is too long, and the errors of `tell`.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        mut tell: impl FnMut(Event) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.header.push(bytes[0]);
                bytes = &bytes[1..];
                let Some((is_control, is_last, length)) = parsed(&self.header) else { continue };
                self.header.clear();
                self.left = length;
                if !is_control {
                    self.message = self.message.saturating_add(length);
                    self.is_last = is_last;
                    if self.message > self.most {
                        return Err(Refusal::TooLong);
                    }
                    tell(Event::Begin(length))?;
                } else if length > MAX_CONTROL {
                    return Err(Refusal::TooLong);
                }
            } else {
                let taken = self.left.min(bytes.len() as u64);
                bytes = &bytes[taken as usize..];
                self.left -= taken;
            }
            if self.is_between_messages() && self.message > 0 {
                tell(Event::End(std::mem::take(&mut self.message)))?;
            }
        }
        Ok(())
    }
}

/// Maximum length of what a control frame carries.
const MAX_CONTROL: u64 = 125;

/// Returns whether a header is that of a control frame, whether it is the last of its message, and the length of what it
/// carries; `None` if the header is not complete. The mask, which clients send, is a part of the header.
fn parsed(header: &[u8]) -> Option<(bool, bool, u64)> {
    let &[first, second, ref rest @ ..] = header else { return None };
    let (length_bytes, short) = match second & 0x7f {
        126 => (2, 0),
        127 => (8, 0),
        short => (0, u64::from(short)),
    };
    let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
    if rest.len() < length_bytes + mask_bytes {
        return None;
    }
    let long = rest[..length_bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    Some((first & 0x08 != 0, first & 0x80 != 0, short + long))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frame with a mask, as clients send it.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..65536 => bytes.extend([vec![0x80 | 126], (length as u16).to_be_bytes().to_vec()].concat()),
            _ => bytes.extend([vec![0x80 | 127], (length as u64).to_be_bytes().to_vec()].concat()),
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + length, 0x82);
        bytes
    }

    /// Reads a stream in pieces of `size` bytes. Returns the lengths that began and those that ended.
    fn read(stream: &[u8], size: usize, most: u64) -> Result<(Vec<u64>, Vec<u64>, bool), Refusal> {
        let (mut frames, mut begun, mut ended) = (Frames::new(most), Vec::new(), Vec::new());
        for piece in stream.chunks(size) {
            frames.read(piece, |event| {
                match event {
                    Event::Begin(length) => begun.push(length),
                    Event::End(length) => ended.push(length),
                }
                Ok(())
            })?;
        }
        Ok((begun, ended, frames.is_between_messages()))
    }

    #[test]
    fn lengths_of_messages_do_not_depend_on_how_the_stream_is_cut() {
        // A short message, one of three frames with a ping between them, and a long one.
        let stream =
            [frame(0x82, 5), frame(0x02, 200), frame(0x89, 3), frame(0x00, 0), frame(0x80, 70_000), frame(0x82, 126)]
                .concat();
        for size in [1, 2, 3, 7, 64, 1000, stream.len()] {
            let (begun, ended, is_between) = read(&stream, size, 1 << 20).expect("short messages");
            assert_eq!(begun, [5, 200, 0, 70_000, 126], "pieces of {size} bytes");
            assert_eq!(ended, [5, 70_200, 126]);
            assert!(is_between);
            for cut in [1, 6, 11 + 10, 11 + 100, stream.len() - 1] {
                assert!(!read(&stream[..cut], size, 1 << 20).expect("short messages").2, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_header() {
        let header = &frame(0x82, 1 << 20)[..14];
        assert_eq!(read(header, 1, (1 << 20) - 1), Err(Refusal::TooLong));
        assert!(read(header, 1, 1 << 20).is_ok());
        // Frames of one message count together.
        let frames = [frame(0x02, 600), frame(0x80, 600)].concat();
        assert_eq!(read(&frames, 50, 1199), Err(Refusal::TooLong));
        assert!(read(&frames, 50, 1200).is_ok());
        let mut endless = frame(0x82, 0)[..1].to_vec();
        endless.extend([vec![0xff], u64::MAX.to_be_bytes().to_vec(), vec![0; 4]].concat());
        assert_eq!(read(&endless, 3, 1 << 30), Err(Refusal::TooLong));
        assert_eq!(read(&frame(0x89, 126), 50, 1 << 30), Err(Refusal::TooLong), "a ping");
    }
}
