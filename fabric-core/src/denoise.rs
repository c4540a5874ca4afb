//! What a sampler calls, and what it draws its noise from.

use burn::tensor::Tensor;

use crate::Error;

/// One noise level of a schedule, `x = alpha * clean + sigma * noise` with `alpha² + sigma² = 1`.
///
/// Variance-preserving for every sampler, so that a terminal level without signal (`alpha = 0`,
/// zero-SNR schedules) is an ordinary value. [`NoiseLevel::ratio`] is k-diffusion's sigma.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevel {
    /// What the network is told; fractional for schedules that interpolate.
    pub timestep: f64,
    /// Amplitude of the signal, the square root of the cumulative product of `1 - beta`.
    pub alpha: f64,
    /// Amplitude of the noise.
    pub sigma: f64,
}

impl NoiseLevel {
    /// `sigma / alpha`: the noise level in the convention where the signal keeps its amplitude.
    pub fn ratio(&self) -> f64 {
        self.sigma / self.alpha
    }
}

/// One evaluation of the network within a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelCall {
    /// Which evaluation this is, from 0. Second-order samplers evaluate about twice a step.
    pub index: usize,
    /// How many evaluations the run makes in all (diffusers' `len(timesteps)`).
    pub total: usize,
    /// The noise level of the input.
    pub level: NoiseLevel,
}

/// Predicts from a noisy image; samplers know nothing else about networks.
///
/// The answer is the network's own quantity (noise, velocity or clean image), after guidance.
pub trait Denoiser {
    /// Predicts for `latents` `[images, channels, height, width]`, scaled as in [`NoiseLevel`].
    ///
    /// # Errors
    ///
    /// Whatever stops the run, [`Error::Cancelled`] among them.
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error>;
}

/// Standard normal noise for stochastic samplers.
pub trait NoiseSource {
    /// A fresh draw of the given shape, on the device of the run.
    ///
    /// # Errors
    ///
    /// When recorded noise has run out or has another shape.
    fn draw(&mut self, shape: [usize; 4]) -> Result<Tensor<4>, Error>;
}
