//! State of one forward pass.

use burn::tensor::Tensor;
use fabric_core::attention::{AttnExtras, AttnProcessor, AttnSite, JointTokens};
use fabric_core::models::{RecordedTokens, TextKvCache};

use crate::layers::{Trace, cast, show};

/// State shared by the layers of one pass: conditions, skip connections, recorded keys and values, and the rows still
/// running.
pub(crate) struct Pass<'a> {
    pub(crate) processor: &'a dyn AttnProcessor,
    /// `[rows, tokens, context_dim]`.
    pub(crate) context: Tensor<3>,
    /// Cache that keeps the keys and values of the context for later passes.
    pub(crate) text_kv_cache: Option<&'a TextKvCache>,
    /// Time embedding after the activation: `[rows, time_dim]`.
    pub(crate) time: Tensor<2>,
    /// Skip connections that the up path has not consumed yet.
    pub(crate) skips: Vec<Tensor<4>>,
    /// Number of rows that receive a prediction; the rest are reference rows, which only provide keys and values.
    pub(crate) kept: usize,
    /// Site of the last self-attention, after which the reference rows are not needed.
    pub(crate) last: Option<AttnSite>,
    /// Recorded keys and values. If present, the pass ends at `last`.
    pub(crate) recorded: Option<Vec<RecordedTokens>>,
    pub(crate) trace: Trace<'a>,
}

impl Pass<'_> {
    /// Calls the tracer, if there is one.
    pub(crate) fn trace(&mut self, name: impl FnOnce() -> String, x: &Tensor<4>) {
        show(&mut self.trace, name, x);
    }

    /// Drops the reference rows from all state shared with later layers.
    pub(crate) fn drop_reference_rows(&mut self) {
        self.context = self.keep(self.context.clone());
        self.time = self.keep(self.time.clone());
        let skips = std::mem::take(&mut self.skips);
        self.skips = skips.into_iter().map(|skip| self.keep(skip)).collect();
    }

    /// Drops the reference rows of one tensor, if it still has them.
    pub(crate) fn keep<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if x.dims()[0] > self.kept { x.narrow(0, 0, self.kept) } else { x }
    }

    /// Adds one residual to each skip connection.
    pub(crate) fn add_to_skips(&mut self, residuals: &[Tensor<4>]) {
        if residuals.is_empty() {
            return;
        }
        let (got, expected) = (residuals.len(), self.skips.len());
        assert_eq!(got, expected, "U-Net: {got} residuals for {expected} skip connections");
        let skips = std::mem::take(&mut self.skips);
        self.skips = skips.into_iter().zip(residuals).map(|(skip, residual)| self.add(skip, residual)).collect();
    }

    /// Adds a residual, which may omit the reference rows.
    pub(crate) fn add(&self, x: Tensor<4>, residual: &Tensor<4>) -> Tensor<4> {
        let residual = self.like(cast(residual.clone(), x.dtype()), &x);
        let (rows, given) = (x.dims()[0], residual.dims()[0]);
        if rows == given {
            return x + residual;
        }
        assert_eq!(given, self.kept, "U-Net: residuals of {given} rows, expected {rows} or {}", self.kept);
        let references = x.clone().narrow(0, given, rows - given);
        Tensor::cat(vec![x.narrow(0, 0, given) + residual, references], 0)
    }

    /// Truncates a tensor to the number of rows of `other`.
    pub(crate) fn like<const D: usize, const E: usize>(&self, x: Tensor<D>, other: &Tensor<E>) -> Tensor<D> {
        let rows = other.dims()[0];
        if x.dims()[0] > rows { x.narrow(0, 0, rows) } else { x }
    }
}

/// Restricts a processor's keys and values to the first `rows` rows.
pub(crate) fn clip(extras: AttnExtras, rows: usize) -> AttnExtras {
    let joint = extras.joint.into_iter().filter(|tokens| tokens.rows.start < rows).map(|tokens| {
        let end = tokens.rows.end.min(rows);
        JointTokens { rows: tokens.rows.start..end, ..tokens }
    });
    let decoupled = extras.decoupled.into_iter().filter_map(|tokens| tokens.within(rows));
    AttnExtras { joint: joint.collect(), decoupled: decoupled.collect() }
}
