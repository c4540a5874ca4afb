//! Search for the first network of a run that returned NaN or infinity, after an image could not be decoded.

use burn::tensor::{DType, Tensor};

use crate::Error;

/// Sums of absolute values of what networks returned, in the order of the run. They stay on the device and are read only
/// if an image is not finite, so that runs do not wait for the device. A sum is not finite if one of its values is not.
#[derive(Debug, Default)]
pub(super) struct NetworkOutputs(Vec<(Output, Tensor<1>)>);

/// Factor on values before they are summed: the sum of 2⁴⁰ finite values is finite.
const SCALE: f32 = 1.0 / (1_u64 << 40) as f32;

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
        // In f32, because the sum of many values may exceed the range of f16, and scaled, because that of very large ones
        // may exceed that of f32.
        self.0.push((output, (values.clone().cast(DType::F32) * SCALE).abs().sum()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_large_values_are_finite_and_one_that_is_not_is_found() {
        let device = fabric_backends::default_device().expect("a device");
        let noted = |value: f32| {
            let mut outputs = NetworkOutputs::default();
            outputs.note(Output::Text, &Tensor::<1>::full([4096], f32::MAX, &device));
            let values =
                Tensor::cat(vec![Tensor::<1>::zeros([4095], &device), Tensor::from_floats([value], &device)], 0);
            outputs.note(Output::Latents, &values);
            outputs.first_error()
        };
        assert!(noted(f32::MIN).is_none());
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let Some(Error::NotFinite { stage, .. }) = noted(value) else { panic!("{value}") };
            assert_eq!(stage, "latents after the last evaluation");
        }
    }
}
