use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use fabric_backends::ops::weighted_attention;

use crate::layers::{GroupNorm, Linear, cast, is_half};

/// Single-head self-attention over all pixels in the middle block, with a residual connection.
#[derive(Module, Debug)]
pub(super) struct MidAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl MidAttention {
    pub(super) fn new(channels: usize, groups: usize, epsilon: f64, device: &Device) -> Self {
        let linear = || Linear::new(channels, channels, true, device);
        Self {
            group_norm: GroupNorm::new(groups, channels, epsilon, device),
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            to_out: linear(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [rows, channels, height, width] = x.dims();
        let dtype = x.dtype();
        let tokens = self.group_norm.forward(x.clone()).reshape([rows, channels, height * width]).swap_dims(1, 2);
        // A single head of up to 512 channels needs f32 logits, whatever the type of the weights.
        let wide = |x: Tensor<3>| if is_half(dtype) { x.cast(DType::F32) } else { x }.unsqueeze_dim::<4>(1);
        let query = wide(self.to_q.forward(tokens.clone()));
        let key = wide(self.to_k.forward(tokens.clone()));
        let value = wide(self.to_v.forward(tokens));
        let seen = weighted_attention(query, key, value, &[]).reshape([rows, height * width, channels]);
        let out = self.to_out.forward(cast(seen, dtype));
        x + out.swap_dims(1, 2).reshape([rows, channels, height, width])
    }
}
