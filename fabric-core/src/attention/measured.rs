//! Measures the share of attention that goes to the tokens that processors added.

use std::cell::RefCell;

use burn::tensor::{Tensor, TensorData};

use super::{AttnCall, AttnExtras, AttnProcessor, AttnSite, JointTokens, attend};

/// Share of the attention of one layer that went to the joint tokens of one source.
#[derive(Debug, Clone)]
pub(crate) struct MeasuredShare {
    /// See [`JointTokens::source`].
    pub(crate) source: usize,
    /// The layer.
    pub(crate) site: AttnSite,
    /// Height and width of the layer's feature map.
    pub(crate) grid: [usize; 2],
    /// The first row of the batch that sees the tokens.
    pub(crate) first_row: usize,
    /// Share from 0 to 1 of each row and query, as the mean of the heads: `[rows, queries]`.
    pub(crate) shares: Tensor<2>,
}

/// Wrapper around a processor that measures the share of attention that its joint tokens receive.
///
/// Each layer's attention is computed a second time, with values that only mark the source of each token. The
/// same kernel thus yields the shares, without materialising the attention matrix.
#[derive(Debug)]
pub(crate) struct MeasuredAttention<'a> {
    inner: &'a dyn AttnProcessor,
    measured: RefCell<Vec<MeasuredShare>>,
}

impl<'a> MeasuredAttention<'a> {
    /// Creates a wrapper that measures the joint tokens of `inner`.
    pub(crate) fn new(inner: &'a dyn AttnProcessor) -> Self {
        Self { inner, measured: RefCell::default() }
    }

    /// Returns what was measured, in the order of the layers.
    pub(crate) fn shares(self) -> Vec<MeasuredShare> {
        self.measured.into_inner()
    }

    /// Notes the shares of those tokens for which `counts` holds, in an attention that has all of `seen`.
    fn note(&self, call: &AttnCall<'_>, seen: &[&JointTokens], counts: impl Fn(&JointTokens) -> bool) {
        let [rows, queries, channels] = call.query.dims();
        let head = channels / call.heads;
        let key = call.key.clone().narrow(0, 0, rows);
        // Each pass marks as many sources as a head has channels; the other tokens have values of 0.
        for first in (0..seen.len()).step_by(head) {
            let joint = seen.iter().enumerate().map(|(index, tokens)| {
                let marked = index.checked_sub(first).filter(|channel| *channel < head);
                let end = tokens.rows.end.min(rows);
                JointTokens {
                    rows: tokens.rows.start..end,
                    value: marks(&tokens.key, call.heads, marked),
                    away: None,
                    ..(*tokens).clone()
                }
            });
            let extras = AttnExtras { joint: joint.collect(), decoupled: Vec::new() };
            let out = attend(call.query.clone(), key.clone(), key.zeros_like(), call.heads, &extras);
            let out = out.reshape([rows, queries, call.heads, head]);
            for (channel, tokens) in extras.joint.iter().skip(first).take(head).enumerate() {
                if !counts(seen[first + channel]) {
                    continue;
                }
                let range = [tokens.rows.clone(), 0..queries, 0..call.heads, channel..channel + 1];
                let share: Tensor<2> = out.clone().slice(range).mean_dim(2).reshape([tokens.rows.len(), queries]);
                self.measured.borrow_mut().push(MeasuredShare {
                    source: tokens.source,
                    site: call.site,
                    grid: call.grid,
                    first_row: tokens.rows.start,
                    shares: share,
                });
            }
        }
    }
}

/// Returns values that are 1 in one channel of each head, and 0 elsewhere.
fn marks(key: &Tensor<3>, heads: usize, channel: Option<usize>) -> Tensor<3> {
    let [_, keys, channels] = key.dims();
    let Some(channel) = channel else { return key.zeros_like() };
    let head = channels / heads;
    let row: Vec<f32> = (0..channels).map(|at| f32::from(u8::from(at % head == channel))).collect();
    Tensor::<3>::from_data(TensorData::new(row, [1, 1, channels]), (&key.device(), key.dtype()))
        .expand([1, keys, channels])
}

impl AttnProcessor for MeasuredAttention<'_> {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let extras = self.inner.extras(call);
        let rows = call.query.dims()[0];
        let seen: Vec<&JointTokens> =
            extras.joint.iter().filter(|tokens| tokens.weight > 0.0 && tokens.rows.start < rows).collect();
        // Those to lead away from have a share of the second attention, which has all.
        let joint: Vec<&JointTokens> = seen.iter().copied().filter(|tokens| tokens.away.is_none()).collect();
        if joint.len() < seen.len() {
            self.note(call, &seen, |tokens| tokens.away.is_some());
        }
        if !joint.is_empty() {
            self.note(call, &joint, |_| true);
        }
        extras
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttnKind, AttnSite, Block};

    #[derive(Debug)]
    struct Offers(Vec<JointTokens>);

    impl AttnProcessor for Offers {
        fn extras(&self, _call: &AttnCall<'_>) -> AttnExtras {
            AttnExtras { joint: self.0.clone(), decoupled: Vec::new() }
        }
    }

    #[test]
    fn equal_keys_share_by_number_and_weight() {
        let device = fabric_backends::default_device().unwrap();
        // With zero queries all keys get equal attention, so that only counts and weights matter.
        let query = Tensor::<3>::zeros([2, 3, 4], &device);
        let key = Tensor::<3>::ones([2, 6, 4], &device);
        let tokens = |rows, keys, weight, source| JointTokens {
            rows,
            key: Tensor::ones([1, keys, 4], &device),
            value: Tensor::ones([1, keys, 4], &device) * 5.0,
            weight,
            merged_counts: Vec::new(),
            away: None,
            source,
        };
        // More sources than a head has channels (2).
        let offers = Offers(vec![
            tokens(0..1, 3, 1.0, 7),
            tokens(0..2, 6, 0.5, 1),
            tokens(0..2, 6, 0.0, 2),
            tokens(1..2, 1, 1.0, 3),
        ]);
        let measured = MeasuredAttention::new(&offers);
        let site = AttnSite { block: Block::Mid, attention: 0, layer: 0, kind: AttnKind::SelfAttention };
        measured.extras(&AttnCall { site, query: &query, key: &key, value: &key, grid: [1, 3], heads: 2 });
        let shares = measured.shares();
        let near = |source: usize, first_row: usize, expected: &[f64]| {
            let share = shares.iter().find(|share| share.source == source).expect("a measured source");
            assert_eq!((share.first_row, share.grid, share.shares.dims()), (first_row, [1, 3], [expected.len(), 3]));
            let got: Vec<f32> = share.shares.to_data().convert::<f32>().try_to_vec().expect("numbers");
            let expected = expected.iter().flat_map(|share| [*share; 3]);
            assert!(
                got.iter().zip(expected).all(|(got, expected)| (f64::from(*got) - expected).abs() < 1e-6),
                "{got:?}"
            );
        };
        near(7, 0, &[3.0 / 12.0]);
        near(1, 0, &[3.0 / 12.0, 3.0 / 10.0]);
        near(3, 1, &[1.0 / 10.0]);
        assert_eq!(shares.len(), 3);
    }
}
