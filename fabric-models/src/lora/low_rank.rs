use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::{DType, Device, Tensor};

use super::LoraEntry;
use super::resolve::{Plan, Term};
use crate::layers::cast;

/// Low-rank product that is added to a weight whenever the weight is used.
///
/// The matrices of several LoRAs are concatenated to one product of larger rank. They are tensors, not parameters, so
/// they move between devices with the network, but are not counted, saved or trained.
#[derive(Module, Debug)]
pub(super) struct LowRank {
    /// `[out, ranks]`, in f32, with scales and alphas multiplied in.
    up: Tensor<2>,
    /// `[ranks, in * height * width]`, in f32.
    down: Tensor<2>,
}

impl LowRank {
    /// Concatenates the products of several LoRAs.
    fn new(terms: &[Term<'_>], device: &Device) -> Self {
        let matrix = |data: &burn::tensor::TensorData| Tensor::<2>::from_data(data.clone(), (device, DType::F32));
        let up = |&Term { entry, scale }: &Term<'_>| matrix(&entry.up) * (f64::from(scale) * entry.factor);
        let down = |&Term { entry, .. }: &Term<'_>| matrix(&entry.down);
        Self {
            up: Tensor::cat(terms.iter().map(up).collect(), 1),
            down: Tensor::cat(terms.iter().map(down).collect(), 0),
        }
    }
}

impl Reparameterization for LowRank {
    const NAME: &'static str = "low_rank";

    /// Computes in f32 for any type of weight, and rounds once at the end.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let (dtype, shape) = (base.dtype(), base.shape());
        let change = self.up.clone().matmul(self.down.clone()).reshape(shape);
        cast(cast(base, DType::F32) + change, dtype)
    }
}

/// Attaches every planned product to its weight.
impl Reparameterizer for Plan<'_> {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        let low_rank = self.terms.get(path).map(|terms| LowRank::new(terms, &param.lazy_device()));
        (param, low_rank)
    }
}

impl LoraEntry {
    /// Upper bound of the change of a weight at scale 1.
    pub(super) fn strength(&self) -> f64 {
        self.factor * self.bound
    }
}
