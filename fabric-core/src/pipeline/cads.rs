//! Condition-annealed diffusion sampling (CADS): noise in the prompt's embedding early in a run.

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::text::Conditions;
use crate::Error;
use crate::denoise::ModelCall;
use crate::noise::TextNoise;

/// Condition-annealed diffusion sampling: adds noise to the prompt's embedding at high noise levels, so that images of
/// one prompt differ more.
///
/// "CADS: Unleashing the Diversity of Diffusion Models through Condition-Annealed Sampling" (2310.17347). In each
/// evaluation, an embedding `y` becomes `z = sqrt(gamma) * y + noise_scale * sqrt(1 - gamma) * noise` with new noise,
/// and then `mixing * w + (1 - mixing) * z`, where `w` is `z` with the mean and standard deviation of `y`. `gamma`
/// depends on the time. Time is the timestep divided by the number of training timesteps; it runs from 1 (noise) to 0.
/// `gamma` is 1 up to `prompt_only_below`, 0 from `noise_only_above`, and linear in between.
///
/// It acts on the text context of the conditional branch; negative prompts, references and the pooled text of SDXL do
/// not change. Mean and standard deviation are computed per image, and the noise has a stream of its own per seed, so
/// an image does not depend on its batch. It does not come from [`RunNoise`](crate::noise::RunNoise), also in
/// [`Pipeline::generate_with`](super::Pipeline::generate_with). The keys and values of the text are computed again in
/// every evaluation that has noise.
///
/// ```
/// use fabric_core::pipeline::{Cads, Settings};
/// let settings = Settings { cads: Some(Cads { noise_scale: 0.1, ..Cads::default() }), ..Settings::default() };
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cads {
    /// Factor on the noise (the paper's s). Default: 0.25.
    pub noise_scale: f64,
    /// Time up to which the prompt is unchanged, 0 to 1 (the paper's tau 1). Default: 0.6.
    pub prompt_only_below: f64,
    /// Time from which the embedding is noise alone, `prompt_only_below` to 1 (the paper's tau 2). Default: 0.9.
    pub noise_only_above: f64,
    /// Share of the embedding whose mean and standard deviation are restored, 0 to 1 (the paper's psi). Default: 1.
    pub mixing: f64,
}

impl Default for Cads {
    fn default() -> Self {
        Self { noise_scale: 0.25, prompt_only_below: 0.6, noise_only_above: 0.9, mixing: 1.0 }
    }
}

impl Cads {
    pub(super) fn validate(&self) -> Result<(), Error> {
        let Self { noise_scale, prompt_only_below, noise_only_above, mixing } = *self;
        if !(0.0..=1e4).contains(&noise_scale) {
            let help = "0.025 to 0.25 is usual";
            return Err(Error::settings("cads.noise_scale", noise_scale, "a number from 0 to 1e4", help));
        }
        for (name, share) in [("cads.prompt_only_below", prompt_only_below), ("cads.mixing", mixing)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::settings(name, share, "a number from 0 to 1", "leave it out to use the default"));
            }
        }
        if !(prompt_only_below..=1.0).contains(&noise_only_above) {
            let expected = format!("a number from {prompt_only_below} (`cads.prompt_only_below`) to 1");
            let help = "time runs from 1 (noise) to 0";
            return Err(Error::settings("cads.noise_only_above", noise_only_above, expected, help));
        }
        Ok(())
    }

    /// Whether the prompt's embedding changes in an evaluation of a model that was trained on `train_steps` timesteps.
    pub(super) fn acts(&self, call: &ModelCall, train_steps: usize) -> bool {
        let gamma = self.gamma(time(call, train_steps));
        // Without noise the embedding is only scaled, which full mixing reverts.
        let is_reverted = self.noise_scale == 0.0 && self.mixing == 1.0 && gamma > 0.0;
        gamma < 1.0 && !is_reverted
    }

    /// Share of the prompt in the variance of its embedding at this time: 1 is the prompt alone, 0 the noise alone.
    fn gamma(&self, time: f64) -> f64 {
        if time <= self.prompt_only_below {
            1.0
        } else if time >= self.noise_only_above {
            0.0
        } else {
            (self.noise_only_above - time) / (self.noise_only_above - self.prompt_only_below)
        }
    }

    /// Adds noise to the embeddings of prompts; all tensors are `[images, tokens, channels]`.
    fn anneal(&self, prompts: Tensor<3>, noise: Tensor<3>, gamma: f64) -> Tensor<3> {
        let dtype = prompts.dtype();
        // In f32, as the sums over an embedding exceed the range of f16.
        let prompts = prompts.cast(DType::F32);
        let noised = prompts.clone() * gamma.sqrt() + noise * (self.noise_scale * (1.0 - gamma).sqrt());
        let [mean, std] = mean_and_std(prompts);
        let [noised_mean, noised_std] = mean_and_std(noised.clone());
        // The floor avoids 0 / 0 if neither prompt nor noise is left.
        let restored = (noised.clone() - noised_mean) / noised_std.clamp_min(1e-12) * std + mean;
        (restored * self.mixing + noised * (1.0 - self.mixing)).cast(dtype)
    }
}

/// Returns the time of an evaluation, 1 (noise) to 0.
fn time(call: &ModelCall, train_steps: usize) -> f64 {
    call.level.timestep / train_steps as f64
}

/// Returns mean and standard deviation of each image's embedding, `[images, 1, 1]`.
fn mean_and_std(x: Tensor<3>) -> [Tensor<3>; 2] {
    let [images, tokens, channels] = x.dims();
    let (variance, mean) = x.reshape([images, tokens * channels]).var_mean(1);
    [mean, variance.sqrt()].map(|one| one.reshape([images, 1, 1]))
}

/// Condition-annealed sampling of one batch: its settings and the noise of its images.
#[derive(Debug)]
pub(super) struct Annealing {
    cads: Cads,
    /// Number of timesteps of the training.
    train_steps: usize,
    noise: TextNoise,
}

impl Annealing {
    /// Creates it for one image per seed and a model trained on `train_steps` timesteps (1000 for Stable Diffusion).
    pub(super) fn new(cads: Cads, train_steps: usize, seeds: &[u64]) -> Self {
        Self { cads, train_steps, noise: TextNoise::new(seeds) }
    }

    /// Returns the text embeddings of one evaluation, or `None` where the prompt is unchanged. Call it once per
    /// evaluation that runs the conditional branch, in order.
    pub(super) fn conditions(&mut self, conditions: &Conditions, call: &ModelCall) -> Option<Conditions> {
        if !self.cads.acts(call, self.train_steps) {
            return None;
        }
        let gamma = self.cads.gamma(time(call, self.train_steps));
        let prompts = conditions.prompts();
        let noise = self.noise.draw(prompts.dims(), &prompts.device());
        Some(conditions.with_prompts(self.cads.anneal(prompts, noise, gamma)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttnKind, AttnSite, Block};
    use crate::denoise::NoiseLevel;
    use crate::guidance::Branch;
    use crate::models::{TextEmbedding, TextEncoder, TextOptions};
    use crate::pipeline::Request;
    use burn::tensor::{Device, TensorData, Tolerance};

    /// Text encoder whose embeddings are waves.
    struct Waves;

    impl TextEncoder for Waves {
        fn encode(&self, prompts: &[String], _options: &TextOptions) -> Result<TextEmbedding, Error> {
            let values: Vec<f32> = (0..prompts.len() * 12).map(|i| (i as f32 * 0.7).sin()).collect();
            let context = Tensor::from_data(TensorData::new(values, [prompts.len(), 3, 4]), &Device::flex());
            Ok(TextEmbedding { context, pooled: None, truncated: Vec::new() })
        }
    }

    #[test]
    fn each_evaluation_has_noise_and_a_kv_cache_of_its_own() {
        let conditions =
            Conditions::encode(&Waves, &Request::new("a cat"), &[1, 2], [64, 64], false).expect("conditions");
        let cads = Cads { prompt_only_below: 0.5, noise_only_above: 0.9, ..Cads::default() };
        let mut annealing = Annealing::new(cads, 1000, &[1, 2]);
        let call =
            |index, timestep| ModelCall { index, total: 4, level: NoiseLevel { timestep, alpha: 0.6, sigma: 0.8 } };
        let context = |conditions: &Conditions| -> Vec<f32> {
            let rows = conditions.rows(&[Branch::Conditional, Branch::Unconditional], 0);
            // Keys and values are computed only if the cache has none.
            let site = AttnSite { block: Block::Mid, attention: 0, layer: 0, kind: AttnKind::CrossAttention };
            let mut was_empty = false;
            rows.keys.at(site, || {
                was_empty = true;
                [rows.context.clone(), rows.context.clone()]
            });
            assert!(was_empty, "stale keys and values");
            rows.context.clone().into_data().try_to_vec().expect("f32 data")
        };
        let mut contexts = vec![context(&conditions)];
        for (index, timestep) in [(0, 999.0), (1, 950.0), (2, 700.0)] {
            let annealed = annealing.conditions(&conditions, &call(index, timestep)).expect("noise");
            contexts.push(context(&annealed));
        }
        for (index, one) in contexts.iter().enumerate() {
            assert!(contexts[..index].iter().all(|other| other[..24] != one[..24]), "the prompts of both images");
            assert_eq!(contexts[0][24..], one[24..], "the negative prompt");
        }
        assert!(annealing.conditions(&conditions, &call(3, 500.0)).is_none());
    }

    #[test]
    fn it_acts_where_it_changes_the_embedding() {
        let acts = |cads: Cads, timestep| {
            let level = NoiseLevel { timestep, alpha: 0.6, sigma: 0.8 };
            cads.acts(&ModelCall { index: 0, total: 1, level }, 1000)
        };
        let cads = Cads { prompt_only_below: 0.5, noise_only_above: 0.9, ..Cads::default() };
        assert_eq!([999.0, 700.0, 500.0, 1.0].map(|timestep| acts(cads, timestep)), [true, true, false, false]);
        // Without noise, full mixing restores the embedding, except where nothing of it is left.
        let noiseless = Cads { noise_scale: 0.0, ..cads };
        assert_eq!([999.0, 700.0, 500.0].map(|timestep| acts(noiseless, timestep)), [true, false, false]);
        assert!(acts(Cads { mixing: 0.5, ..noiseless }, 700.0));
        assert_close(noiseless.anneal(prompts(), noise(), 0.3), prompts());
    }

    fn prompts() -> Tensor<3> {
        let values: Vec<f32> = (0..24).map(|i| (i as f32 * 0.7).sin() * 3.0 + 1.0).collect();
        Tensor::from_data(TensorData::new(values, [2, 3, 4]), &Device::flex())
    }

    fn noise() -> Tensor<3> {
        TextNoise::new(&[1, 2]).draw([2, 3, 4], &Device::flex())
    }

    #[track_caller]
    fn assert_close(got: Tensor<3>, expected: Tensor<3>) {
        got.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::rel_abs(1e-5, 1e-5));
    }

    #[test]
    fn gamma_falls_linearly_between_the_two_times() {
        let cads = Cads { prompt_only_below: 0.5, noise_only_above: 0.75, ..Cads::default() };
        for (time, gamma) in
            [(0.0, 1.0), (0.5, 1.0), (0.5625, 0.75), (0.625, 0.5), (0.6875, 0.25), (0.75, 0.0), (1.0, 0.0)]
        {
            assert_eq!(cads.gamma(time), gamma, "{time}");
        }
        let sudden = Cads { prompt_only_below: 0.5, noise_only_above: 0.5, ..Cads::default() };
        assert_eq!([0.5, 0.51].map(|time| sudden.gamma(time)), [1.0, 0.0]);
    }

    #[test]
    fn without_mixing_it_is_a_weighted_sum_of_prompt_and_noise() {
        let cads = Cads { noise_scale: 0.5, mixing: 0.0, ..Cads::default() };
        // sqrt(0.36) and 0.5 * sqrt(0.64)
        assert_close(cads.anneal(prompts(), noise(), 0.36), prompts() * 0.6 + noise() * 0.4);
    }

    #[test]
    fn full_mixing_restores_mean_and_standard_deviation_of_each_image() {
        let stats = |mixing| {
            mean_and_std(Cads { noise_scale: 20.0, mixing, ..Cads::default() }.anneal(prompts(), noise(), 0.3))
        };
        let expected = mean_and_std(prompts());
        for (got, expected) in stats(1.0).into_iter().zip(expected.clone()) {
            assert_close(got, expected);
        }
        let [_, expected] = expected.map(|x| x.into_data().try_to_vec::<f32>().expect("f32 data"));
        let [_, got] = stats(0.0).map(|x| x.into_data().try_to_vec::<f32>().expect("f32 data"));
        assert!((got[0] - expected[0]).abs() > 1e-2, "{got:?}, {expected:?}: this would prove nothing");
    }

    #[test]
    fn noise_alone_hides_the_prompt() {
        let cads = Cads { mixing: 0.0, ..Cads::default() };
        let [one, other] = [prompts(), prompts() * -2.0].map(|prompts| cads.anneal(prompts, noise(), 0.0));
        assert_close(one, other);
        // Nothing is left at all, and nothing is divided by 0.
        let nothing = Cads { noise_scale: 0.0, mixing: 1.0, ..Cads::default() }.anneal(prompts(), noise(), 0.0);
        let [mean, _] = mean_and_std(prompts());
        assert_close(nothing, mean.expand([2, 3, 4]));
    }
}
