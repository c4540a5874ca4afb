//! Source of all random numbers of a run.
//!
//! Noise is drawn on the host, from one frozen stream per image. It is therefore the same for an image alone and
//! in any batch, on any device, and in every later version of this library: images differ only by rounding.

mod mixture;

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use sha2::{Digest, Sha256};

pub use mixture::NoiseMixture;

use crate::Error;
use crate::denoise::ModelCall;

/// Identifier of a reference image for noise and caches: a digest of its pixels and of how they were encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferenceId(pub [u8; 32]);

/// Purpose of a draw.
#[derive(Debug, Clone, Copy)]
pub enum Draw<'a> {
    /// Initial latents of the run, one row per image.
    Latents,
    /// Noise of a stochastic sampler's step, one row per image.
    Step,
    /// Sample of the VAE posterior of the init image (image-to-image), one row per image.
    StartPosterior,
    /// Noise added to the latents of the init image, one row per image.
    StartNoise,
    /// Sample of the VAE posterior of the masked image, which an inpainting network takes as input, one row per
    /// image.
    MaskedPosterior,
    /// Samples of the VAE posterior of the liked or the disliked references, one row per reference.
    ReferencePosterior {
        /// True for the liked references, false for the disliked ones.
        liked: bool,
        /// The references, in batch order.
        ids: &'a [ReferenceId],
    },
    /// Noise added to the references at one evaluation, one row per reference, liked before disliked.
    Reference {
        /// The evaluation.
        call: &'a ModelCall,
        /// The references, in batch order.
        ids: &'a [ReferenceId],
    },
}

/// Source of noise for a run. [`SeededNoise`] is the default; tests inject recorded tensors.
pub trait RunNoise {
    /// Draws standard normal noise of this shape.
    ///
    /// # Errors
    ///
    /// Returns an error if recorded noise is exhausted or has another shape.
    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, Error>;

    /// Returns whether the posterior noise of a reference is that of [`SeededNoise`], which depends on the
    /// reference alone. Only then may reference latents be cached across runs.
    fn is_seeded(&self) -> bool {
        false
    }

    /// Returns whether the noise added to references is that of [`SeededNoise`] without fresh references, which
    /// depends only on the reference and the noise level. Only then, and only if [`Self::is_seeded`] holds too,
    /// may reference keys and values be cached across runs.
    fn has_fixed_references(&self) -> bool {
        false
    }
}

/// Draws noise and checks its shape, because `RunNoise` may be implemented by a caller.
pub(crate) fn drawn(source: &mut dyn RunNoise, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
    let noise = source.draw(what, shape)?;
    let got = noise.dims();
    if got == shape {
        return Ok(noise);
    }
    let purpose = match what {
        Draw::Latents => "the first latents",
        Draw::Step => "a sampler's step",
        Draw::StartPosterior => "the init image's posterior",
        Draw::StartNoise => "the init image's latents",
        Draw::MaskedPosterior => "the masked image's posterior",
        Draw::ReferencePosterior { .. } => "the references' posterior",
        Draw::Reference { .. } => "the references' latents",
    };
    let next = "let the source of the noise draw what it is asked for";
    Err(Error::settings(format!("noise for {purpose}"), format!("{got:?}"), format!("{shape:?}"), next))
}

/// Noise from one frozen stream per image, and one per reference (and noise level).
#[derive(Debug, Clone)]
pub struct SeededNoise {
    seeds: Vec<u64>,
    /// Initial noise of each image.
    initial: Vec<NoiseMixture>,
    steps: Vec<NormalStream>,
    fresh: Option<NormalStream>,
    device: Device,
}

impl SeededNoise {
    /// Creates noise for one image per seed.
    pub fn new(seeds: &[u64], device: &Device) -> Self {
        let initial = seeds.iter().copied().map(NoiseMixture::of_seed).collect();
        let steps = seeds.iter().map(|&seed| NormalStream::new(seed, STEP)).collect();
        Self { seeds: seeds.to_vec(), initial, steps, fresh: None, device: device.clone() }
    }

    /// Replaces the initial noise of the images by mixtures, one per image. All other noise stays that of their seeds.
    #[must_use]
    pub fn with_initial_noise(self, mixtures: &[NoiseMixture]) -> Self {
        Self { initial: mixtures.to_vec(), ..self }
    }

    /// Returns a copy that draws new noise for the references at every evaluation, as published, instead of noise
    /// that depends only on the image and the noise level. The images of a batch then depend on the batch's first
    /// seed.
    #[must_use]
    pub fn with_fresh_references(mut self) -> Self {
        self.fresh = Some(NormalStream::new(self.seeds.first().copied().unwrap_or(0), FRESH_REFERENCE));
        self
    }

    fn per_image(&self, purpose: u64, shape: [usize; 4]) -> Tensor<4> {
        let count = shape[1] * shape[2] * shape[3];
        let rows = self.seeds.iter().map(|&seed| NormalStream::new(seed, purpose).take(count));
        self.upload(rows, shape)
    }

    /// Checks that there is a stream for each requested row.
    fn check_rows(&self, what: Draw<'_>, expected: usize) -> Result<(), Error> {
        let (name, got, wanted_of_each) = match what {
            Draw::ReferencePosterior { ids, .. } | Draw::Reference { ids, .. } => {
                ("references that noise is drawn for", ids.len(), "reference")
            }
            Draw::Latents | Draw::StartNoise if self.initial.len() != self.seeds.len() => {
                let (got, expected) = (self.initial.len(), format!("{}, one per image", self.seeds.len()));
                let help = "give each image its mixture";
                return Err(Error::settings("initial noises", got, expected, help));
            }
            _ => ("seeds of the noise", self.seeds.len(), "image"),
        };
        if got == expected {
            return Ok(());
        }
        let expected = format!("{expected}, one per {wanted_of_each}");
        Err(Error::settings(name, got, expected, "make the noise from the seeds of the request"))
    }

    fn upload(&self, rows: impl Iterator<Item = Vec<f32>>, shape: [usize; 4]) -> Tensor<4> {
        let values: Vec<f32> = rows.flatten().collect();
        assert_eq!(values.len(), shape.iter().product::<usize>(), "noise for {shape:?} from {} values", values.len());
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }
}

impl RunNoise for SeededNoise {
    fn is_seeded(&self) -> bool {
        true
    }

    fn has_fixed_references(&self) -> bool {
        self.fresh.is_none()
    }

    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        self.check_rows(what, shape[0])?;
        let count = shape[1] * shape[2] * shape[3];
        Ok(match what {
            Draw::Latents | Draw::StartNoise => {
                self.upload(self.initial.iter().map(|mixture| mixture.draw(count)), shape)
            }
            Draw::StartPosterior => self.per_image(START_POSTERIOR, shape),
            Draw::MaskedPosterior => self.per_image(MASKED_POSTERIOR, shape),
            Draw::Step => {
                let rows: Vec<Vec<f32>> = self.steps.iter_mut().map(|stream| stream.take(count)).collect();
                self.upload(rows.into_iter(), shape)
            }
            Draw::ReferencePosterior { ids, .. } => {
                self.upload(ids.iter().map(|id| NormalStream::of_reference(id, REFERENCE_POSTERIOR).take(count)), shape)
            }
            Draw::Reference { call, ids } => match &mut self.fresh {
                Some(stream) => {
                    let rows: Vec<Vec<f32>> = ids.iter().map(|_| stream.take(count)).collect();
                    self.upload(rows.into_iter(), shape)
                }
                None => {
                    let level = call.level.timestep.to_bits();
                    self.upload(ids.iter().map(|id| NormalStream::of_reference(id, level).take(count)), shape)
                }
            },
        })
    }
}

/// Noise for the text embeddings of one batch ([`Cads`](crate::pipeline::Cads)), from one frozen stream per image. The
/// streams differ from those of the latents.
#[derive(Debug, Clone)]
pub(crate) struct TextNoise {
    streams: Vec<NormalStream>,
}

impl TextNoise {
    /// Creates noise for one image per seed.
    pub(crate) fn new(seeds: &[u64]) -> Self {
        Self { streams: seeds.iter().map(|&seed| NormalStream::new(seed, TEXT)).collect() }
    }

    /// Draws new standard normal noise `[images, tokens, channels]` in f32.
    pub(crate) fn draw(&mut self, shape: [usize; 3], device: &Device) -> Tensor<3> {
        let [images, tokens, channels] = shape;
        assert_eq!(images, self.streams.len(), "text noise for {images} images from another number of seeds");
        let values: Vec<f32> = self.streams.iter_mut().flat_map(|stream| stream.take(tokens * channels)).collect();
        Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
    }
}

const LATENTS: u64 = 0;
const STEP: u64 = 1;
const START_POSTERIOR: u64 = 2;
const FRESH_REFERENCE: u64 = 3;
const MASKED_POSTERIOR: u64 = 4;
const TEXT: u64 = 5;
/// Differs from the bits of every timestep (as `f64` it is a NaN).
const REFERENCE_POSTERIOR: u64 = u64::MAX;

/// Returns `count` standard normal numbers of a frozen stream: the same for a seed and a stream in every later
/// version.
///
/// ```
/// use fabric_core::noise::normal;
/// assert_eq!(normal(7, 0, 3), normal(7, 0, 5)[..3]);
/// assert_ne!(normal(7, 0, 3), normal(7, 1, 3));
/// ```
pub fn normal(seed: u64, stream: u64, count: usize) -> Vec<f32> {
    NormalStream::new(seed, stream).take(count)
}

/// Stream of standard normal numbers, by the Box-Muller transform over ChaCha12. Both are frozen, so that seeds
/// keep their meaning.
#[derive(Debug, Clone)]
struct NormalStream {
    rng: ChaCha12Rng,
}

impl NormalStream {
    fn new(seed: u64, purpose: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(purpose);
        Self { rng }
    }

    fn of_reference(id: &ReferenceId, salt: u64) -> Self {
        let digest = Sha256::new().chain_update(id.0).chain_update(salt.to_le_bytes()).finalize();
        Self { rng: ChaCha12Rng::from_seed(digest.into()) }
    }

    fn take(&mut self, count: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            // 53 random bits, shifted by half a unit so that the logarithm never sees 0.
            let unit = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            let radius = (-2.0 * unit(self.rng.next_u64()).ln()).sqrt();
            let angle = std::f64::consts::TAU * unit(self.rng.next_u64());
            values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
        }
        values.truncate(count);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denoise::NoiseLevel;

    fn values(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn an_image_gets_the_same_noise_alone_and_in_a_batch() {
        let device = Device::flex();
        let mut alone = SeededNoise::new(&[7], &device);
        let mut batch = SeededNoise::new(&[3, 7], &device);
        for what in [Draw::Latents, Draw::Step, Draw::Step, Draw::StartPosterior] {
            let one = values(alone.draw(what, [1, 4, 3, 5]).unwrap());
            let two = values(batch.draw(what, [2, 4, 3, 5]).unwrap());
            assert_eq!(one, two[60..]);
            assert_ne!(one, two[..60]);
        }
    }

    #[test]
    fn a_text_gets_the_same_noise_alone_and_in_a_batch_and_new_noise_at_each_draw() {
        let device = Device::flex();
        let (mut alone, mut batch) = (TextNoise::new(&[7]), TextNoise::new(&[3, 7]));
        let mut seen = vec![normal(7, LATENTS, 15), normal(7, STEP, 15)];
        for _ in 0..2 {
            let values = |x: Tensor<3>| x.into_data().try_to_vec::<f32>().unwrap();
            let one = values(alone.draw([1, 3, 5], &device));
            let two = values(batch.draw([2, 3, 5], &device));
            assert_eq!(one, two[15..]);
            assert_ne!(one, two[..15]);
            assert!(!seen.contains(&one));
            seen.push(one);
        }
    }

    #[test]
    fn noise_for_another_number_of_images_is_an_error_that_says_so() {
        let device = Device::flex();
        let call = ModelCall { index: 0, total: 1, level: NoiseLevel { timestep: 1.0, alpha: 0.6, sigma: 0.8 } };
        let ids = [ReferenceId([1; 32])];
        let of_references =
            [Draw::ReferencePosterior { liked: true, ids: &ids }, Draw::Reference { call: &call, ids: &ids }];
        let of_images = [Draw::Latents, Draw::Step, Draw::StartPosterior, Draw::StartNoise, Draw::MaskedPosterior];
        for (draws, start) in [
            (&of_images[..], "seeds of the noise: expected 2, one per image, got 1"),
            (&of_references[..], "references that noise is drawn for: expected 2, one per reference, got 1"),
        ] {
            for &what in draws {
                for fresh in [false, true] {
                    let mut noise = SeededNoise::new(&[7], &device);
                    if fresh {
                        noise = noise.with_fresh_references();
                    }
                    let message = noise.draw(what, [2, 4, 3, 5]).unwrap_err().to_string();
                    assert!(message.starts_with(start), "{message}");
                }
            }
        }
    }

    #[test]
    fn noise_of_another_shape_is_an_error_that_names_its_purpose() {
        struct Same;
        impl RunNoise for Same {
            fn draw(&mut self, _: Draw<'_>, _: [usize; 4]) -> Result<Tensor<4>, Error> {
                Ok(Tensor::zeros([1, 4, 8, 8], &Device::flex()))
            }
        }
        assert!(drawn(&mut Same, Draw::Latents, [1, 4, 8, 8]).is_ok());
        let message = drawn(&mut Same, Draw::StartNoise, [2, 4, 8, 8]).unwrap_err().to_string();
        let expected = "noise for the init image's latents: expected [2, 4, 8, 8], got [1, 4, 8, 8]";
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn reference_noise_depends_on_image_and_level_alone() {
        let device = Device::flex();
        let (a, b) = (ReferenceId([1; 32]), ReferenceId([2; 32]));
        let call =
            |index, timestep| ModelCall { index, total: 9, level: NoiseLevel { timestep, alpha: 0.6, sigma: 0.8 } };
        let draw = |seed, call: &ModelCall, ids: &[ReferenceId]| {
            let mut noise = SeededNoise::new(&[seed], &device);
            values(noise.draw(Draw::Reference { call, ids }, [ids.len(), 1, 2, 2]).unwrap())
        };
        let first = draw(1, &call(0, 500.0), &[a, b]);
        assert_eq!(first, draw(2, &call(5, 500.0), &[a, b]));
        assert_eq!(first[4..], draw(1, &call(0, 500.0), &[b]));
        assert_ne!(first, draw(1, &call(0, 501.0), &[a, b]));
    }

    #[test]
    fn the_streams_are_frozen() {
        let got = NormalStream::new(42, LATENTS).take(4);
        let expected = FROZEN;
        for (a, b) in got.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{got:?}");
        }
    }

    const FROZEN: [f32; 4] = [-1.092_036_7, -0.300_409_02, -0.789_242_4, 0.529_856_44];

    #[test]
    fn noise_is_standard_normal() {
        let values = NormalStream::new(1, LATENTS).take(200_001);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / values.len() as f64;
        let fourth = values.iter().map(|&x| f64::from(x).powi(4)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.01 && (fourth - 3.0).abs() < 0.1);
    }
}
