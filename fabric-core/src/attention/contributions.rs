//! Measures what the decoupled tokens of each processor contribute to the cross-attention.

use std::cell::RefCell;

use burn::tensor::{DType, Tensor};

use super::decoupled::{Softmax, softmaxes};
use super::{AttnCall, AttnExtras, AttnKind, AttnProcessor, AttnSite, DecoupledTokens, attend};

/// Norms of the parts of one cross-attention layer's output: the attention to the text, and what the decoupled tokens
/// of each processor added to it.
#[derive(Debug, Clone)]
pub(crate) struct LayerContributions {
    /// The layer.
    pub(crate) site: AttnSite,
    /// Indices of the processors that added something.
    processors: Vec<usize>,
    /// Norm over queries and channels of each part in each row, the text first: `[1 + processors, rows]`.
    norms: Tensor<2>,
}

impl LayerContributions {
    /// Returns the share of each processor in each row: the norm of what it added, divided by the sum of the norms of
    /// all parts. The shares of a row and that of its text sum to 1. Waits for the device.
    pub(crate) fn shares(&self) -> Vec<(usize, Vec<f64>)> {
        let rows = self.norms.dims()[1];
        let norms: Vec<f32> = self.norms.to_data().convert::<f32>().try_to_vec().expect("norms are plain numbers");
        let sum = |row: usize| norms.iter().skip(row).step_by(rows).map(|norm| f64::from(*norm)).sum::<f64>();
        let sums: Vec<f64> = (0..rows).map(sum).collect();
        // Without any output, or with one that is not finite, there are no shares.
        let has_share = |sum: &f64| *sum > 0.0 && sum.is_finite();
        let share = |(norm, sum): (&f32, &f64)| if has_share(sum) { f64::from(*norm) / sum } else { 0.0 };
        let shares = norms.chunks_exact(rows).skip(1).map(|own| own.iter().zip(&sums).map(share).collect());
        self.processors.iter().copied().zip(shares).collect()
    }
}

/// Wrapper around several processors that measures what the decoupled tokens of each contribute to the
/// cross-attention.
///
/// All attention of a layer with such tokens is computed a second time, in f32. The processors' own result is passed on
/// unchanged.
#[derive(Debug)]
pub(crate) struct MeasuredContributions<'a> {
    processors: &'a [&'a dyn AttnProcessor],
    /// Number of rows at the beginning of the batch that are measured.
    rows: usize,
    measured: RefCell<Vec<LayerContributions>>,
}

impl<'a> MeasuredContributions<'a> {
    /// Creates a wrapper that measures the first `rows` rows of the batch.
    pub(crate) fn new(processors: &'a [&'a dyn AttnProcessor], rows: usize) -> Self {
        Self { processors, rows, measured: RefCell::default() }
    }

    /// Returns what was measured, in the order of the layers. Layers without contributions are left out.
    pub(crate) fn layers(self) -> Vec<LayerContributions> {
        self.measured.into_inner()
    }

    /// Notes the contributions of a layer, given the decoupled tokens of each processor.
    fn note(&self, call: &AttnCall<'_>, added: &[Vec<DecoupledTokens>]) {
        let rows = self.rows.min(call.query.dims()[0]);
        let measured = |tokens: &DecoupledTokens| tokens.clone().within(rows).map(in_f32);
        let all: Vec<(usize, DecoupledTokens)> = (0..)
            .zip(added)
            .flat_map(|(processor, tokens)| tokens.iter().filter_map(measured).map(move |tokens| (processor, tokens)))
            .filter(|(_, tokens)| tokens.scale != 0.0)
            .collect();
        if all.is_empty() {
            return;
        }
        let (owners, decoupled): (Vec<usize>, Vec<DecoupledTokens>) = all.into_iter().unzip();
        let mut processors = owners.clone();
        processors.dedup();
        let [query, key, value] =
            [call.query, call.key, call.value].map(|x| x.clone().narrow(0, 0, rows).cast(DType::F32));
        let text = attend(query.clone(), key, value, call.heads, &AttnExtras::default());
        let extras = AttnExtras { joint: Vec::new(), decoupled };
        let softmaxes = softmaxes(rows, &extras);
        let added = processors.iter().map(|processor| {
            let add = |sum, softmax: &Softmax<'_>| {
                softmax.add_share(sum, &query, call.heads, |index| owners[index] == *processor)
            };
            norms(softmaxes.iter().fold(text.zeros_like(), add))
        });
        let norms = Tensor::cat(std::iter::once(norms(text.clone())).chain(added).collect(), 0);
        self.measured.borrow_mut().push(LayerContributions { site: call.site, processors, norms });
    }
}

impl AttnProcessor for MeasuredContributions<'_> {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let (mut extras, mut added) = (AttnExtras::default(), Vec::with_capacity(self.processors.len()));
        for processor in self.processors {
            let own = processor.extras(call);
            added.push(own.decoupled.clone());
            extras.merge(own);
        }
        if call.site.kind == AttnKind::CrossAttention {
            self.note(call, &added);
        }
        extras
    }
}

/// Casts keys, values and mask to f32, in which sums of squares do not overflow.
fn in_f32(tokens: DecoupledTokens) -> DecoupledTokens {
    let cast = |x: Tensor<3>| x.cast(DType::F32);
    DecoupledTokens { key: cast(tokens.key), value: cast(tokens.value), mask: tokens.mask.map(cast), ..tokens }
}

/// Returns the norm of each row of `[rows, queries, channels]`, as `[1, rows]`.
fn norms(x: Tensor<3>) -> Tensor<2> {
    let rows = x.dims()[0];
    (x.clone() * x).sum_dim(2).sum_dim(1).sqrt().reshape([1, rows])
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::attention::Block;

    const QUERIES: usize = 4;

    fn device() -> Device {
        fabric_backends::default_device().expect("a device")
    }

    #[derive(Debug)]
    struct Offers(Vec<DecoupledTokens>);

    impl AttnProcessor for Offers {
        fn extras(&self, _call: &AttnCall<'_>) -> AttnExtras {
            AttnExtras { joint: Vec::new(), decoupled: self.0.clone() }
        }
    }

    /// Tokens whose attention is 1 everywhere.
    fn ones(rows: Range<usize>, scale: f32) -> DecoupledTokens {
        let x = Tensor::<3>::ones([1, 2, 4], &device());
        let shares_softmax = false;
        DecoupledTokens { rows, key: x.clone(), value: x, scale, mask: None, weights: Vec::new(), shares_softmax }
    }

    /// Returns the shares of each processor in the first two of three rows, whose text has an attention of 3
    /// everywhere.
    fn shares(kind: AttnKind, offers: &[Offers]) -> Vec<(usize, Vec<f64>)> {
        let query = Tensor::<3>::zeros([3, QUERIES, 4], &device());
        let text = Tensor::<3>::ones([3, 5, 4], &device()) * 3.0;
        let processors: Vec<&dyn AttnProcessor> = offers.iter().map(|one| one as &dyn AttnProcessor).collect();
        let measured = MeasuredContributions::new(&processors, 2);
        let site = AttnSite { block: Block::Mid, attention: 0, layer: 0, kind };
        let call = AttnCall { site, query: &query, key: &text, value: &text, grid: [2, 2], heads: 2 };
        let extras = measured.extras(&call);
        assert_eq!(extras.decoupled.len(), offers.iter().map(|one| one.0.len()).sum::<usize>());
        measured.layers().iter().flat_map(LayerContributions::shares).collect()
    }

    #[track_caller]
    fn assert_shares(got: &[(usize, Vec<f64>)], expected: &[(usize, [f64; 2])]) {
        let mut is_near = got.len() == expected.len();
        for ((processor, shares), (expected_processor, expected_shares)) in got.iter().zip(expected) {
            is_near &= processor == expected_processor;
            is_near &= shares.iter().zip(expected_shares).all(|(a, b)| (a - b).abs() < 1e-6);
        }
        assert!(is_near, "{got:?}, {expected:?} expected");
        assert!(got.iter().all(|(_, rows)| rows.len() == 2), "{got:?}");
    }

    #[test]
    fn a_scale_of_0_contributes_nothing_and_twice_the_scale_raises_the_share() {
        let of = |scale| shares(AttnKind::CrossAttention, &[Offers(vec![ones(0..3, scale)])]);
        assert_shares(&of(0.0), &[]);
        assert_shares(&of(1.0), &[(0, [0.25; 2])]);
        assert_shares(&of(2.0), &[(0, [0.4; 2])]);
        assert_shares(&of(-2.0), &[(0, [0.4; 2])]);
    }

    #[test]
    fn shares_are_of_the_text_and_of_all_processors_that_act_on_a_row() {
        let offers = [Offers(vec![]), Offers(vec![ones(0..1, 1.0), ones(2..3, 1.0)]), Offers(vec![ones(0..2, 4.0)])];
        let expected = [(1, [1.0 / 8.0, 0.0]), (2, [4.0 / 8.0, 4.0 / 7.0])];
        assert_shares(&shares(AttnKind::CrossAttention, &offers), &expected);
        // Rows after those that are measured count nowhere.
        assert_shares(&shares(AttnKind::CrossAttention, &[Offers(vec![ones(2..3, 1.0)])]), &[]);
        assert_shares(&shares(AttnKind::SelfAttention, &offers), &[]);
    }

    #[test]
    fn tokens_in_a_common_softmax_contribute_their_part_of_it() {
        let common = |scale: f32| Offers(vec![DecoupledTokens { shares_softmax: true, ..ones(0..2, scale) }]);
        // Two of weight 1 and one of weight 1/2 have 2/5, 2/5 and 1/5 of a sum of 1.
        let offers = [common(1.0), common(1.0), common(0.5)];
        let expected = [(0, [0.1; 2]), (1, [0.1; 2]), (2, [0.05; 2])];
        assert_shares(&shares(AttnKind::CrossAttention, &offers), &expected);
    }

    #[test]
    fn a_mask_lowers_the_share_and_tokens_of_one_processor_are_added() {
        let first_query = TensorData::new(vec![1.0_f32, 0.0, 0.0, 0.0], [1, QUERIES, 1]);
        let mask = Some(Tensor::from_data(first_query, &device()));
        let masked = DecoupledTokens { mask, ..ones(0..2, 1.0) };
        // The norm of a quarter of the queries is half of the norm of all.
        assert_shares(&shares(AttnKind::CrossAttention, &[Offers(vec![masked])]), &[(0, [0.5 / 3.5; 2])]);
        let two = Offers(vec![ones(0..2, 1.0), ones(0..2, -0.5)]);
        assert_shares(&shares(AttnKind::CrossAttention, &[two]), &[(0, [0.5 / 3.5; 2])]);
    }
}
