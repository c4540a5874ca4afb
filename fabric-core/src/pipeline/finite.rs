//! Search for the first network of a run that returned NaN or infinity, after an image could not be decoded.

use burn::tensor::{DType, Tensor};

use crate::Error;

/// Sums of absolute values of what networks returned, in the order of the run. They stay on the device and are read only
/// if an image is not finite, so that runs do not wait for the device. A sum is not finite if one of its values is not.
#[derive(Debug, Default)]
pub(super) struct NetworkOutputs(Vec<(Output, Tensor<1>)>);

/// A network, and the part of the run in which it returned values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output {
    Text,
    References,
    Start,
    Prediction { evaluation: usize, evaluations: usize },
    Latents,
}

impl NetworkOutputs {
    /// Notes what a network returned.
    pub(super) fn note<const D: usize>(&mut self, output: Output, values: &Tensor<D>) {
        // In f32, because the sum of many values may exceed the range of f16.
        self.0.push((output, values.clone().cast(DType::F32).abs().sum()));
    }

    /// Returns the error that names the first output that is not finite; `None` if all are finite.
    pub(super) fn first_error(&self) -> Option<Error> {
        let is_finite = |sum: &Tensor<1>| sum.clone().into_scalar::<f32>().is_finite();
        self.0.iter().find(|(_, sum)| !is_finite(sum)).map(|(output, _)| output.error())
    }
}

impl Output {
    fn error(self) -> Error {
        let other_type = "the network overflowed or its weights are damaged: load it in f32 or bf16";
        let (stage, help) = match self {
            Self::Text => ("embedding of the text encoder".to_owned(), other_type),
            Self::References => ("latents of the reference images, by the VAE".to_owned(), other_type),
            Self::Start => ("latents of the init image, by the VAE".to_owned(), other_type),
            Self::Prediction { evaluation, evaluations } => (
                format!("prediction of the U-Net at evaluation {evaluation} of {evaluations}"),
                "the network overflowed or its weights are damaged: run it in f32 or bf16, or lower the guidance scale",
            ),
            Self::Latents => (
                "latents after the last evaluation".to_owned(),
                "all predictions were finite, so the sampler or the guidance overflowed: lower the guidance scale, or \
                 use another sampler",
            ),
        };
        Error::NotFinite { stage, help }
    }
}
