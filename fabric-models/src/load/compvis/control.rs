//! Names of ControlNets: the down path of a U-Net, and additional layers with consecutive numbers.

use super::unet::UNetShape;
use super::{Pairs, count};

/// Lists the corresponding prefixes of a ControlNet with these names of the original code (without `control_model.`);
/// `None` if the names are not those of a ControlNet.
pub(in crate::load) fn pairs<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<Pairs> {
    let mut pairs = UNetShape::of_compvis(names.clone())?.pairs();
    // Convolutions have even numbers; the numbers between them are activations.
    let last = count(names.clone(), "input_hint_block.").checked_sub(1).filter(|last| *last <= 64)?;
    pairs.push(("controlnet_cond_embedding.conv_in".into(), "input_hint_block.0".into()));
    for block in 1..last / 2 {
        let diffusers = format!("controlnet_cond_embedding.blocks.{}", block - 1);
        pairs.push((diffusers, format!("input_hint_block.{}", 2 * block)));
    }
    pairs.push(("controlnet_cond_embedding.conv_out".into(), format!("input_hint_block.{last}")));
    let outputs = count(names, "zero_convs.").min(64);
    pairs.extend((0..outputs).map(|at| (format!("controlnet_down_blocks.{at}"), format!("zero_convs.{at}.0"))));
    pairs.push(("controlnet_mid_block".into(), "middle_block_out.0".into()));
    Some(pairs)
}
