//! Coarse and fine blocks of a U-Net.

use std::path::Path;

use fabric::core::fabric::BlockWeights;
use fabric::models::ModelError;
use fabric::models::load::{Component, ModelFolder};
use fabric::models::unet::{DownBlockType, MidBlockType, UNetConfig, UpBlockType};
use serde_json::{Map, Value, json};

/// Part of a U-Net to which an aspect of an image is restricted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The middle block and the levels of low resolution.
    Coarse,
    /// The levels of high resolution.
    Fine,
}

/// Blocks of a U-Net, and which of them have attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UNetBlocks {
    /// Whether each down block has attention, from full resolution on.
    down: Vec<bool>,
    /// Whether the middle block has attention.
    mid: bool,
    /// Whether each up block has attention, from the lowest resolution on.
    up: Vec<bool>,
}

/// Two levels, with attention in all blocks.
impl Default for UNetBlocks {
    fn default() -> Self {
        Self { down: vec![true; 2], mid: true, up: vec![true; 2] }
    }
}

impl UNetBlocks {
    /// Reads the blocks of the U-Net in a model's folder.
    pub(crate) fn of_model(model: &Path) -> Result<Self, ModelError> {
        let config: UNetConfig = ModelFolder::open(model)?.config(Component::UNet)?;
        Ok(Self::of(&config))
    }

    fn of(config: &UNetConfig) -> Self {
        Self {
            down: config.down_block_types.iter().map(|kind| *kind == DownBlockType::CrossAttnDownBlock2D).collect(),
            mid: config.mid_block_type == Some(MidBlockType::UNetMidBlock2DCrossAttn),
            up: config.up_block_types.iter().map(|kind| *kind == UpBlockType::CrossAttnUpBlock2D).collect(),
        }
    }

    /// Whether a level, 0 at full resolution, is in a part: of the levels with attention, the finer half is fine, with
    /// the one in the middle of an odd number.
    fn is_in(&self, part: Part, level: usize) -> bool {
        let attending: Vec<usize> = (0..self.down.len()).filter(|&level| self.down[level]).collect();
        let first_coarse = attending.get(attending.len().div_ceil(2)).copied().unwrap_or(self.down.len());
        (level >= first_coarse) == (part == Part::Coarse)
    }

    /// Returns the level of an up block.
    fn level_of_up(&self, index: usize) -> usize {
        self.up.len().saturating_sub(index + 1)
    }

    /// Returns factors on the weight of a reference: 1 in the blocks of a part, 0 in the others.
    pub(crate) fn weights(&self, part: Part) -> BlockWeights {
        let factor = |is_in: bool| f64::from(u8::from(is_in));
        BlockWeights {
            down: (0..self.down.len()).map(|level| factor(self.is_in(part, level))).collect(),
            mid: factor(part == Part::Coarse),
            up: (0..self.up.len()).map(|index| factor(self.is_in(part, self.level_of_up(index)))).collect(),
        }
    }

    /// Returns scales of an adapter: 1 in the blocks of a part that have attention, 0 in the others, as diffusers'
    /// `set_ip_adapter_scale` takes them.
    pub(crate) fn scales(&self, part: Part) -> Value {
        let named = |blocks: Vec<usize>| -> Map<String, Value> {
            blocks.into_iter().map(|index| (format!("block_{index}"), json!(1.0))).collect()
        };
        let down = (0..self.down.len()).filter(|&level| self.down[level] && self.is_in(part, level));
        let up = (0..self.up.len()).filter(|&index| self.up[index] && self.is_in(part, self.level_of_up(index)));
        let mut scales = json!({ "down": named(down.collect()), "up": named(up.collect()) });
        if self.mid && part == Part::Coarse {
            scales["mid"] = json!(1.0);
        }
        scales
    }
}

#[cfg(test)]
mod tests {
    use fabric::ipadapter::LayerScales;

    use super::*;

    fn blocks(down: &[bool], mid: bool, up: &[bool]) -> UNetBlocks {
        UNetBlocks { down: down.to_vec(), mid, up: up.to_vec() }
    }

    fn lists(blocks: &UNetBlocks, part: Part) -> (Vec<f64>, f64, Vec<f64>) {
        let BlockWeights { down, mid, up } = blocks.weights(part);
        (down, mid, up)
    }

    #[test]
    fn each_block_is_coarse_or_fine_whatever_the_number_of_levels() {
        let two = UNetBlocks::default();
        assert_eq!(lists(&two, Part::Coarse), (vec![0.0, 1.0], 1.0, vec![1.0, 0.0]));
        assert_eq!(lists(&two, Part::Fine), (vec![1.0, 0.0], 0.0, vec![0.0, 1.0]));
        // Without attention at full resolution, the parts divide the two levels below it.
        let three = blocks(&[false, true, true], true, &[true, true, false]);
        assert_eq!(lists(&three, Part::Coarse), (vec![0.0, 0.0, 1.0], 1.0, vec![1.0, 0.0, 0.0]));
        assert_eq!(lists(&three, Part::Fine), (vec![1.0, 1.0, 0.0], 0.0, vec![0.0, 1.0, 1.0]));
        let of_sd15 = UNetBlocks::of(&UNetConfig::sd15());
        assert_eq!(of_sd15, blocks(&[true, true, true, false], true, &[false, true, true, true]));
        assert_eq!(lists(&of_sd15, Part::Coarse), (vec![0.0, 0.0, 1.0, 1.0], 1.0, vec![1.0, 1.0, 0.0, 0.0]));
    }

    #[test]
    fn scales_name_only_blocks_with_attention() {
        let three = blocks(&[false, true, true], true, &[true, true, false]);
        let one = json!({ "block_1": 1.0 });
        assert_eq!(three.scales(Part::Fine), json!({ "down": one, "up": one }));
        let coarse = json!({ "down": { "block_2": 1.0 }, "mid": 1.0, "up": { "block_0": 1.0 } });
        assert_eq!(three.scales(Part::Coarse), coarse);
        let without_mid = blocks(&[true], false, &[true]);
        assert_eq!(without_mid.scales(Part::Coarse), json!({ "down": {}, "up": {} }));
        for part in [Part::Coarse, Part::Fine] {
            for blocks in [&three, &without_mid, &UNetBlocks::default()] {
                LayerScales::from_json(&blocks.scales(part).to_string()).expect("scales");
            }
        }
    }
}
