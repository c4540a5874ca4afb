//! Initial noise of an image as a mixture of the noises of several seeds.

use serde::{Deserialize, Serialize};

use super::{LATENTS, NormalStream};
use crate::InvalidValue;

/// Largest number of seeds of a mixture. Each one costs the time of drawing the noise of an image.
const MAX_SEEDS: usize = 16;

/// Initial noise of an image, mixed from the initial noises of several seeds, as plain data.
///
/// The mixture is the sum of the noises, each times its weight, divided by the root of the sum of the squared weights.
/// The noises are independent and standard normal, so the variance of a sum is the sum of the squared weights. The
/// division brings it to 1: a mixture is standard normal, as the noise of a single seed is. Only the ratios of the
/// weights count, so mixtures of the same seeds are the points of a sphere.
///
/// It replaces [`Draw::Latents`](super::Draw::Latents) and [`Draw::StartNoise`](super::Draw::StartNoise). All other
/// noise of an image (that of a stochastic sampler, of the VAE and of CADS) comes from its own seed.
///
/// ```
/// use fabric_core::noise::NoiseMixture;
/// use fabric_core::pipeline::Request;
///
/// // Halfway between the noise of seed 3 and that of seed 8.
/// let between = NoiseMixture::new([3, 8], [1.0, 1.0])?;
/// let request = Request::new("a small red star").with_seeds([3]).with_initial_noise([between]);
/// assert!(request.validate().is_ok());
/// # Ok::<(), fabric_core::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct NoiseMixture {
    seeds: Vec<u64>,
    weights: Vec<f64>,
}

/// Mixture as deserialized, before its seeds and weights are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    seeds: Vec<u64>,
    weights: Vec<f64>,
}

impl TryFrom<Unchecked> for NoiseMixture {
    type Error = InvalidValue;

    fn try_from(Unchecked { seeds, weights }: Unchecked) -> Result<Self, InvalidValue> {
        Self::new(seeds, weights)
    }
}

impl NoiseMixture {
    /// Creates a mixture of 1 to 16 different seeds, with a weight for each.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no seeds or too many, a seed occurs twice (its noise is not independent of
    /// itself), the number of weights differs, or the weights are all 0, not finite, or too large or small to be
    /// squared.
    pub fn new(seeds: impl Into<Vec<u64>>, weights: impl Into<Vec<f64>>) -> Result<Self, InvalidValue> {
        let (seeds, weights) = (seeds.into(), weights.into());
        check_seeds(&seeds)?;
        if weights.len() != seeds.len() {
            return Err(InvalidValue::new(
                "weights of a noise mixture",
                format!("{} weights", weights.len()),
                format!("{}, one per seed", seeds.len()),
                "give a weight for each seed",
            ));
        }
        let mixture = Self { seeds, weights };
        if mixture.sum_of_squares().is_normal() {
            return Ok(mixture);
        }
        Err(InvalidValue::new(
            "weights of a noise mixture",
            format!("{:?}", mixture.weights),
            "finite numbers that are not all 0, of a magnitude near 1",
            "only their ratios count",
        ))
    }

    /// Creates the mixture of seeds at a point of the sphere, given by angles in degrees, one fewer than seeds.
    ///
    /// The first angle divides the variance between the first half of the seeds and the others: 0 degrees is the first
    /// half alone, 90 degrees the others alone. The next angles divide the first half in the same way, and the last
    /// ones the others. With angles from 0 to 90 degrees no weight is negative.
    ///
    /// ```
    /// use fabric_core::noise::NoiseMixture;
    ///
    /// let mixture = NoiseMixture::at_angles(&[3, 8], &[60.0])?;
    /// assert!((mixture.weights()[0] - 0.5).abs() < 1e-12);
    /// # Ok::<(), fabric_core::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the seeds cannot be mixed ([`Self::new`]), the number of angles is another one, or an angle
    /// is not finite.
    pub fn at_angles(seeds: &[u64], degrees: &[f64]) -> Result<Self, InvalidValue> {
        check_seeds(seeds)?;
        if degrees.len() + 1 != seeds.len() || degrees.iter().any(|angle| !angle.is_finite()) {
            return Err(InvalidValue::new(
                "angles of a noise mixture",
                format!("{degrees:?}"),
                format!("{} finite numbers of degrees", seeds.len() - 1),
                "give one angle fewer than seeds",
            ));
        }
        Self::new(seeds, weights_at(degrees))
    }

    /// Creates the mixture that is the noise of one seed.
    pub fn of_seed(seed: u64) -> Self {
        Self { seeds: vec![seed], weights: vec![1.0] }
    }

    /// The seeds.
    pub fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// The weight of each seed, as given; only the ratios count.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    fn sum_of_squares(&self) -> f64 {
        self.weights.iter().map(|weight| weight * weight).sum()
    }

    /// Draws the first `count` numbers of the mixture.
    pub(super) fn draw(&self, count: usize) -> Vec<f32> {
        let norm = self.sum_of_squares().sqrt();
        let mut sums = vec![0.0_f64; count];
        for (seed, weight) in self.seeds.iter().zip(&self.weights) {
            let factor = weight / norm;
            for (sum, value) in sums.iter_mut().zip(NormalStream::new(*seed, LATENTS).take(count)) {
                *sum += factor * f64::from(value);
            }
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    }
}

fn check_seeds(seeds: &[u64]) -> Result<(), InvalidValue> {
    let refused = |got: String| {
        let help = "mix fewer seeds, each of them once";
        Err(InvalidValue::new("seeds of a noise mixture", got, format!("1 to {MAX_SEEDS} different seeds"), help))
    };
    if seeds.is_empty() || seeds.len() > MAX_SEEDS {
        return refused(format!("{} seeds", seeds.len()));
    }
    match seeds.iter().enumerate().find(|(index, seed)| seeds[..*index].contains(seed)) {
        Some((_, seed)) => refused(format!("seed {seed} twice")),
        None => Ok(()),
    }
}

/// Returns weights whose squares sum to 1, one more than angles in degrees; see [`NoiseMixture::at_angles`].
fn weights_at(degrees: &[f64]) -> Vec<f64> {
    let Some((angle, others)) = degrees.split_first() else { return vec![1.0] };
    let (first, last) = others.split_at(others.len() / 2);
    let (sin, cos) = angle.to_radians().sin_cos();
    let halves = [(first, cos), (last, sin)];
    halves.iter().flat_map(|(angles, share)| weights_at(angles).into_iter().map(move |weight| share * weight)).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::noise::{Draw, RunNoise, SeededNoise, normal};

    #[test]
    fn a_mixture_of_one_seed_is_the_noise_of_that_seed_to_the_bit() {
        for mixture in [
            NoiseMixture::of_seed(7),
            NoiseMixture::new([7], [3.0]).unwrap(),
            NoiseMixture::at_angles(&[7, 8, 9], &[0.0, 30.0]).unwrap(),
        ] {
            assert_eq!(mixture.draw(1001), normal(7, LATENTS, 1001), "{mixture:?}");
        }
    }

    #[test]
    fn a_mixture_is_standard_normal_and_has_each_seed_with_its_weight() {
        let count = 200_000;
        let mixture = NoiseMixture::at_angles(&[3, 5, 7, 9], &[20.0, 50.0, 75.0]).unwrap();
        let values = mixture.draw(count);
        let mean = |product: &dyn Fn(usize) -> f64| (0..count).map(product).sum::<f64>() / count as f64;
        let value = |index: usize| f64::from(values[index]);
        // The standard deviations of these estimates are about 0.002, 0.003, 0.02 and 0.003.
        assert!(mean(&value).abs() < 0.02);
        assert!((mean(&|index| value(index).powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&|index| value(index).powi(4)) - 3.0).abs() < 0.15);
        for (seed, weight) in mixture.seeds().iter().zip(mixture.weights()) {
            let alone = normal(*seed, LATENTS, count);
            let correlation = mean(&|index| value(index) * f64::from(alone[index]));
            assert!((correlation - weight).abs() < 0.02, "seed {seed}: {correlation}, weight {weight}");
        }
    }

    #[test]
    fn only_the_ratios_of_weights_count() {
        let small = NoiseMixture::new([3, 5], [0.25, 0.5]).unwrap();
        assert_eq!(small.draw(100), NoiseMixture::new([3, 5], [2.0, 4.0]).unwrap().draw(100));
        assert_ne!(small.draw(100), NoiseMixture::new([3, 5], [2.0, -4.0]).unwrap().draw(100));
    }

    /// Returns the share of each seed in the variance of the mixture at these angles.
    fn shares(degrees: &[f64]) -> Vec<f64> {
        let seeds: Vec<u64> = (0..=degrees.len() as u64).collect();
        let mixture = NoiseMixture::at_angles(&seeds, degrees).unwrap();
        mixture.weights().iter().map(|weight| weight * weight).collect()
    }

    #[test]
    fn shares_at_any_angles_sum_to_1_and_at_45_degrees_each_seed_has_a_fair_one() {
        for count in 1..=MAX_SEEDS {
            let angles = |step: f64| (1..count).map(|at| step * at as f64).collect::<Vec<_>>();
            for step in [0.0, 5.0, 17.0, -40.0] {
                assert!((shares(&angles(step)).iter().sum::<f64>() - 1.0).abs() < 1e-12, "{count} at {step}");
            }
            let (halves, fair) = (shares(&vec![45.0; count - 1]), 1.0 / count as f64);
            assert!(halves.iter().all(|share| (0.49 * fair..2.01 * fair).contains(share)), "{halves:?}");
        }
    }

    #[test]
    fn each_seed_is_alone_at_some_angles() {
        for count in 2..=6 {
            let corners = (0..1_u32 << (count - 1)).map(|bits| {
                let angle = |at: usize| if (bits >> at) & 1 == 1 { 90.0 } else { 0.0 };
                shares(&(0..count - 1).map(angle).collect::<Vec<_>>())
            });
            let corners: Vec<Vec<f64>> = corners.collect();
            let is_alone = |seed: usize| corners.iter().any(|shares| shares[seed] > 1.0 - 1e-12);
            assert!((0..count).all(is_alone), "{corners:?}");
        }
    }

    #[test]
    fn an_image_has_its_mixture_alone_and_in_a_batch() {
        let device = Device::flex();
        let between = NoiseMixture::new([1, 2], [1.0, 2.0]).unwrap();
        let rows = [NoiseMixture::of_seed(9), between];
        for what in [Draw::Latents, Draw::StartNoise, Draw::Step, Draw::StartPosterior] {
            let draw = |mut noise: SeededNoise, images| {
                noise.draw(what, [images, 4, 3, 5]).unwrap().into_data().try_to_vec::<f32>().unwrap()
            };
            let alone = draw(SeededNoise::new(&[7], &device).with_initial_noise(&rows[1..]), 1);
            let batch = draw(SeededNoise::new(&[3, 7], &device).with_initial_noise(&rows), 2);
            assert_eq!(alone, batch[60..]);
            let is_initial = matches!(what, Draw::Latents | Draw::StartNoise);
            assert_eq!(alone == rows[1].draw(60), is_initial);
            // All other noise is that of the image's own seed.
            assert_eq!(alone == draw(SeededNoise::new(&[7], &device), 1), !is_initial);
        }
        let mut one_missing = SeededNoise::new(&[3, 7], &device).with_initial_noise(&rows[..1]);
        let message = one_missing.draw(Draw::Latents, [2, 4, 3, 5]).unwrap_err().to_string();
        assert!(message.contains("expected 2, one per image, got 1"), "{message}");
    }

    #[test]
    fn a_mixture_survives_json_to_the_bit_and_is_checked() {
        let mixture = NoiseMixture::new([3, u64::MAX], [0.1, -0.7]).unwrap();
        let json = serde_json::to_string(&mixture).unwrap();
        assert_eq!(serde_json::from_str::<NoiseMixture>(&json).unwrap(), mixture);
        for bad in [r#"{"seeds": [], "weights": []}"#, r#"{"seeds": [1]}"#, r#"{"seeds": [1, 1], "weights": [1, 1]}"#] {
            assert!(serde_json::from_str::<NoiseMixture>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unusable_mixtures_are_refused_by_name() {
        let refused = |seeds: &[u64], weights: &[f64]| NoiseMixture::new(seeds, weights).unwrap_err().to_string();
        assert!(refused(&[], &[]).starts_with("seeds of a noise mixture: expected 1 to 16 different seeds, got 0"));
        assert!(refused(&[1, 2, 1], &[1.0; 3]).contains("got seed 1 twice"));
        let many: Vec<u64> = (0..17).collect();
        assert!(refused(&many, &[1.0; 17]).contains("got 17 seeds"));
        assert!(refused(&[1, 2], &[1.0]).starts_with("weights of a noise mixture: expected 2, one per seed, got 1"));
        for weights in [[0.0, 0.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0], [1e200, 1.0], [1e-200, 0.0]] {
            assert!(refused(&[1, 2], &weights).contains("not all 0"), "{weights:?}");
        }
        let unusable: [&[f64]; 4] = [&[], &[1.0, 2.0], &[f64::NAN], &[f64::INFINITY]];
        for angles in unusable {
            let message = NoiseMixture::at_angles(&[1, 2], angles).unwrap_err().to_string();
            assert!(message.starts_with("angles of a noise mixture: expected 1 finite"), "{message}");
        }
    }
}
