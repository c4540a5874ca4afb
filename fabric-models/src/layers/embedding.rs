use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Int, Tensor, module};

use super::{cast, computes_in};

/// Embedding table.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[entries, channels]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Creates a table with CLIP's random initial values, generated on first use.
    pub fn new(entries: usize, channels: usize, device: &Device) -> Self {
        Self { weight: Initializer::Normal { mean: 0.0, std: 0.02 }.init([entries, channels], device) }
    }

    /// Looks up the vectors of token ids.
    ///
    /// # Shapes
    ///
    /// - `ids`: `[rows, tokens]`, all below the number of entries
    /// - returns: `[rows, tokens, channels]`
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        cast(module::embedding(self.weight.val(), ids), computes_in(&self.weight))
    }
}
