//! Attention layers of the U-Net.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use fabric_core::attention::{AttnCall, AttnExtras, AttnSite, DecoupledTokens, JointTokens, attend};
use fabric_core::models::{CrossAttention, RecordedTokens};

use super::pass::{Pass, clip};
use crate::layers::{Linear, cast, is_half};

/// Attention layer whose keys and values an [`AttnProcessor`](fabric_core::attention::AttnProcessor) can extend.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    upcast: bool,
    #[module(skip)]
    pub(crate) site: AttnSite,
}

impl Attention {
    /// `context_dim` is the width of the inputs of the keys and values.
    pub(crate) fn new(
        site: AttnSite,
        channels: usize,
        context_dim: usize,
        heads: usize,
        upcast: bool,
        device: &Device,
    ) -> Self {
        Self {
            to_q: Linear::new(channels, channels, false, device),
            to_k: Linear::new(context_dim, channels, false, device),
            to_v: Linear::new(context_dim, channels, false, device),
            to_out: Linear::new(channels, channels, true, device),
            heads,
            upcast,
            site,
        }
    }

    /// Returns the site and sizes of this cross-attention layer.
    pub(crate) fn as_cross_attention(&self) -> CrossAttention {
        let [channels, context] = self.to_k.weight.lazy_shape().dims();
        CrossAttention { site: self.site, channels, context }
    }

    /// Computes the self-attention of the images. Returns `None` if the pass ends here.
    ///
    /// After the last self-attention the reference rows are not needed: the processor receives their keys and values
    /// one last time, and the result has only the kept rows.
    pub(crate) fn self_attention(&self, x: Tensor<3>, grid: [usize; 2], pass: &mut Pass<'_>) -> Option<Tensor<3>> {
        let key = self.to_k.forward(x.clone());
        let value = self.to_v.forward(x.clone());
        let is_last = pass.last == Some(self.site);
        if let Some(recorded) = &mut pass.recorded {
            recorded.push(RecordedTokens { site: self.site, grid, key: key.clone(), value: value.clone() });
            if is_last {
                return None;
            }
        }
        let query = self.to_q.forward(if is_last { pass.keep(x) } else { x });
        let extras = pass.processor.extras(&self.call(&query, &key, &value, grid));
        if is_last {
            pass.drop_reference_rows();
        }
        let (key, value) = if is_last { (pass.keep(key), pass.keep(value)) } else { (key, value) };
        Some(self.attend(query, key, value, extras))
    }

    /// Computes the cross-attention of the images to the text.
    pub(crate) fn cross_attention(&self, x: Tensor<3>, grid: [usize; 2], pass: &Pass<'_>) -> Tensor<3> {
        let make = || [&self.to_k, &self.to_v].map(|linear| linear.forward(pass.context.clone()));
        let [key, value] = match pass.text_kv_cache {
            Some(kept) => kept.at(self.site, make),
            None => make(),
        };
        let query = self.to_q.forward(x);
        let extras = pass.processor.extras(&self.call(&query, &key, &value, grid));
        self.attend(query, key, value, extras)
    }

    fn call<'a>(
        &self,
        query: &'a Tensor<3>,
        key: &'a Tensor<3>,
        value: &'a Tensor<3>,
        grid: [usize; 2],
    ) -> AttnCall<'a> {
        AttnCall { site: self.site, query, key, value, grid, heads: self.heads }
    }

    fn attend(&self, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, extras: AttnExtras) -> Tensor<3> {
        let dtype = query.dtype();
        let extras = clip(extras, query.dims()[0]);
        let out = if self.upcast && is_half(dtype) {
            let wide = |x: Tensor<3>| x.cast(DType::F32);
            attend(wide(query), wide(key), wide(value), self.heads, &in_type(extras, DType::F32))
        } else {
            attend(query, key, value, self.heads, &in_type(extras, dtype))
        };
        self.to_out.forward(cast(out, dtype))
    }
}

/// Casts a processor's keys, values and masks to the data type of the layer.
fn in_type(extras: AttnExtras, dtype: DType) -> AttnExtras {
    let joint = extras.joint.into_iter().map(|tokens| JointTokens {
        key: cast(tokens.key, dtype),
        value: cast(tokens.value, dtype),
        ..tokens
    });
    let decoupled = extras.decoupled.into_iter().map(|tokens| DecoupledTokens {
        key: cast(tokens.key, dtype),
        value: cast(tokens.value, dtype),
        mask: tokens.mask.map(|mask| cast(mask, dtype)),
        ..tokens
    });
    AttnExtras { joint: joint.collect(), decoupled: decoupled.collect() }
}
