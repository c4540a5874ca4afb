//! Fixtures shared by the U-Net's tests.

mod configurations;
mod passes;
mod reference_rows;

use std::sync::Mutex;

use burn::tensor::{Device, Distribution, Tensor};
use fabric_backends::{DeviceKind, device};
use fabric_core::attention::{AttnCall, AttnExtras, AttnKind, AttnProcessor, AttnSite};

use super::*;
use crate::config::OneOrMany;

fn cpu() -> Device {
    device(DeviceKind::Flex).unwrap()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &cpu())
}

/// Returns the largest absolute difference divided by the largest absolute expected value.
fn difference<const D: usize>(got: Tensor<D>, expected: Tensor<D>) -> f32 {
    assert_eq!(got.dims(), expected.dims());
    let scale: f32 = expected.clone().abs().max().into_scalar();
    let error: f32 = (got - expected).abs().max().into_scalar();
    error / scale
}

/// Returns a configuration with two levels and attention at both, with three and two heads.
fn tiny() -> UNetConfig {
    UNetConfig {
        block_out_channels: vec![12, 16],
        down_block_types: vec![DownBlockType::CrossAttnDownBlock2D; 2],
        up_block_types: vec![UpBlockType::CrossAttnUpBlock2D; 2],
        layers_per_block: OneOrMany::One(1),
        norm_num_groups: 4,
        cross_attention_dim: OneOrMany::One(10),
        attention_head_dim: OneOrMany::Many(vec![3, 2]),
        ..Default::default()
    }
}

const CONTEXT: usize = 10;

/// Random network with an input.
struct Bench {
    unet: UNet,
    sample: Tensor<4>,
    context: Tensor<3>,
    timesteps: Vec<f64>,
}

impl Bench {
    fn new(config: &UNetConfig, rows: usize) -> Self {
        Self {
            unet: config.init(&cpu()).unwrap(),
            sample: random([rows, config.in_channels, 7, 6]),
            context: random([rows, 5, CONTEXT]),
            timesteps: (0..rows).map(|row| 100.0 + 50.0 * row as f64).collect(),
        }
    }

    fn input(&self) -> UNetInput<'_> {
        UNetInput::new(self.sample.clone(), &self.timesteps, self.context.clone())
    }

    /// Returns the same network with a range of the rows.
    fn rows(&self, start: usize, count: usize) -> Self {
        Self {
            unet: self.unet.clone(),
            sample: self.sample.clone().narrow(0, start, count),
            context: self.context.clone().narrow(0, start, count),
            timesteps: self.timesteps[start..start + count].to_vec(),
        }
    }

    fn predict(&self, input: UNetInput<'_>) -> Tensor<4> {
        self.unet.forward(input).sample.expect("a prediction")
    }
}

/// Recorded call: site, keys, values and grid.
type Noted = (AttnSite, Tensor<3>, Tensor<3>, [usize; 2]);

/// Processor that records every call and adds nothing.
#[derive(Debug, Default)]
struct Spy(Mutex<Vec<Noted>>);

impl AttnProcessor for Spy {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let noted = (call.site, call.key.clone(), call.value.clone(), call.grid);
        self.0.lock().unwrap().push(noted);
        AttnExtras::default()
    }
}

impl Spy {
    fn calls(self) -> Vec<Noted> {
        self.0.into_inner().unwrap()
    }
}

fn is_self(site: &AttnSite) -> bool {
    site.kind == AttnKind::SelfAttention
}
