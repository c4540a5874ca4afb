//! Time embedding of the U-Net.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::layers::{Activation, Linear};

/// Sinusoidal embedding of a number (Vaswani et al. 2017, as used in DDPM).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sinusoid {
    /// Length of the vector, even.
    pub(crate) dim: usize,
    /// Whether cosines come before sines.
    pub(crate) flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies.
    pub(crate) freq_shift: f64,
}

impl Sinusoid {
    /// Returns `10000^(-k / (dim/2 - shift))`, rounded to f32 at each operation as in PyTorch: at timestep 999, one
    /// unit in the last place of a frequency changes the result by 6e-5.
    fn frequencies(&self) -> Vec<f32> {
        let half = self.dim / 2;
        let log_period = -(10_000_f64.ln()) as f32;
        (0..half)
            .map(|k| {
                let exponent = log_period * k as f32 / (half as f64 - self.freq_shift) as f32;
                f64::from(exponent).exp() as f32
            })
            .collect()
    }

    /// Returns one vector per timestep, computed on the host: `[timesteps, dim]` in f32.
    pub(crate) fn embed(&self, timesteps: &[f64], device: &Device) -> Tensor<2> {
        let frequencies = self.frequencies();
        let mut values = Vec::with_capacity(timesteps.len() * self.dim);
        for &timestep in timesteps {
            let angles = || frequencies.iter().map(|frequency| f64::from(timestep as f32 * frequency));
            let sines = angles().map(|angle| angle.sin() as f32);
            let cosines = angles().map(|angle| angle.cos() as f32);
            if self.flip_sin_to_cos {
                values.extend(cosines.chain(sines));
            } else {
                values.extend(sines.chain(cosines));
            }
        }
        Tensor::from_data(TensorData::new(values, [timesteps.len(), self.dim]), (device, DType::F32))
    }

    /// Returns one vector per number, computed on the device and concatenated: `[rows, numbers]` to `[rows, numbers *
    /// dim]` in f32.
    pub(crate) fn embed_tensor(&self, numbers: Tensor<2>) -> Tensor<2> {
        let [rows, count] = numbers.dims();
        let frequencies = self.frequencies();
        let data = TensorData::new(frequencies, [1, 1, self.dim / 2]);
        let frequencies = Tensor::<3>::from_data(data, (&numbers.device(), DType::F32));
        let angles = numbers.cast(DType::F32).reshape([rows, count, 1]) * frequencies;
        let (sines, cosines) = (angles.clone().sin(), angles.cos());
        let parts = if self.flip_sin_to_cos { vec![cosines, sines] } else { vec![sines, cosines] };
        Tensor::cat(parts, 2).reshape([rows, count * self.dim])
    }
}

/// Returns the U-Net's sinusoidal embedding of timesteps: `[timesteps, dim]` in f32.
///
/// `dim` must be even and greater than twice `freq_shift`.
pub fn timestep_embedding(
    timesteps: &[f64],
    dim: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    device: &Device,
) -> Tensor<2> {
    Sinusoid { dim, flip_sin_to_cos, freq_shift }.embed(timesteps, device)
}

/// Returns the sinusoidal embedding of a guidance scale, which latent consistency models read (`[1, dim]` in f32, `dim`
/// even and at least 4). It has f32 roundings in the order of diffusers' `get_guidance_scale_embedding`.
pub(crate) fn guidance_embedding(scale: f64, dim: usize, device: &Device) -> Tensor<2> {
    let half = dim / 2;
    let log_step = (10_000_f64.ln() as f32) / (half as f32 - 1.0);
    let scaled = (scale - 1.0) as f32 * 1000.0;
    let angles = || (0..half).map(|k| f64::from(scaled * f64::from(k as f32 * -log_step).exp() as f32));
    let sines = angles().map(|angle| angle.sin() as f32);
    let values: Vec<f32> = sines.chain(angles().map(|angle| angle.cos() as f32)).collect();
    Tensor::from_data(TensorData::new(values, [1, dim]), (device, DType::F32))
}

/// MLP of two linear layers after a sinusoidal embedding.
#[derive(Module, Debug)]
pub(crate) struct TimestepEmbedding {
    /// Projects a condition that is added to the input.
    cond_proj: Option<Linear>,
    linear_1: Linear,
    linear_2: Linear,
    #[module(skip)]
    act: Activation,
}

impl TimestepEmbedding {
    pub(crate) fn new(inputs: usize, outputs: usize, act: Activation, device: &Device) -> Self {
        Self {
            cond_proj: None,
            linear_1: Linear::new(inputs, outputs, true, device),
            linear_2: Linear::new(outputs, outputs, true, device),
            act,
        }
    }

    /// Adds the projection of a condition with this width, if there is one.
    pub(crate) fn with_condition(mut self, dim: Option<usize>, device: &Device) -> Self {
        self.cond_proj = dim.map(|dim| Linear::new(dim, self.inputs(), false, device));
        self
    }

    /// Returns the width of the condition, if there is one.
    pub(crate) fn condition_dim(&self) -> Option<usize> {
        self.cond_proj.as_ref().map(|projection| projection.weight.lazy_shape()[1])
    }

    /// Returns the number of input channels.
    pub(crate) fn inputs(&self) -> usize {
        self.linear_1.weight.lazy_shape()[1]
    }

    /// Returns the embedding of `x`, `[rows, inputs]`, with a condition `[1, condition_dim]` or none.
    pub(crate) fn forward_with(&self, x: Tensor<2>, condition: Option<Tensor<2>>) -> Tensor<2> {
        match (&self.cond_proj, condition) {
            (Some(projection), Some(condition)) => self.forward(x + projection.forward(condition)),
            _ => self.forward(x),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(self.act.forward(self.linear_1.forward(x)))
    }
}

#[cfg(test)]
mod tests {
    use fabric_backends::{DeviceKind, device};

    use super::*;

    #[test]
    fn host_and_device_agree() {
        let device = device(DeviceKind::Flex).unwrap();
        for flip_sin_to_cos in [true, false] {
            let sinusoid = Sinusoid { dim: 6, flip_sin_to_cos, freq_shift: 1.0 };
            let host = sinusoid.embed(&[0.0, 3.0, 512.5], &device).reshape([1, 18]);
            let there = sinusoid.embed_tensor(Tensor::from_data([[0.0, 3.0, 512.5]], &device));
            let error: f32 = (host - there).abs().max().into_scalar();
            assert!(error < 1e-4, "{error}");
        }
    }

    #[test]
    fn shift_stretches_the_frequencies_to_the_full_period() {
        let frequencies = Sinusoid { dim: 6, flip_sin_to_cos: true, freq_shift: 1.0 }.frequencies();
        assert_eq!(frequencies[0], 1.0);
        assert!((frequencies[2] - 1e-4).abs() < 1e-9);
    }
}
