//! Encoding and decoding of large images in overlapping tiles, as in diffusers.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use fabric_core::Error;

/// Size and overlap of the tiles of large images, in latents (8 pixels each).
///
/// Norms and attention see one tile at a time, so the result is close to, but not equal to, that without tiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    tile: usize,
    overlap: usize,
}

impl Tiling {
    /// Creates square tiles of side `tile` whose neighbours share `overlap`; diffusers uses 64 and 16.
    ///
    /// # Errors
    ///
    /// Returns an error unless `overlap` is less than `tile`.
    pub fn new(tile: usize, overlap: usize) -> Result<Self, Error> {
        if overlap < tile {
            return Ok(Self { tile, overlap });
        }
        let expected = "tiles larger than their overlap";
        let got = format!("tiles of {tile} latents that overlap by {overlap}");
        Err(Error::settings("VAE tiling", got, expected, "take tiles of 64 with an overlap of 16"))
    }

    /// Returns the side of a tile.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// Returns the overlap of neighbouring tiles.
    pub fn overlap(&self) -> usize {
        self.overlap
    }

    /// Returns whether latents of this height and width need more than one tile.
    pub fn cuts(&self, height: usize, width: usize) -> bool {
        height > self.tile || width > self.tile
    }

    /// Runs `decode` on tiles of `latents`; its output is larger by the factor `scale`.
    pub(super) fn decode(
        &self,
        latents: Tensor<4>,
        scale: usize,
        mut decode: impl FnMut(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let [_, _, height, width] = latents.dims();
        let grid =
            Grid { rows: self.spans(height), columns: self.spans(width), kept: (self.tile - self.overlap) * scale };
        grid.assemble(self.overlap * scale, |rows, columns| decode(cut(&latents, rows, columns)))
    }

    /// Runs `encode` on tiles of `pixels`; its output is smaller by the factor `scale`.
    pub(super) fn encode(
        &self,
        pixels: Tensor<4>,
        scale: usize,
        mut encode: impl FnMut(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let [_, _, height, width] = pixels.dims();
        let grid = Grid {
            rows: self.spans(height / scale),
            columns: self.spans(width / scale),
            kept: self.tile - self.overlap,
        };
        grid.assemble(self.overlap, |rows, columns| {
            // Pixels that do not fill a latent belong to the last tile.
            let pixels_of = |span: Range<usize>, latents: usize, size: usize| {
                span.start * scale..if span.end == latents { size } else { span.end * scale }
            };
            let rows = pixels_of(rows, height / scale, height);
            let columns = pixels_of(columns, width / scale, width);
            encode(cut(&pixels, rows, columns))
        })
    }

    /// Returns the tiles along one axis. Unlike in diffusers, no tile follows the one that reaches the end: it would
    /// lie inside its neighbour, and a narrow strip decodes poorly.
    fn spans(&self, size: usize) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        let mut start = 0;
        loop {
            let end = (start + self.tile).min(size);
            spans.push(start..end);
            if end == size {
                return spans;
            }
            start += self.tile - self.overlap;
        }
    }
}

fn cut(x: &Tensor<4>, rows: Range<usize>, columns: Range<usize>) -> Tensor<4> {
    let [count, channels, _, _] = x.dims();
    x.clone().slice([0..count, 0..channels, rows, columns])
}

/// Tiles with their positions; all but the last of each axis are cut to `kept` after the next tile is blended in.
struct Grid {
    rows: Vec<Range<usize>>,
    columns: Vec<Range<usize>>,
    kept: usize,
}

impl Grid {
    fn assemble(&self, overlap: usize, mut run: impl FnMut(Range<usize>, Range<usize>) -> Tensor<4>) -> Tensor<4> {
        let crop = |tile: Tensor<4>, axis: usize, last: bool| if last { tile } else { tile.narrow(axis, 0, self.kept) };
        let mut strips = Vec::new();
        let mut above: Vec<Tensor<4>> = Vec::new();
        for (i, rows) in self.rows.iter().enumerate() {
            let mut tiles: Vec<Tensor<4>> = Vec::new();
            for columns in &self.columns {
                let mut tile = run(rows.clone(), columns.clone());
                // Tiles are blended with tiles that are already blended, as in the published code.
                if let Some(above) = above.get(tiles.len()) {
                    tile = blend(above, tile, overlap, 2);
                }
                if let Some(left) = tiles.last() {
                    tile = blend(left, tile, overlap, 3);
                }
                tiles.push(tile);
            }
            let last_row = i + 1 == self.rows.len();
            let cropped = tiles.iter().enumerate().map(|(j, tile)| {
                let tile = crop(tile.clone(), 3, j + 1 == self.columns.len());
                crop(tile, 2, last_row)
            });
            strips.push(Tensor::cat(cropped.collect(), 3));
            above = tiles;
        }
        Tensor::cat(strips, 2)
    }
}

/// Blends the end of `before` linearly into the start of `tile` along an axis.
fn blend(before: &Tensor<4>, tile: Tensor<4>, overlap: usize, axis: usize) -> Tensor<4> {
    let (length, size) = (before.dims()[axis], tile.dims()[axis]);
    let extent = overlap.min(length).min(size);
    if extent == 0 {
        return tile;
    }
    let ramp: Vec<f32> = (0..extent).map(|k| k as f32 / extent as f32).collect();
    let mut shape = [1; 4];
    shape[axis] = extent;
    let ramp = Tensor::<4>::from_data(TensorData::new(ramp, shape), (&tile.device(), tile.dtype()));
    let old = before.clone().narrow(axis, length - extent, extent);
    let new = tile.clone().narrow(axis, 0, extent);
    let faded = old.clone() + (new - old) * ramp;
    if extent == size { faded } else { Tensor::cat(vec![faded, tile.narrow(axis, extent, size - extent)], axis) }
}

#[cfg(test)]
mod tests {
    use burn::tensor::module::interpolate;
    use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
    use burn::tensor::{Device, Distribution};
    use fabric_backends::{DeviceKind, device};

    use super::*;

    fn random(shape: [usize; 4]) -> Tensor<4> {
        let device: Device = device(DeviceKind::Flex).unwrap();
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device)
    }

    fn resize(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size))
    }

    fn difference(a: Tensor<4>, b: Tensor<4>) -> f32 {
        assert_eq!(a.dims(), b.dims());
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn tiles_of_a_pointwise_function_are_the_whole() {
        for (tile, overlap) in [(4, 1), (5, 2), (3, 0), (7, 5), (64, 16)] {
            let tiling = Tiling::new(tile, overlap).unwrap();
            for [height, width] in [[4, 4], [9, 5], [13, 16], [1, 20]] {
                let latents = random([2, 3, height, width]);
                let up = |x: Tensor<4>| {
                    let [_, _, h, w] = x.dims();
                    resize(x, [h * 8, w * 8])
                };
                let whole = up(latents.clone());
                assert!(difference(tiling.decode(latents.clone(), 8, up), whole.clone()) < 1e-6);
                let down = |x: Tensor<4>| {
                    let [_, _, h, w] = x.dims();
                    resize(x, [h / 8, w / 8])
                };
                assert!(difference(tiling.encode(whole, 8, down), latents) < 1e-6);
            }
        }
    }

    #[test]
    fn neighbours_fade_into_one_another() {
        let tiling = Tiling::new(4, 2).unwrap();
        let device = device(DeviceKind::Flex).unwrap();
        let mut calls = 0.0;
        let got = tiling.decode(Tensor::zeros([1, 1, 1, 6], &device), 2, |x| {
            let [_, _, h, w] = x.dims();
            calls += 1.0;
            Tensor::full([1, 1, h * 2, w * 2], calls, &device)
        });
        let expected = [1.0, 1.0, 1.0, 1.0, 1.0, 1.25, 1.5, 1.75, 2.0, 2.0, 2.0, 2.0];
        let row: Vec<f32> = got.narrow(2, 0, 1).into_data().try_into_vec().unwrap();
        assert_eq!(row, expected);
    }

    #[test]
    fn tiles_that_do_not_advance_are_refused() {
        assert!(Tiling::new(0, 0).is_err());
        assert!(Tiling::new(4, 4).unwrap_err().to_string().contains("tiles of 4 latents that overlap by 4"));
    }
}
