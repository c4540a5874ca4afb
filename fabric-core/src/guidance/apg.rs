//! Adaptive projected guidance (APG).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Branch, Guidance, rescaled};
use crate::Error;
use crate::denoise::NoiseLevel;
use crate::schedule::Prediction;

/// Adaptive projected guidance: classifier-free guidance with less oversaturation at high scales.
///
/// "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models" (2410.02416). It changes the
/// difference of the two branches' predicted clean images: it adds momentum, limits the length, and weakens the
/// component that is parallel to the conditional branch's clean image. The result is the conditional branch's clean
/// image plus `guidance_scale - 1` times this difference. Lengths and products are computed per image.
///
/// With `momentum` 0, `rescale` 0 and `parallel` 1 it is classifier-free guidance.
///
/// ```
/// use fabric_core::guidance::Apg;
/// use fabric_core::pipeline::Settings;
/// let settings = Settings { guidance_scale: 12.0, apg: Some(Apg::default()), ..Settings::default() };
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Apg {
    /// Factor on the accumulated difference of earlier evaluations, which is added to the current difference (the
    /// paper's beta), from -1 to 1. Negative values lead away from earlier directions, and 0 switches it off. Default:
    /// -0.5.
    pub momentum: f64,
    /// Largest length (L2 norm) of the difference of one image, in units of the latents (the paper's r); 0 switches the
    /// limit off. Default: 15, which is for SDXL at 1024 by 1024 pixels. The length grows with the number of values in
    /// the latents, so smaller latents need a smaller limit.
    ///
    /// It is not related to [`Settings::guidance_rescale`](crate::pipeline::Settings::guidance_rescale), which acts
    /// afterwards if both are set.
    pub rescale: f64,
    /// Factor on the component that is parallel to the conditional branch's clean image (the paper's eta), from 0
    /// (removed) to 1 (kept). Default: 0.
    pub parallel: f64,
}

impl Default for Apg {
    fn default() -> Self {
        Self { momentum: -0.5, rescale: 15.0, parallel: 0.0 }
    }
}

impl Apg {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let Self { momentum, rescale, parallel } = *self;
        if !(-1.0..=1.0).contains(&momentum) {
            return Err(Error::settings("apg.momentum", momentum, "a number from -1 to 1", "use 0 to switch it off"));
        }
        if !(0.0..=1e6).contains(&rescale) {
            return Err(Error::settings("apg.rescale", rescale, "a number from 0 to 1e6", "use 0 to switch it off"));
        }
        if !(0.0..=1.0).contains(&parallel) {
            let help = "1 keeps the parallel component, 0 removes it";
            return Err(Error::settings("apg.parallel", parallel, "a number from 0 to 1", help));
        }
        Ok(())
    }
}

/// Adaptive projected guidance of one batch: its settings, and the differences of earlier evaluations.
#[derive(Debug)]
pub(crate) struct ProjectedGuidance {
    settings: Apg,
    prediction: Prediction,
    /// Difference of the last evaluation with the momentum of those before it, `[images, channels, height, width]`.
    accumulated: Option<Tensor<4>>,
}

impl ProjectedGuidance {
    /// Creates the guidance of a batch for a network that predicts this quantity.
    pub(crate) fn new(settings: Apg, prediction: Prediction) -> Self {
        Self { settings, prediction, accumulated: None }
    }

    /// Combines the predictions of one evaluation as [`Guidance::mix`] does, for classifier-free guidance. Call it once
    /// per evaluation, in order. If only one branch runs (scales 0 and 1), its prediction is returned. At a level
    /// without noise, where the clean image does not depend on the prediction, it is [`Guidance::mix`].
    ///
    /// # Shapes
    ///
    /// - `predictions`: `[branches * images, channels, height, width]`
    /// - `latents`: `[images, channels, height, width]`, the input of the evaluation
    /// - returns: `[images, channels, height, width]`
    pub(crate) fn mix(
        &mut self,
        guidance: &Guidance,
        predictions: Tensor<4>,
        latents: Tensor<4>,
        level: NoiseLevel,
    ) -> Tensor<4> {
        // The clean image is linear in the prediction, so differences convert by this factor.
        let slope = clean_per_prediction(self.prediction, level);
        if guidance.branches().len() == 1 || slope == 0.0 {
            return guidance.mix(predictions);
        }
        let scale = guidance.classifier_free_scale().expect("APG: settings with other guidance are refused");
        let images = latents.dims()[0];
        assert_eq!(predictions.dims()[0], 2 * images, "APG: rows of predictions for {images} images");
        let conditional = guidance.part(&predictions, Branch::Conditional);
        let unconditional = guidance.part(&predictions, Branch::Unconditional);

        let Apg { momentum, rescale, parallel } = self.settings;
        let mut difference = (conditional.clone() - unconditional) * slope;
        if momentum != 0.0 {
            if let Some(accumulated) = self.accumulated.take() {
                difference = difference + accumulated * momentum;
            }
            self.accumulated = Some(difference.clone());
        }
        if rescale > 0.0 {
            let factor = (length(difference.clone()).recip() * rescale).clamp_max(1.0);
            difference = difference * factor;
        }
        if parallel != 1.0 {
            let clean = clean_image(self.prediction, latents, conditional.clone(), level);
            let direction = clean.clone() / length(clean);
            let along = direction.clone() * sum_per_image(difference.clone() * direction);
            difference = difference - along * (1.0 - parallel);
        }
        let mixed = conditional.clone() + difference * ((scale - 1.0) / slope);
        if guidance.rescale > 0.0 { rescaled(mixed, conditional, guidance.rescale) } else { mixed }
    }
}

/// Change of the predicted clean image per change of the network's prediction.
fn clean_per_prediction(prediction: Prediction, NoiseLevel { alpha, sigma, .. }: NoiseLevel) -> f64 {
    match prediction {
        Prediction::Epsilon => -sigma / alpha,
        Prediction::Velocity => -sigma,
        Prediction::Sample => 1.0,
    }
}

/// Converts the network's prediction `raw` for `latents` to the predicted clean image.
fn clean_image(prediction: Prediction, latents: Tensor<4>, raw: Tensor<4>, level: NoiseLevel) -> Tensor<4> {
    let NoiseLevel { alpha, sigma, .. } = level;
    match prediction {
        Prediction::Epsilon => (latents - raw * sigma) / alpha,
        Prediction::Velocity => latents * alpha - raw * sigma,
        Prediction::Sample => raw,
    }
}

/// Returns the L2 norm of each image, `[images, 1, 1, 1]`, with a floor so that it can be divided by.
fn length(x: Tensor<4>) -> Tensor<4> {
    sum_per_image(x.square()).sqrt().clamp_min(1e-12)
}

/// Returns the sum over each image, `[images, 1, 1, 1]`.
fn sum_per_image(x: Tensor<4>) -> Tensor<4> {
    let [images, channels, height, width] = x.dims();
    x.reshape([images, channels * height * width]).sum_dim(1).reshape([images, 1, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    const LEVEL: NoiseLevel = NoiseLevel { timestep: 500.0, alpha: 0.6, sigma: 0.8 };
    const PREDICTIONS: [Prediction; 3] = [Prediction::Epsilon, Prediction::Velocity, Prediction::Sample];
    /// Settings with which it is classifier-free guidance.
    const OFF: Apg = Apg { momentum: 0.0, rescale: 0.0, parallel: 1.0 };

    /// Values of this many images with 8 elements, which differ by `phase`.
    fn waves(images: usize, phase: f32) -> Tensor<4> {
        let values: Vec<f32> = (0..images * 8).map(|i| (i as f32 * 0.7 + phase).sin()).collect();
        Tensor::from_data(TensorData::new(values, [images, 2, 2, 2]), &Device::flex())
    }

    fn mix(settings: Apg, prediction: Prediction, scale: f64) -> Tensor<4> {
        let guidance = Guidance::classifier_free(scale);
        ProjectedGuidance::new(settings, prediction).mix(&guidance, waves(4, 0.0), waves(2, 0.3), LEVEL)
    }

    /// The clean images of the conditional branch, and how far guidance moves them.
    fn moved(mixed: Tensor<4>, prediction: Prediction) -> [Tensor<4>; 2] {
        let clean = |raw| clean_image(prediction, waves(2, 0.3), raw, LEVEL);
        let conditional = clean(waves(4, 0.0).narrow(0, 0, 2));
        [conditional.clone(), clean(mixed) - conditional]
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_to_vec().expect("f32 data")
    }

    #[track_caller]
    fn assert_close(got: Tensor<4>, expected: Tensor<4>) {
        got.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::rel_abs(1e-5, 1e-5));
    }

    #[test]
    fn without_its_three_changes_it_is_classifier_free_guidance() {
        for prediction in PREDICTIONS {
            for scale in [0.0, 1.0, 3.0, 7.5] {
                let guidance = Guidance::classifier_free(scale);
                let rows = 2 * guidance.branches().len();
                for rescale in [0.0, 0.7] {
                    let guidance = guidance.clone().with_rescale(rescale);
                    let mut projected = ProjectedGuidance::new(OFF, prediction);
                    for phase in [0.0, 1.0] {
                        let predictions = waves(rows, phase);
                        let got = projected.mix(&guidance, predictions.clone(), waves(2, 0.3), LEVEL);
                        assert_close(got, guidance.mix(predictions));
                    }
                }
            }
        }
    }

    #[test]
    fn without_the_parallel_component_the_update_is_orthogonal_to_the_clean_image() {
        let cosine = |settings: Apg, prediction| {
            let [clean, update] = moved(mix(settings, prediction, 7.5), prediction);
            let dot = sum_per_image(clean.clone() * update.clone());
            values(dot / length(clean) / length(update))
        };
        for prediction in PREDICTIONS {
            let kept = cosine(OFF, prediction);
            assert!(kept.iter().any(|x| x.abs() > 0.05), "{kept:?}: this would prove nothing");
            let removed = cosine(Apg { parallel: 0.0, ..OFF }, prediction);
            assert!(removed.iter().all(|x| x.abs() < 1e-4), "{removed:?}");
        }
    }

    #[test]
    fn the_difference_of_each_image_is_at_most_as_long_as_the_limit() {
        for prediction in PREDICTIONS {
            let lengths = |rescale| {
                let [_, update] = moved(mix(Apg { rescale, ..OFF }, prediction, 3.0), prediction);
                // The update is the difference times `scale - 1`.
                values(length(update / 2.0))
            };
            let free = lengths(0.0);
            let limit = f64::from(free[0].min(free[1])) / 2.0;
            assert!(lengths(limit).iter().all(|got| (f64::from(*got) - limit).abs() < 1e-4 * limit), "{free:?}");
            let far = lengths(1e3);
            assert!(far.iter().zip(&free).all(|(a, b)| (a - b).abs() < 1e-4), "{far:?}, {free:?}");
        }
    }

    #[test]
    fn at_a_level_without_noise_it_is_classifier_free_guidance() {
        let level = NoiseLevel { timestep: 0.0, alpha: 1.0, sigma: 0.0 };
        let guidance = Guidance::classifier_free(7.5);
        for prediction in [Prediction::Epsilon, Prediction::Velocity] {
            let mut projected = ProjectedGuidance::new(Apg::default(), prediction);
            let got = projected.mix(&guidance, waves(4, 0.0), waves(2, 0.3), level);
            assert_close(got, guidance.mix(waves(4, 0.0)));
        }
    }

    #[test]
    fn momentum_adds_the_accumulated_differences() {
        let guidance = Guidance::classifier_free(3.0);
        let mut projected = ProjectedGuidance::new(Apg { momentum: -0.5, ..OFF }, Prediction::Sample);
        let mut mix = || projected.mix(&guidance, waves(4, 0.0), waves(2, 0.3), LEVEL);
        let conditional = waves(4, 0.0).narrow(0, 0, 2);
        let difference = conditional.clone() - waves(4, 0.0).narrow(0, 2, 2);
        // 1, 1 - 0.5 * 1, 1 - 0.5 * 0.5
        for factor in [1.0, 0.5, 0.75] {
            assert_close(mix(), conditional.clone() + difference.clone() * (2.0 * factor));
        }
    }

    #[test]
    fn an_image_does_not_depend_on_the_others() {
        let guidance = Guidance::classifier_free(7.5);
        let settings = Apg { momentum: -0.5, rescale: 0.5, parallel: 0.2 };
        let mut together = ProjectedGuidance::new(settings, Prediction::Epsilon);
        let mut alone = ProjectedGuidance::new(settings, Prediction::Epsilon);
        for phase in [0.0, 1.0] {
            let (predictions, latents) = (waves(4, phase), waves(2, 0.3));
            let second = Tensor::cat([1, 3].map(|row| predictions.clone().narrow(0, row, 1)).to_vec(), 0);
            let of_second = alone.mix(&guidance, second, latents.clone().narrow(0, 1, 1), LEVEL);
            assert_close(of_second, together.mix(&guidance, predictions, latents, LEVEL).narrow(0, 1, 1));
        }
    }
}
