//! Interface between samplers and networks: noise levels, the denoiser and the noise source.

use burn::tensor::Tensor;

use crate::Error;

/// One noise level of a schedule, `x = alpha * clean + sigma * noise` with `alpha² + sigma² = 1`.
///
/// All samplers use this variance-preserving form, so that a terminal level without signal (`alpha = 0`, zero-SNR
/// schedules) is an ordinary value. [`NoiseLevel::ratio`] is k-diffusion's sigma.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevel {
    /// Timestep passed to the network; fractional for schedules that interpolate.
    pub timestep: f64,
    /// Amplitude of the signal, the square root of the cumulative product of `1 - beta`.
    pub alpha: f64,
    /// Amplitude of the noise.
    pub sigma: f64,
}

impl NoiseLevel {
    /// Returns `sigma / alpha`, the noise level in the convention where the signal keeps its amplitude.
    pub fn ratio(&self) -> f64 {
        self.sigma / self.alpha
    }
}

/// One evaluation of the network within a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelCall {
    /// Index of the evaluation, from 0. Second-order samplers make about two evaluations per step.
    pub index: usize,
    /// Number of evaluations in the run (diffusers' `len(timesteps)`).
    pub total: usize,
    /// The noise level of the input.
    pub level: NoiseLevel,
}

/// Network with guidance, as a sampler calls it.
///
/// Returns the quantity that the network predicts (noise, velocity or clean image), after guidance.
pub trait Denoiser {
    /// Returns the prediction for `latents` `[images, channels, height, width]`, scaled as in [`NoiseLevel`].
    ///
    /// # Errors
    ///
    /// Returns any error that stops the run, including [`Error::Cancelled`].
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error>;
}

/// Source of standard normal noise for stochastic samplers.
pub trait NoiseSource {
    /// Draws new noise of the given shape, on the device of the run.
    ///
    /// # Errors
    ///
    /// Returns an error if recorded noise is exhausted or has another shape.
    fn draw(&mut self, shape: [usize; 4]) -> Result<Tensor<4>, Error>;
}
