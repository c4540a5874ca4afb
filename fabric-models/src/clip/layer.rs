use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_backends::ops::{causal_attention, weighted_attention};
use fabric_core::attention::{merge_heads, split_heads};

use crate::config::{ConfigError, check_count, check_epsilon, limits};
use crate::layers::{Activation, LayerNorm, Linear};

/// Settings shared by all layers of an encoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerConfig {
    pub(crate) channels: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) epsilon: f64,
    pub(crate) act: Activation,
    /// Whether a token attends only to itself and the tokens before it.
    pub(crate) causal: bool,
}

impl LayerConfig {
    pub(crate) fn check(&self, model: &'static str, layers: usize) -> Result<(), ConfigError> {
        check_count(model, "hidden_size", self.channels, limits::CHANNELS)?;
        check_count(model, "intermediate_size", self.hidden, limits::CHANNELS)?;
        check_count(model, "num_attention_heads", self.heads, limits::CHANNELS)?;
        check_count(model, "num_hidden_layers", layers, limits::LAYERS)?;
        check_epsilon(model, "layer_norm_eps", self.epsilon)?;
        if self.channels.is_multiple_of(self.heads) {
            return Ok(());
        }
        let expected = format!("a divisor of `hidden_size`, {}", self.channels);
        Err(ConfigError::invalid(model, "num_attention_heads", self.heads, expected))
    }

    pub(crate) fn init(&self, device: &Device) -> ClipLayer {
        let &Self { channels, hidden, heads, epsilon, act, causal } = self;
        let proj = || Linear::new(channels, channels, true, device);
        ClipLayer {
            layer_norm1: LayerNorm::new(channels, epsilon, device),
            self_attn: ClipAttention {
                q_proj: proj(),
                k_proj: proj(),
                v_proj: proj(),
                out_proj: proj(),
                heads,
                causal,
            },
            layer_norm2: LayerNorm::new(channels, epsilon, device),
            mlp: ClipMlp {
                fc1: Linear::new(channels, hidden, true, device),
                fc2: Linear::new(hidden, channels, true, device),
                act,
            },
        }
    }
}

/// Pre-norm transformer layer: attention and an MLP, each with a residual connection.
#[derive(Module, Debug)]
pub(crate) struct ClipLayer {
    layer_norm1: LayerNorm,
    self_attn: ClipAttention,
    layer_norm2: LayerNorm,
    mlp: ClipMlp,
}

impl ClipLayer {
    /// Maps `[rows, tokens, channels]` to the same shape.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.self_attn.forward(self.layer_norm1.forward(x));
        x.clone() + self.mlp.forward(self.layer_norm2.forward(x))
    }
}

#[derive(Module, Debug)]
struct ClipAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
    causal: bool,
}

impl ClipAttention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let query = split_heads(self.q_proj.forward(x.clone()), self.heads);
        let key = split_heads(self.k_proj.forward(x.clone()), self.heads);
        let value = split_heads(self.v_proj.forward(x), self.heads);
        let seen =
            if self.causal { causal_attention(query, key, value) } else { weighted_attention(query, key, value, &[]) };
        self.out_proj.forward(merge_heads(seen))
    }
}

#[derive(Module, Debug)]
struct ClipMlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    act: Activation,
}

impl ClipMlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(self.act.forward(self.fc1.forward(x)))
    }
}
