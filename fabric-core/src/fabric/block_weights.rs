//! Factors on reference weights by block of the U-Net.

use serde::{Deserialize, Serialize};

use super::settings::within;
use crate::InvalidValue;
use crate::attention::Block;

/// Factors on the weights of references by block of the U-Net, in addition to the depth scaling of
/// [`FabricSettings`](super::FabricSettings). The default is 1 everywhere, as published.
///
/// Blocks at low resolution carry composition, those at high resolution carry texture.
///
/// ```
/// use fabric_core::attention::Block;
/// use fabric_core::fabric::BlockWeights;
///
/// // Only the middle block and the two coarsest levels of Stable Diffusion, which has four.
/// let coarse = BlockWeights { down: vec![0.0, 0.0, 1.0, 1.0], up: vec![1.0, 1.0, 0.0, 0.0], ..BlockWeights::default() };
/// assert_eq!((coarse.of(Block::Up(3)), coarse.of(Block::Mid)), (0.0, 1.0));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockWeights {
    /// Factors of the down blocks, from full resolution on. Empty is 1 for all.
    pub down: Vec<f64>,
    /// Factor of the middle block.
    pub mid: f64,
    /// Factors of the up blocks, from the lowest resolution on. Empty is 1 for all.
    pub up: Vec<f64>,
}

/// 1 everywhere.
impl Default for BlockWeights {
    fn default() -> Self {
        Self { down: Vec::new(), mid: 1.0, up: Vec::new() }
    }
}

impl BlockWeights {
    /// Returns the factor of a block.
    pub fn of(&self, block: Block) -> f64 {
        let factor = |factors: &[f64], index: usize| factors.get(index).copied().unwrap_or(1.0);
        match block {
            Block::Down(index) => factor(&self.down, index),
            Block::Mid => self.mid,
            Block::Up(index) => factor(&self.up, index),
        }
    }

    /// Returns the products of these factors and others.
    pub(super) fn times(&self, other: &Self) -> Self {
        let products = |mine: &Vec<f64>, others: &Vec<f64>| -> Vec<f64> {
            let factor = |factors: &Vec<f64>, index| factors.get(index).copied().unwrap_or(1.0);
            (0..mine.len().max(others.len())).map(|index| factor(mine, index) * factor(others, index)).collect()
        };
        let (down, up) = (products(&self.down, &other.down), products(&self.up, &other.up));
        Self { down, mid: self.mid * other.mid, up }
    }

    /// Checks the range of the factors. `setting` is the setting that holds them, for the error.
    pub(super) fn validate(&self, setting: &str) -> Result<(), InvalidValue> {
        let (down, up) = (self.down.iter(), self.up.iter());
        down.chain(up).chain([&self.mid]).try_for_each(|&factor| within(setting, factor, 0.0, 1000.0))
    }

    /// Checks that there are as many factors as the U-Net has blocks. `setting` is the setting that holds them, for the
    /// error.
    pub(crate) fn check_levels(&self, setting: &str, levels: usize) -> Result<(), InvalidValue> {
        for (name, factors) in [("down", &self.down), ("up", &self.up)] {
            if !factors.is_empty() && factors.len() != levels {
                return Err(InvalidValue::new(
                    format!("{setting}.{name}"),
                    format!("{} factors", factors.len()),
                    format!("{levels}, one per {name} block of the U-Net, or none"),
                    "give a factor for each block; 1 changes nothing",
                ));
            }
        }
        Ok(())
    }
}
