//! Addresses of attention layers.

use std::fmt;

/// A block of the U-Net, ordered as in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Block {
    /// The down block with this index, 0 at full resolution.
    Down(usize),
    /// The block between the down and the up path.
    Mid,
    /// The up block with this index, 0 at the lowest resolution.
    Up(usize),
}

/// Kind of attention within a transformer block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttnKind {
    /// `attn1`: the image's tokens attend to one another.
    SelfAttention,
    /// `attn2`: the image's tokens attend to the text.
    CrossAttention,
}

/// The address of one attention layer of a U-Net.
///
/// Printed as the layer's path in the diffusers layout:
///
/// ```
/// use fabric_core::attention::{AttnKind, AttnSite, Block};
/// let site = AttnSite { block: Block::Up(1), attention: 2, layer: 0, kind: AttnKind::SelfAttention };
/// assert_eq!(site.to_string(), "up_blocks.1.attentions.2.transformer_blocks.0.attn1");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttnSite {
    /// The U-Net block.
    pub block: Block,
    /// Index of the transformer within the block (one follows each resnet).
    pub attention: usize,
    /// Index of the layer within that transformer.
    pub layer: usize,
    /// Self- or cross-attention.
    pub kind: AttnKind,
}

impl fmt::Display for AttnSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block {
            Block::Down(i) => write!(f, "down_blocks.{i}")?,
            Block::Mid => write!(f, "mid_block")?,
            Block::Up(i) => write!(f, "up_blocks.{i}")?,
        }
        let kind = match self.kind {
            AttnKind::SelfAttention => "attn1",
            AttnKind::CrossAttention => "attn2",
        };
        write!(f, ".attentions.{}.transformer_blocks.{}.{kind}", self.attention, self.layer)
    }
}
