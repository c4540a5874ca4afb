//! Which layer of a U-Net each number in an adapter's file means.

use fabric_core::attention::{AttnKind, AttnSite, Block};

/// The cross-attentions of a U-Net in the order in which adapter files number them: down, up, then middle.
///
/// That is the order in which diffusers registers the blocks, not the one in which they run. In a file, the layer at
/// index `n` of this list is number `2 n + 1`: self-attentions have the even numbers.
///
/// ```
/// use fabric_core::attention::{AttnKind, AttnSite, Block};
/// use fabric_ipadapter::numbered_layers;
///
/// let site = |block| AttnSite { block, attention: 0, layer: 0, kind: AttnKind::CrossAttention };
/// let running = [site(Block::Down(0)), site(Block::Mid), site(Block::Up(1))];
/// assert_eq!(numbered_layers(&running), [site(Block::Down(0)), site(Block::Up(1)), site(Block::Mid)]);
/// ```
pub fn numbered_layers(sites: &[AttnSite]) -> Vec<AttnSite> {
    let path = |block| match block {
        Block::Down(_) => 0,
        Block::Up(_) => 1,
        Block::Mid => 2,
    };
    let mut layers: Vec<AttnSite> =
        sites.iter().copied().filter(|site| site.kind == AttnKind::CrossAttention).collect();
    layers.sort_by_key(|site| (path(site.block), *site));
    layers
}
