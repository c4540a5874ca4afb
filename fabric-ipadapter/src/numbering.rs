//! Mapping from layer numbers in adapter files to layers of a U-Net.

use fabric_core::attention::Block;
use fabric_core::models::CrossAttention;

/// Sorts the cross-attention layers of a U-Net into the order in which adapter files number them: down, up,
/// then middle.
///
/// This is the order in which diffusers registers the blocks, not the order in which they run. In a file, the
/// layer at index `n` of this list has number `2 n + 1`: self-attention layers have the even numbers.
///
/// ```
/// use fabric_core::attention::{AttnKind, AttnSite, Block};
/// use fabric_core::models::CrossAttention;
/// use fabric_ipadapter::numbered_layers;
///
/// let layer = |block| {
///     let site = AttnSite { block, attention: 0, layer: 0, kind: AttnKind::CrossAttention };
///     CrossAttention { site, channels: 320, context: 768 }
/// };
/// let running = [layer(Block::Down(0)), layer(Block::Mid), layer(Block::Up(1))];
/// assert_eq!(numbered_layers(&running), [layer(Block::Down(0)), layer(Block::Up(1)), layer(Block::Mid)]);
/// ```
pub fn numbered_layers(layers: &[CrossAttention]) -> Vec<CrossAttention> {
    let path = |block| match block {
        Block::Down(_) => 0,
        Block::Up(_) => 1,
        Block::Mid => 2,
    };
    let mut layers = layers.to_vec();
    layers.sort_by_key(|layer| (path(layer.site.block), layer.site));
    layers
}
