use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::{DType, Device, Tensor};

use super::LoraEntry;
use super::resolve::{Plan, Term};
use crate::layers::cast;

/// A product of two thin matrices that is added to a weight whenever the weight is asked for.
///
/// Several LoRAs are one of larger rank: their matrices stand side by side. These are tensors and no parameters,
/// so they move with the network, but are neither counted nor saved nor trained as part of it.
#[derive(Module, Debug)]
pub(super) struct LowRank {
    /// `[out, ranks]`, in f32, with scales and alphas multiplied in.
    up: Tensor<2>,
    /// `[ranks, in * height * width]`, in f32.
    down: Tensor<2>,
}

impl LowRank {
    /// The sum of some terms.
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

    /// In f32 whatever the weight's type: rounded once, at the end.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let (dtype, shape) = (base.dtype(), base.shape());
        let change = self.up.clone().matmul(self.down.clone()).reshape(shape);
        cast(cast(base, DType::F32) + change, dtype)
    }
}

/// Lays every planned product beside its weight.
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
    /// No weight changes by more than this at scale 1.
    pub(super) fn strength(&self) -> f64 {
        self.factor * self.bound
    }
}
