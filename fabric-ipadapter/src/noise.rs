//! Noised images for use as negative image prompts.

use fabric_core::InvalidValue;
use fabric_core::image::Image;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::AdapterError;

/// Method of adding noise to an image, as in `ComfyUI_IPAdapter_plus` (with another random stream).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseKind {
    /// Blends the image with uniform noise.
    Fade,
    /// Replaces single values by uniform noise.
    Dissolve,
    /// Adds normal noise.
    Gaussian,
}

/// Adds noise to an image, for use as a negative image prompt.
///
/// Its features, in place of the features of no image, guide the result away from what remains of the image;
/// this is the usual way to get sharper results. `strength` is from 0 (the image) to 1 (noise).
///
/// # Errors
///
/// Returns an error if the strength is not between 0 and 1.
pub fn noised_image(image: &Image, kind: NoiseKind, strength: f32, seed: u64) -> Result<Image, AdapterError> {
    if !(0.0..=1.0).contains(&strength) {
        return Err(AdapterError::Setting(InvalidValue {
            what: "strength of noise".to_owned(),
            got: strength.to_string(),
            expected: "0 to 1".to_owned(),
            help: "0 is the image, 1 is noise".to_owned(),
        }));
    }
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let noised = image.rgb().iter().map(|&byte| {
        let value = f32::from(byte) / 255.0;
        let (first, second): (f32, f32) = (rng.random(), rng.random());
        let value = match kind {
            NoiseKind::Fade => value * (1.0 - strength) + first * strength,
            NoiseKind::Dissolve if first < strength => second,
            NoiseKind::Dissolve => value,
            NoiseKind::Gaussian => {
                // Box and Muller; 1 - x is never 0.
                let normal = (-2.0 * (1.0 - first).ln()).sqrt() * (std::f32::consts::TAU * second).cos();
                value + normal * strength
            }
        };
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    });
    let noised = Image::from_rgb(image.width(), image.height(), noised.collect());
    Ok(noised.unwrap_or_else(|error| unreachable!("as many values as before: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_goes_from_the_image_to_noise() {
        let image = Image::filled(64, 64, [200, 100, 50]).expect("an image");
        for kind in [NoiseKind::Fade, NoiseKind::Dissolve, NoiseKind::Gaussian] {
            let noised = |strength, seed| noised_image(&image, kind, strength, seed).expect("an image");
            assert_eq!(noised(0.0, 1), image, "{kind:?}");
            assert_eq!(noised(0.5, 1), noised(0.5, 1), "{kind:?}");
            assert_ne!(noised(0.5, 1), noised(0.5, 2), "{kind:?}");
            let changed = |noised: Image| {
                let pairs = noised.rgb().iter().zip(image.rgb());
                pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>()
            };
            assert!(changed(noised(0.8, 1)) > changed(noised(0.2, 1)), "{kind:?}");
        }
        assert!(noised_image(&image, NoiseKind::Fade, 1.5, 1).is_err());
        // Half of the values of a dissolved image are unchanged.
        let half = noised_image(&image, NoiseKind::Dissolve, 0.5, 3).expect("an image");
        let same = half.rgb().iter().zip(image.rgb()).filter(|(a, b)| a == b).count() as f64 / 12288.0;
        assert!((0.45..0.55).contains(&same), "{same}");
    }
}
