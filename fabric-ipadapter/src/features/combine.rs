//! Combination of the features of several images before the projection.

use burn::tensor::Tensor;

use super::Features;
use crate::AdapterError;

/// Method of combining the features of several images into those of one, as in `ComfyUI_IPAdapter_plus`.
///
/// Without combining, the tokens of all images share one softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Sum.
    Add,
    /// The first minus the mean of the others.
    Subtract,
    /// Mean.
    Mean,
    /// Mean of the features, each divided by its norm over the images, as published (not over the channels).
    NormMean,
    /// Elementwise maximum.
    Max,
    /// Elementwise minimum.
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
    /// Combines the features of all images into those of one image.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no image.
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
            // The texts are the same for all images and are not combined.
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
