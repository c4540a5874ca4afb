//! Resampling that is bit-identical to Pillow's for 8-bit images.
//!
//! The published code resizes with Pillow, and the outputs of networks depend on the resampling library. Details
//! that matter: the filter widens with the reduction factor (antialiasing); weights are normalised in f64, then
//! rounded to integers with 22 fractional bits; rows and columns are resampled one after the other, with 8-bit
//! values in between, so that their order affects the result.

use super::{Image, ImageError, check_size};

/// Resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Triangle filter: Pillow's `BILINEAR`.
    Bilinear,
    /// Cubic filter with `a = -0.5`: Pillow's `BICUBIC`, its default.
    Bicubic,
    /// Windowed sinc with three lobes: Pillow's `LANCZOS`.
    Lanczos,
}

impl Filter {
    /// Returns the radius of the filter, in pixels of the coarser grid.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let sinc = |x: f64| {
            let x = x * std::f64::consts::PI;
            if x == 0.0 { 1.0 } else { x.sin() / x }
        };
        let distance = x.abs();
        match self {
            Self::Bilinear if distance < 1.0 => 1.0 - distance,
            Self::Bicubic if distance < 1.0 => ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0,
            Self::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

/// Range of one axis of the resized image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Number of pixels of the whole resized axis.
    pub(super) full: usize,
    /// The first pixel to compute.
    pub(super) start: usize,
    /// Number of pixels to compute.
    pub(super) len: usize,
}

impl Axis {
    pub(super) fn whole(full: usize) -> Self {
        Self { full, start: 0, len: full }
    }
}

impl Image {
    /// Returns the image in another size, bit-identical to Pillow's `resize`.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Size`] if a side is zero or too long.
    pub fn resize(&self, width: usize, height: usize, filter: Filter) -> Result<Self, ImageError> {
        check_size("the resized image", width, height)?;
        if (width, height) == (self.width(), self.height()) {
            return Ok(self.clone());
        }
        Ok(self.resample(Axis::whole(width), Axis::whole(height), filter))
    }

    /// Returns a window of the resized image without computing the rest.
    pub(super) fn resample(&self, x: Axis, y: Axis, filter: Filter) -> Self {
        let (width, height) = (self.width(), self.height());
        // Measured on Pillow 13, exact on thousands of sizes; earlier versions always resample along the rows
        // first.
        let columns_first = height > y.full && height as i64 - y.full as i64 > 2 * (width as i64 - x.full as i64);
        let (columns, rows) = (Taps::new(width, x, filter), Taps::new(height, y, filter));
        let rgb = if columns_first {
            let low = rows.along_columns(self.rgb(), width * 3, 0);
            columns.along_rows(&low, width * 3)
        } else {
            // Only the rows that contribute to the window.
            let (top, bottom) = rows.range();
            let narrow = columns.along_rows(&self.rgb()[top * width * 3..bottom * width * 3], width * 3);
            rows.along_columns(&narrow, x.len * 3, top)
        };
        Self::new(x.len, y.len, rgb)
    }
}

/// Fractional bits of a weight: 32 minus 8 for the value and 2 for the sign and overshoot.
const BITS: u32 = 22;
const HALF: i32 = 1 << (BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Source pixels and their weights for each target pixel of an axis.
struct Taps {
    /// First source pixel and number of weights, per target pixel.
    spans: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    fn new(source: usize, axis: Axis, filter: Filter) -> Self {
        let scale = source as f64 / axis.full as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let per_pixel = 1.0 / stretch;
        let (mut spans, mut weights) = (Vec::with_capacity(axis.len), Vec::new());
        let mut span = Vec::new();
        for target in axis.start..axis.start + axis.len {
            let centre = (target as f64 + 0.5) * scale;
            // Casts truncate towards zero, and negative numbers become 0, which matches Pillow's rounding and
            // lower bound.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(source);
            span.clear();
            span.extend((first..end).map(|pixel| filter.weight((pixel as f64 - centre + 0.5) * per_pixel)));
            let total: f64 = span.iter().sum();
            spans.push((first, span.len()));
            weights.extend(span.iter().map(|weight| {
                let fixed = (if total == 0.0 { *weight } else { weight / total }) * f64::from(1_u32 << BITS);
                (fixed + 0.5_f64.copysign(fixed)) as i32
            }));
        }
        Self { spans, weights }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = self.weights.as_slice();
        self.spans.iter().map(move |&(first, len)| {
            let (weights, after) = rest.split_at(len);
            rest = after;
            (first, weights)
        })
    }

    /// Resamples every row of `stride` bytes.
    fn along_rows(&self, rgb: &[u8], stride: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(rgb.len() / stride * self.spans.len() * 3);
        for row in rgb.chunks_exact(stride) {
            for (first, weights) in self.iter() {
                let mut sums = [HALF; 3];
                for (pixel, &weight) in row[first * 3..].as_chunks::<3>().0.iter().zip(weights) {
                    for (sum, &value) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(value) * weight;
                    }
                }
                out.extend(sums.map(to_byte));
            }
        }
        out
    }

    /// Resamples all columns at once; rows have `stride` bytes, and the first one is row `top` of the image.
    fn along_columns(&self, rgb: &[u8], stride: usize, top: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.spans.len() * stride);
        let mut sums = vec![HALF; stride];
        for (first, weights) in self.iter() {
            sums.fill(HALF);
            for (row, &weight) in rgb[(first - top) * stride..].chunks_exact(stride).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(value) * weight;
                }
            }
            out.extend(sums.iter().map(|&sum| to_byte(sum)));
        }
        out
    }

    /// Returns the range of the source pixels in use, as first and end.
    fn range(&self) -> (usize, usize) {
        let first = self.spans.iter().map(|span| span.0).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.0 + span.1).max().unwrap_or(0);
        (first, end)
    }
}
