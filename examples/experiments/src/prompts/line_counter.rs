//! Line numbers of places in a text.

/// Counter of the lines up to a place that moves forward, so that each byte of the text is looked at once.
pub(super) struct LineCounter<'a> {
    text: &'a [u8],
    offset: usize,
    line: usize,
}

impl<'a> LineCounter<'a> {
    /// Creates a counter at the start of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), offset: 0, line: 1 }
    }

    /// Returns the number of the line of a byte offset, from 1. The offset must not be less than that of the call before.
    pub(super) fn line_at(&mut self, offset: usize) -> usize {
        self.line += self.text[self.offset..offset].iter().filter(|byte| **byte == b'\n').count();
        self.offset = offset;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one_and_a_break_belongs_to_its_line() {
        let mut counter = LineCounter::new("a\n\r\nb");
        assert_eq!([0, 1, 2, 4, 5].map(|offset| counter.line_at(offset)), [1, 1, 2, 3, 3]);
    }
}
