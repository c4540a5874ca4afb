//! Several images as one, before the projection reads them.

use burn::tensor::Tensor;

use super::Features;
use crate::AdapterError;

/// How features of several images become those of one, as ComfyUI_IPAdapter_plus combines them.
///
/// Without combining, the tokens of all images stand side by side in one softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Their sum.
    Add,
    /// The first without the mean of the others.
    Subtract,
    /// Their mean.
    Mean,
    /// The mean of each divided by the length over images, as published: not the length over channels.
    NormMean,
    /// The largest of each number.
    Max,
    /// The smallest of each number.
    Min,
}

impl Combine {
    fn of<const D: usize>(self, features: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Add => features.sum_dim(0),
            Self::Mean => features.mean_dim(0),
            Self::Max => features.max_dim(0),
            Self::Min => features.min_dim(0),
            Self::Subtract => {
                let count = features.dims()[0];
                let first = features.clone().narrow(0, 0, 1);
                if count == 1 { first } else { first - features.narrow(0, 1, count - 1).mean_dim(0) }
            }
            Self::NormMean => {
                let length = features.clone().square().sum_dim(0).sqrt().clamp_min(1e-12);
                (features / length).mean_dim(0)
            }
        }
    }
}

impl Features {
    /// The features of one image that stand for all of these.
    ///
    /// # Errors
    ///
    /// When there is no image.
    pub fn combined(&self, combine: Combine) -> Result<Self, AdapterError> {
        self.check_rows()?;
        let features = self.in_f32();
        Ok(match features {
            Self::Pooled(x) => Self::Pooled(combine.of(x)),
            Self::Tokens(x) => Self::Tokens(combine.of(x)),
            Self::Face(x) => Self::Face(combine.of(x)),
            Self::FaceAndTokens { identities, tokens } => {
                Self::FaceAndTokens { identities: combine.of(identities), tokens: combine.of(tokens) }
            }
            // Texts are no images: they are the same for all.
            Self::Instructed { tokens, prompt, instruction } => Self::Instructed {
                tokens: combine.of(tokens),
                prompt: prompt.narrow(0, 0, 1),
                instruction: instruction.narrow(0, 0, 1),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_those_of_the_table() {
        let device = fabric_backends::default_device().expect("a device");
        let features = Features::Pooled(Tensor::from_data([[3.0, 0.0], [4.0, 2.0]], &device));
        let combined = |combine| {
            let Features::Pooled(x) = features.combined(combine).expect("images") else { panic!("not pooled") };
            assert_eq!(x.dims(), [1, 2]);
            x.into_data().iter::<f32>().collect::<Vec<_>>()
        };
        assert_eq!(combined(Combine::Add), [7.0, 2.0]);
        assert_eq!(combined(Combine::Subtract), [-1.0, -2.0]);
        assert_eq!(combined(Combine::Mean), [3.5, 1.0]);
        assert_eq!(combined(Combine::Max), [4.0, 2.0]);
        assert_eq!(combined(Combine::Min), [3.0, 0.0]);
        for (got, expected) in combined(Combine::NormMean).into_iter().zip([0.7, 0.5]) {
            assert!((got - expected).abs() < 1e-6, "{got}");
        }
        let none = Features::Pooled(Tensor::zeros([0, 2], &device));
        assert!(none.combined(Combine::Add).is_err());
    }
}
