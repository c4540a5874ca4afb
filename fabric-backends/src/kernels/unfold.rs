//! A convolution's windows as the columns of a matrix, and back.

use std::ops::Range;

/// What a convolution reads and writes; `input` and `output` are `[height, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) channels: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Zeros above and on the left; what is missing below and on the right is zero as well.
    pub(crate) padding: [usize; 2],
}

/// Output pixels in a row that read a picture's own pixels through one column of the kernel: their first, their end,
/// and the input's pixel that the first reads.
struct Span {
    first: usize,
    end: usize,
    source: usize,
}

impl Windows {
    /// Rows of the matrix: one for each channel and place in the kernel.
    pub(crate) fn rows(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// Output pixels.
    pub(crate) fn area(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Input pixels.
    pub(crate) fn input_area(&self) -> usize {
        self.input[0] * self.input[1]
    }

    fn span(&self, axis: usize, tap: usize) -> Span {
        let (stride, padding) = (self.stride[axis], self.padding[axis]);
        let first = padding.saturating_sub(tap).div_ceil(stride);
        // The last output that reads pixel `input - 1` or one before it.
        let end = (self.input[axis] + padding).saturating_sub(tap).div_ceil(stride).min(self.output[axis]);
        let first = first.min(end);
        Span { first, end, source: (first * stride + tap).saturating_sub(padding) }
    }

    /// Calls `f` with the matrix's row, and for each of the wanted output rows that read something, with the output
    /// row (counted from the first wanted), its span, and the channel's first element of that input row.
    #[inline(always)]
    fn visit(&self, wanted: &Range<usize>, mut f: impl FnMut(usize, usize, &Span, usize)) {
        for channel in 0..self.channels {
            for ky in 0..self.kernel[0] {
                let vertical = self.span(0, ky);
                for kx in 0..self.kernel[1] {
                    let row = (channel * self.kernel[0] + ky) * self.kernel[1] + kx;
                    let span = self.span(1, kx);
                    for y in wanted.start.max(vertical.first)..wanted.end.min(vertical.end) {
                        let source = vertical.source + (y - vertical.first) * self.stride[0];
                        f(row, y - wanted.start, &span, channel * self.input_area() + source * self.input[1]);
                    }
                }
            }
        }
    }

    /// Writes the windows of the wanted output rows of one picture into columns `at..` of the matrix with rows of
    /// `length`.
    pub(crate) fn unfold(
        &self,
        picture: &[f32],
        wanted: Range<usize>,
        matrix: &mut [f32],
        (at, length): (usize, usize),
    ) {
        if self.stride == [1, 1] && self.output[1] == self.input[1] {
            return self.unfold_shifted(picture, wanted, matrix, (at, length));
        }
        let [step, width] = [self.stride[1], self.output[1]];
        for row in matrix.chunks_exact_mut(length) {
            row[at..at + wanted.len() * width].fill(0.0);
        }
        self.visit(
            &wanted,
            #[inline(always)]
            |row, y, span, source| {
                let out = &mut matrix[row * length + at + y * width..][span.first..span.end];
                for (out, x) in out.iter_mut().zip(picture[source + span.source..].iter().step_by(step)) {
                    *out = *x;
                }
            },
        );
    }

    /// Where rows stay as long as they are, a row of the matrix is the whole picture, shifted: one copy, and zeros
    /// where it wrapped around.
    fn unfold_shifted(&self, picture: &[f32], wanted: Range<usize>, matrix: &mut [f32], (at, length): (usize, usize)) {
        let width = self.output[1];
        let [height_of_kernel, width_of_kernel] = self.kernel;
        let planes = picture.chunks_exact(self.input_area());
        let rows = matrix.chunks_exact_mut(length * height_of_kernel * width_of_kernel);
        for (plane, rows) in planes.zip(rows) {
            for (tap, row) in rows.chunks_exact_mut(length).enumerate() {
                let (ky, kx) = (tap / width_of_kernel, tap % width_of_kernel);
                let (vertical, span) = (self.span(0, ky), self.span(1, kx));
                let out = &mut row[at..at + wanted.len() * width];
                let first = vertical.first.clamp(wanted.start, wanted.end);
                let end = vertical.end.clamp(first, wanted.end);
                let (above, out) = out.split_at_mut((first - wanted.start) * width);
                let (out, below) = out.split_at_mut((end - first) * width);
                above.fill(0.0);
                below.fill(0.0);
                if out.is_empty() {
                    continue;
                }
                // What the first output pixel would read, were there no edge; perhaps just outside of the plane.
                let source = (vertical.source + first - vertical.first) * width + kx;
                let skip = self.padding[1].saturating_sub(source).min(out.len());
                let source = (source + skip - self.padding[1]).min(plane.len());
                let count = (out.len() - skip).min(plane.len() - source);
                out[skip..skip + count].copy_from_slice(&plane[source..source + count]);
                if span.first > 0 || span.end < width {
                    for row in out.chunks_exact_mut(width) {
                        row[..span.first].fill(0.0);
                        row[span.end..].fill(0.0);
                    }
                }
            }
        }
    }

    /// Adds columns `at..` of the matrix to the pixels that [`unfold`](Self::unfold) read them from.
    pub(crate) fn fold(&self, matrix: &[f32], (at, length): (usize, usize), picture: &mut [f32]) {
        let [step, width] = [self.stride[1], self.output[1]];
        self.visit(
            &(0..self.output[0]),
            #[inline(always)]
            |row, y, span, target| {
                let from = &matrix[row * length + at + y * width..][span.first..span.end];
                let target = &mut picture[target + span.source..];
                for (out, x) in target.iter_mut().step_by(step).zip(from) {
                    *out += x;
                }
            },
        );
    }
}
