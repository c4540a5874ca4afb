//! Initial weights for training.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use fabric_core::InvalidValue;
use fabric_core::models::CrossAttention;
use fabric_models::load::{LoadOptions, MappedSource, Part, Renamed, TensorSource, load_into};

use crate::adapter::AdapterWeights;
use crate::projection::ImageProjection;
use crate::{AdapterConfig, AdapterError, AdapterFile, ProjectionConfig, numbered_layers};

/// Creates the initial weights of an adapter, as published: a random projection, and key and value projections
/// copied from the U-Net's own cross-attention layers.
///
/// `unet` contains the tensors of the U-Net under diffusers' names, `layers` its cross-attention layers.
///
/// # Errors
///
/// Returns an error if the adapter does not fit the U-Net, or the tensors cannot be read.
pub fn first_weights(
    config: &AdapterConfig,
    layers: &[CrossAttention],
    unet: &dyn TensorSource,
    device: &Device,
) -> Result<AdapterWeights, AdapterError> {
    config.check_layers(layers)?;
    let renamed = numbered_layers(layers).into_iter().enumerate().flat_map(|(index, layer)| {
        let number = 2 * index + 1;
        ["to_k", "to_v"].map(|half| Renamed {
            name: format!("ip_adapter.{number}.{half}_ip.weight"),
            from: format!("{}.{half}.weight", layer.site),
            part: Part::Whole,
        })
    });
    let source = MappedSource::new(Borrowed(unet), renamed)?;
    filled(config.init(device), &source)
}

/// Creates the initial weights of an Instruct adapter from those of a "plus" adapter, as published.
///
/// The common parts are copied. The layers for prompt and instruction start with almost no effect: their last
/// layers are normal noise with standard deviation 1e-4.
///
/// # Errors
///
/// Returns an error if the configuration is not that of an Instruct adapter, or the other adapter does not fit
/// it.
pub fn first_weights_of_instruct(
    config: &AdapterConfig,
    plus: &AdapterFile,
    device: &Device,
) -> Result<AdapterWeights, AdapterError> {
    let ProjectionConfig::Instruct { resampler, .. } = config.projection else {
        return Err(AdapterError::Unfit {
            adapter: config.to_string(),
            value: InvalidValue {
                what: "the adapter to train".to_owned(),
                got: config.to_string(),
                expected: "an Instruct adapter".to_owned(),
                help: "begin others with `first_weights`".to_owned(),
            },
        });
    };
    let from = plus.config()?;
    let expected =
        AdapterConfig { projection: ProjectionConfig::Resampler(resampler), lora_rank: None, ..config.clone() };
    if from != expected {
        return Err(AdapterError::Unfit {
            adapter: config.to_string(),
            value: InvalidValue {
                what: "the adapter to begin with".to_owned(),
                got: from.to_string(),
                expected: format!("{expected} of the same sizes"),
                help: "take the plus adapter of this model".to_owned(),
            },
        });
    }
    let mut weights = filled(config.init(device), plus.weights())?;
    let ImageProjection::Instruct(projection) = weights.projection else {
        unreachable!("{config} has this projection")
    };
    weights.projection =
        ImageProjection::Instruct(projection.with_quiet_instructions(|layer| layer.map(&mut Noise(1e-4))));
    Ok(weights)
}

/// Loads the tensors of a source into the weights.
fn filled(weights: AdapterWeights, source: &dyn TensorSource) -> Result<AdapterWeights, AdapterError> {
    let (weights, report) = load_into(weights, source, &LoadOptions::default().with_strict(false))?;
    if let Some(other) = report.mismatched.first() {
        return Err(AdapterError::NotAnAdapter {
            place: report.place.clone(),
            what: format!("shape of tensor `{}`", other.name),
            got: format!("{:?}", other.got),
            expected: format!("{:?}", other.expected),
        });
    }
    Ok(weights)
}

/// Replaces all weights by normal noise of this standard deviation.
struct Noise(f64);

impl ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let noise = Tensor::random(tensor.dims(), Distribution::Normal(0.0, self.0), &tensor.device());
        // Tracks gradients only if the original parameter does.
        let noise = if tensor.is_require_grad() { noise.require_grad() } else { noise };
        Param::from_mapped_value(id, noise, mapper)
    }
}

/// Borrowed tensor source.
#[derive(Debug)]
struct Borrowed<'a>(&'a dyn TensorSource);

impl TensorSource for Borrowed<'_> {
    fn place(&self) -> String {
        self.0.place()
    }

    fn tensors(&self) -> &std::collections::BTreeMap<String, fabric_models::load::TensorInfo> {
        self.0.tensors()
    }

    fn read(&self, name: &str) -> Result<fabric_models::load::HostTensor, fabric_models::load::LoadError> {
        self.0.read(name)
    }
}
