//! Masks that restrict an adapter to parts of the image.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::AdapterError;
use fabric_core::InvalidValue;
use fabric_core::image::Image;

/// Method of resampling a mask to the token grid of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaskMode {
    /// Area mean: each cell is the mean of the mask over it.
    #[default]
    Mean,
    /// As in diffusers: bicubic without antialiasing, to a grid guessed from the number of queries.
    Diffusers,
}

/// Weight of an adapter at each point of the image, 0 to 1, in row-major order; stretched to the size of the
/// image.
#[derive(Debug, Clone)]
pub struct Mask {
    width: usize,
    height: usize,
    values: Vec<f32>,
    mode: MaskMode,
}

/// A mask without a value above this is rejected: it is usually an 8-bit mask of zeros and ones that was divided
/// by 255, and the adapter would have no effect.
const LEAST: f32 = 1.0 / 255.0;

impl Mask {
    /// Creates a mask from `width * height` values from 0 to 1.
    ///
    /// # Errors
    ///
    /// Returns an error if the number of values is wrong, one is out of range, or the adapter would have no
    /// effect.
    pub fn new(width: usize, height: usize, values: Vec<f32>) -> Result<Self, AdapterError> {
        let refused = |got: String, expected: String| {
            AdapterError::Setting(InvalidValue {
                what: "a mask".to_owned(),
                got,
                expected,
                help: "make it of a grey image divided by 255".to_owned(),
            })
        };
        if values.is_empty() || width.checked_mul(height) != Some(values.len()) {
            return Err(refused(format!("{} values", values.len()), format!("{width} times {height}, not 0")));
        }
        if let Some((at, value)) = values.iter().enumerate().find(|(_, value)| !(0.0..=1.0).contains(*value)) {
            return Err(refused(format!("{value} at {}, {}", at % width, at / width), "0 to 1".to_owned()));
        }
        if values.iter().all(|value| *value <= LEAST) {
            let got = format!("no value above {LEAST:.4}");
            let expected = "a part where the adapter acts".to_owned();
            let next = "give an image that is to act nowhere a weight of 0, or leave it out; 0 and 1 of 255 are 0 and 1 as \
                        they are, not divided by 255";
            return Err(AdapterError::Setting(InvalidValue {
                what: "a mask".to_owned(),
                got,
                expected,
                help: next.to_owned(),
            }));
        }
        Ok(Self { width, height, values, mode: MaskMode::default() })
    }

    /// Creates a mask from the brightness of an image: the adapter acts where it is light. [`Image::open_mask`] reads
    /// masks from files, including masks in an alpha channel.
    ///
    /// # Errors
    ///
    /// Returns an error if the image is dark everywhere.
    pub fn from_image(image: &Image) -> Result<Self, AdapterError> {
        // Luma of ITU-R BT.601, as in Pillow's mode L.
        let luma =
            |rgb: &[u8]| (0.299 * f32::from(rgb[0]) + 0.587 * f32::from(rgb[1]) + 0.114 * f32::from(rgb[2])) / 255.0;
        let values = image.rgb().chunks_exact(3).map(|rgb| luma(rgb).min(1.0)).collect();
        Self::new(image.width(), image.height(), values)
    }

    /// Sets the resampling mode.
    #[must_use]
    pub fn with_mode(mut self, mode: MaskMode) -> Self {
        self.mode = mode;
        self
    }

    /// Resamples the mask for these grids of `[height, width]` queries.
    pub(crate) fn resampled_for(self, grids: &[[usize; 2]], device: &Device) -> ResampledMask {
        let grids = grids.iter().map(|&grid| (grid, self.tensor(grid, device))).collect();
        ResampledMask { mask: self, grids }
    }

    /// Returns the mask for a layer, `[1, height * width, 1]`, in f32.
    fn tensor(&self, grid: [usize; 2], device: &Device) -> Tensor<3> {
        let values = self.resampled(grid);
        let shape = [1, values.len(), 1];
        Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
    }

    /// Returns the mask resampled to a grid of `[height, width]` queries.
    pub fn resampled(&self, [height, width]: [usize; 2]) -> Vec<f32> {
        match self.mode {
            MaskMode::Mean => {
                let (columns, rows) = (means(self.width, width), means(self.height, height));
                self.separably(&columns, &rows)
            }
            MaskMode::Diffusers => {
                let queries = height * width;
                let ratio = self.width as f64 / self.height as f64;
                let mut rows = ((queries as f64 / ratio).sqrt() as usize).max(1);
                if !queries.is_multiple_of(rows) {
                    rows += 1;
                }
                // With a mask much taller than the image, there would be more rows than queries.
                let rows = rows.min(queries);
                let columns = queries / rows;
                let mut values = self.separably(&cubics(self.width, columns), &cubics(self.height, rows));
                values.resize(queries, 0.0);
                values
            }
        }
    }

    /// Applies separable filter taps: weighted sums along rows, then along columns.
    fn separably(&self, columns: &[Vec<(usize, f32)>], rows: &[Vec<(usize, f32)>]) -> Vec<f32> {
        let sum = |taps: &[(usize, f32)], value: &dyn Fn(usize) -> f32| -> f32 {
            taps.iter().map(|(index, weight)| value(*index) * weight).sum()
        };
        let narrow: Vec<Vec<f32>> = self
            .values
            .chunks_exact(self.width)
            .map(|row| columns.iter().map(|taps| sum(taps, &|x| row[x])).collect())
            .collect();
        let cells = rows.iter().flat_map(|taps| (0..columns.len()).map(|x| sum(taps, &|y| narrow[y][x])));
        cells.collect()
    }
}

/// A [`Mask`] for the grids of the feature maps of one run.
#[derive(Debug, Clone)]
pub(crate) struct ResampledMask {
    mask: Mask,
    grids: BTreeMap<[usize; 2], Tensor<3>>,
}

impl ResampledMask {
    /// Returns the mask for a layer, `[1, height * width, 1]`, with the device and data type of its queries.
    pub(crate) fn at(&self, grid: [usize; 2], like: &Tensor<3>) -> Tensor<3> {
        let device = like.device();
        let prepared = self.grids.get(&grid).filter(|mask| mask.device() == device);
        let mask = prepared.cloned().unwrap_or_else(|| self.mask.tensor(grid, &device));
        if mask.dtype() == like.dtype() { mask } else { mask.cast(like.dtype()) }
    }
}

/// Returns, for each of `to` cells, the points of `from` that it covers and their weights in its mean.
fn means(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let edge = |cell: usize| cell as f64 * from as f64 / to as f64;
    let taps = |cell: usize| {
        let (start, end) = (edge(cell), edge(cell + 1));
        let points = start.floor() as usize..(end.ceil() as usize).min(from);
        let share = |point: usize| (end.min(point as f64 + 1.0) - start.max(point as f64)) / (end - start);
        points.map(|point| (point, share(point) as f32)).collect()
    };
    (0..to).map(taps).collect()
}

/// Returns the taps of PyTorch's bicubic interpolation without antialiasing: cubic convolution with a = -0.75,
/// edges repeated.
fn cubics(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    const A: f64 = -0.75;
    let weight = |distance: f64| {
        let x = distance.abs();
        if x <= 1.0 {
            ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
        } else {
            ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
        }
    };
    let taps = |cell: usize| {
        let centre = (cell as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let first = centre.floor() as i64 - 1;
        let tap = |point: i64| {
            let inside = point.clamp(0, from as i64 - 1) as usize;
            (inside, weight(centre - point as f64) as f32)
        };
        (first..first + 4).map(tap).collect()
    };
    (0..to).map(taps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_keep_the_mass_of_a_mask() {
        let values: Vec<f32> = (0..7 * 5).map(|at| (at % 3) as f32 / 2.0).collect();
        let mean = values.iter().sum::<f32>() / 35.0;
        let mask = Mask::new(7, 5, values).expect("a mask");
        for grid in [[1, 1], [2, 3], [5, 7], [8, 9]] {
            let cells = mask.resampled(grid);
            assert_eq!(cells.len(), grid[0] * grid[1]);
            assert!((cells.iter().sum::<f32>() / cells.len() as f32 - mean).abs() < 1e-5, "{grid:?}");
        }
        assert_eq!(Mask::new(3, 2, vec![1.0; 6]).expect("a mask").resampled([4, 4]), vec![1.0; 16]);
    }

    #[test]
    fn masks_that_are_none_are_refused() {
        for (width, height, values) in
            [(2, 2, vec![0.0; 3]), (0, 0, vec![]), (1 << 63, 2, vec![]), (1, 1, vec![f32::NAN]), (1, 1, vec![1.5])]
        {
            let message = Mask::new(width, height, values).expect_err("no mask").to_string();
            assert!(message.starts_with("a mask: expected") && message.contains("got"), "{message}");
        }
    }

    #[test]
    fn the_light_part_of_an_image_is_the_mask() {
        let image = Image::from_rgb(2, 1, vec![0, 0, 0, 255, 255, 255]).expect("an image");
        let values = Mask::from_image(&image).expect("a mask").resampled([1, 2]);
        assert!(values[0] == 0.0 && (values[1] - 1.0).abs() < 1e-6, "{values:?}");
        assert!(Mask::from_image(&Image::filled(3, 3, [1; 3]).expect("an image")).is_err());
    }

    #[test]
    fn a_mask_that_lets_an_adapter_act_nowhere_is_an_error() {
        for value in [0.0, 1.0 / 255.0] {
            let message = Mask::new(2, 2, vec![0.0, value, 0.0, value]).expect_err("empty").to_string();
            assert!(
                message.starts_with("a mask: expected")
                    && message.contains("got no value above 0.0039")
                    && message.contains("weight"),
                "{message}"
            );
        }
        assert!(Mask::new(2, 2, vec![0.0, 0.0, 0.0, 0.1]).is_ok());
    }

    #[test]
    fn one_mask_serves_models_of_several_number_types() {
        let device = fabric_backends::default_device().expect("a device");
        let mask = Mask::new(2, 1, vec![0.0, 1.0]).expect("a mask").resampled_for(&[[2, 2]], &device);
        let of = |dtype| mask.at([2, 2], &Tensor::<3>::zeros([1, 4, 1], (&device, dtype)));
        for dtype in [DType::F32, DType::F16, DType::F32] {
            if device.supports_dtype(dtype) {
                let made = of(dtype);
                assert_eq!((made.dtype(), made.dims()), (dtype, [1, 4, 1]));
                let values = made.into_data().convert::<f32>().try_to_vec::<f32>().expect("f32");
                assert_eq!(values, [0.0, 1.0, 0.0, 1.0]);
            }
        }
    }

    #[test]
    fn diffusers_guesses_the_grid() {
        // 35 queries of a square give 5 rows of 7; 32 queries give 6 rows of 5, and two empty cells.
        let mask = Mask::new(8, 8, vec![1.0; 64]).expect("a mask").with_mode(MaskMode::Diffusers);
        let cells = mask.resampled([4, 8]);
        assert_eq!(cells.len(), 32);
        assert_eq!(cells.iter().filter(|cell| **cell == 0.0).count(), 2);
        let tall = Mask::new(8, 800, vec![1.0; 6400]).expect("a mask").with_mode(MaskMode::Diffusers);
        assert!(tall.resampled([2, 2]).iter().all(|cell| (cell - 1.0).abs() < 1e-5));
    }
}
