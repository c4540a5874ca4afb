//! Unfolds the windows of a convolution into the columns of a matrix (im2col) and adds them back (col2im),
//! channel by channel.

use std::ops::Range;

/// Sizes of a convolution; `input` and `output` are `[height, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) channels: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Zeros above and on the left; pixels missing below and on the right are zero as well.
    pub(crate) padding: [usize; 2],
}

/// Range of output pixels along an axis for which a kernel tap lies within the image: the first, the one past
/// the last, and the input pixel that the first reads.
struct Span {
    first: usize,
    end: usize,
    source: usize,
}

impl Windows {
    /// Rows of the matrix per channel: one for each kernel tap.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Rows of the matrix.
    pub(crate) fn rows(&self) -> usize {
        self.channels * self.taps()
    }

    /// Output pixels.
    pub(crate) fn area(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Input pixels.
    pub(crate) fn input_area(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Whether the matrix is the image itself.
    pub(crate) fn is_image(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.input == self.output && self.padding == [0, 0]
    }

    /// Whether the kernel is 3x3 with stride 1 and padding 1, and the result as large as the image.
    pub(crate) fn is_same_3x3(&self) -> bool {
        self.kernel == [3, 3] && self.stride == [1, 1] && self.padding == [1, 1] && self.input == self.output
    }

    fn span(&self, axis: usize, tap: usize) -> Span {
        let (stride, padding) = (self.stride[axis], self.padding[axis]);
        let first = padding.saturating_sub(tap).div_ceil(stride);
        let end = (self.input[axis] + padding).saturating_sub(tap).div_ceil(stride).min(self.output[axis]);
        let first = first.min(end);
        Span { first, end, source: (first * stride + tap).saturating_sub(padding) }
    }

    /// Writes the windows of a channel at the `expected` output rows into columns `at..` of that channel's
    /// `rows` of the matrix, which have this `length`.
    pub(crate) fn unfold(&self, plane: &[f32], expected: Range<usize>, rows: &mut [f32], (at, length): (usize, usize)) {
        let width = self.output[1];
        let shifts = self.stride == [1, 1] && width == self.input[1];
        for (tap, row) in rows.chunks_exact_mut(length).enumerate() {
            let (ky, kx) = (tap / self.kernel[1], tap % self.kernel[1]);
            let (vertical, span) = (self.span(0, ky), self.span(1, kx));
            let first = vertical.first.clamp(expected.start, expected.end);
            let end = vertical.end.clamp(first, expected.end);
            let out = &mut row[at..at + expected.len() * width];
            let (above, out) = out.split_at_mut((first - expected.start) * width);
            let (out, below) = out.split_at_mut((end - first) * width);
            above.fill(0.0);
            below.fill(0.0);
            let source = vertical.source + (first - vertical.first) * self.stride[0];
            if shifts {
                self.shift(plane, source * width + kx, out);
            }
            for (y, out) in out.chunks_exact_mut(width).enumerate() {
                out[..span.first].fill(0.0);
                out[span.end..].fill(0.0);
                if !shifts && span.first < span.end {
                    let from = &plane[(source + y * self.stride[0]) * self.input[1] + span.source..];
                    for (out, x) in out[span.first..span.end].iter_mut().zip(from.iter().step_by(self.stride[1])) {
                        *out = *x;
                    }
                }
            }
        }
    }

    /// Copies a row of the matrix when the output is as wide as the input. The row is then the whole image
    /// shifted: one copy, which wraps around at the edges. `source` is the pixel that the first output would
    /// read in a padded image.
    fn shift(&self, plane: &[f32], source: usize, out: &mut [f32]) {
        let skip = self.padding[1].saturating_sub(source).min(out.len());
        let source = (source + skip).saturating_sub(self.padding[1]).min(plane.len());
        let count = (out.len() - skip).min(plane.len() - source);
        out[skip..skip + count].copy_from_slice(&plane[source..source + count]);
    }

    /// Adds a channel's rows of the matrix, for a whole image, to the pixels from which
    /// [`unfold`](Self::unfold) read them.
    pub(crate) fn fold(&self, rows: &[f32], plane: &mut [f32]) {
        let width = self.output[1];
        for (tap, row) in rows.chunks_exact(self.area()).enumerate() {
            let (vertical, span) = (self.span(0, tap / self.kernel[1]), self.span(1, tap % self.kernel[1]));
            if span.first == span.end {
                continue;
            }
            for (y, from) in (vertical.first..vertical.end).zip(row[vertical.first * width..].chunks_exact(width)) {
                let target = vertical.source + (y - vertical.first) * self.stride[0];
                let to = &mut plane[target * self.input[1] + span.source..];
                for (to, x) in to.iter_mut().step_by(self.stride[1]).zip(&from[span.first..span.end]) {
                    *to += x;
                }
            }
        }
    }
}
