//! Transformers of the U-Net.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_backends::ops::geglu;
use fabric_core::attention::{AttnKind, AttnSite, Block};

use super::attention::Attention;
use super::pass::Pass;
use crate::layers::{Conv2d, GroupNorm, LayerNorm, Linear};

/// Epsilon of the norm before a transformer; the resnets' is in the configuration.
const ENTRY_EPSILON: f64 = 1e-6;

/// Transformer after a resnet: treats the pixels of the feature map as tokens, with a residual connection.
#[derive(Module, Debug)]
pub(crate) struct Transformer {
    norm: GroupNorm,
    proj_in: Projection,
    pub(crate) transformer_blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

/// Settings shared by all transformers of a level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransformerConfig {
    pub(crate) channels: usize,
    pub(crate) context_dim: usize,
    pub(crate) heads: usize,
    pub(crate) groups: usize,
    pub(crate) linear: bool,
    pub(crate) upcast: bool,
}

impl TransformerConfig {
    /// Builds transformer number `attention` of `block`, with `depth` layers.
    pub(crate) fn init(&self, block: Block, attention: usize, depth: usize, device: &Device) -> Transformer {
        let layer = |layer| TransformerBlock::new(self, block, attention, layer, device);
        Transformer {
            norm: GroupNorm::new(self.groups, self.channels, ENTRY_EPSILON, device),
            proj_in: Projection::new(self.channels, self.linear, device),
            transformer_blocks: (0..depth).map(layer).collect(),
            proj_out: Projection::new(self.channels, self.linear, device),
        }
    }
}

impl Transformer {
    /// Maps `[rows, channels, height, width]` to the same shape, with fewer rows if the reference rows were dropped
    /// in this transformer. Returns `None` if the pass ended in it.
    pub(crate) fn forward(&self, x: Tensor<4>, pass: &mut Pass<'_>) -> Option<Tensor<4>> {
        let [_, _, height, width] = x.dims();
        let grid = [height, width];
        let mut tokens = self.proj_in.enter(self.norm.forward(x.clone()));
        for block in &self.transformer_blocks {
            tokens = block.forward(tokens, grid, pass)?;
        }
        let out = self.proj_out.leave(tokens, grid);
        Some(pass.like(x, &out) + out)
    }
}

/// Input or output projection of a transformer; older networks store it as a 1x1 convolution.
#[derive(Module, Debug)]
pub(crate) enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(channels: usize, linear: bool, device: &Device) -> Self {
        if linear {
            Self::Linear(Linear::new(channels, channels, true, device))
        } else {
            Self::Conv(Conv2d::new(channels, channels, 1, device))
        }
    }

    /// Projects pixels to tokens: `[rows, channels, height, width]` to `[rows, height * width, channels]`.
    fn enter(&self, x: Tensor<4>) -> Tensor<3> {
        match self {
            Self::Conv(conv) => to_tokens(conv.forward(x)),
            Self::Linear(linear) => linear.forward(to_tokens(x)),
        }
    }

    /// Projects tokens to pixels.
    fn leave(&self, tokens: Tensor<3>, grid: [usize; 2]) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv.forward(to_pixels(tokens, grid)),
            Self::Linear(linear) => to_pixels(linear.forward(tokens), grid),
        }
    }
}

fn to_tokens(x: Tensor<4>) -> Tensor<3> {
    let [rows, channels, height, width] = x.dims();
    x.reshape([rows, channels, height * width]).swap_dims(1, 2)
}

fn to_pixels(tokens: Tensor<3>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [rows, _, channels] = tokens.dims();
    tokens.swap_dims(1, 2).reshape([rows, channels, height, width])
}

/// Transformer layer: self-attention, cross-attention and a gated MLP, each with a residual connection.
#[derive(Module, Debug)]
pub(crate) struct TransformerBlock {
    norm1: LayerNorm,
    pub(crate) attn1: Attention,
    norm2: LayerNorm,
    pub(crate) attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(config: &TransformerConfig, block: Block, attention: usize, layer: usize, device: &Device) -> Self {
        let &TransformerConfig { channels, context_dim, heads, upcast, .. } = config;
        let norm = || LayerNorm::new(channels, 1e-5, device);
        let attn = |kind, context_dim| {
            let site = AttnSite { block, attention, layer, kind };
            Attention::new(site, channels, context_dim, heads, upcast, device)
        };
        Self {
            norm1: norm(),
            attn1: attn(AttnKind::SelfAttention, channels),
            norm2: norm(),
            attn2: attn(AttnKind::CrossAttention, context_dim),
            norm3: norm(),
            ff: FeedForward {
                proj: Linear::new(channels, channels * 8, true, device),
                out: Linear::new(channels * 4, channels, true, device),
            },
        }
    }

    fn forward(&self, x: Tensor<3>, grid: [usize; 2], pass: &mut Pass<'_>) -> Option<Tensor<3>> {
        let seen = self.attn1.self_attention(self.norm1.forward(x.clone()), grid, pass)?;
        let x = pass.like(x, &seen) + seen;
        let x = x.clone() + self.attn2.cross_attention(self.norm2.forward(x), grid, pass);
        Some(x.clone() + self.ff.forward(self.norm3.forward(x)))
    }
}

/// MLP with gated GELU (GEGLU).
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.out.forward(geglu(self.proj.forward(x)))
    }
}
