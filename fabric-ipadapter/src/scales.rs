//! How strongly an adapter acts, layer by layer.

use fabric_core::attention::{AttnSite, Block};
use serde::Deserialize;

use crate::AdapterError;

/// A scale for each cross-attention layer.
///
/// ```
/// use fabric_core::attention::{AttnKind, AttnSite, Block};
/// use fabric_ipadapter::LayerScales;
///
/// // As diffusers' `set_ip_adapter_scale` takes it; what is not mentioned is 0.
/// let scales = LayerScales::from_json(r#"{"down": {"block_2": [0.0, 1.0]}, "mid": 0.5}"#)?;
/// let site = |block, attention| AttnSite { block, attention, layer: 0, kind: AttnKind::CrossAttention };
/// assert_eq!(scales.of(&site(Block::Down(2), 1)), 1.0);
/// assert_eq!(scales.of(&site(Block::Mid, 0)), 0.5);
/// assert_eq!(scales.of(&site(Block::Up(1), 0)), 0.0);
/// # Ok::<(), fabric_ipadapter::AdapterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LayerScales {
    otherwise: f32,
    /// The last one that matches counts.
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq)]
struct Rule {
    block: Block,
    /// None is all of the block's.
    attention: Option<usize>,
    scale: f32,
}

/// What diffusers takes: a number for all, or an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Same(f32),
    Blocks(WrittenBlocks),
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WrittenBlocks {
    down: Option<WrittenLevel>,
    mid: Option<OneOrMany>,
    up: Option<WrittenLevel>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenLevel {
    Same(f32),
    Blocks(std::collections::BTreeMap<String, OneOrMany>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(f32),
    Many(Vec<f32>),
}

/// Blocks of a path that a scale for the whole path reaches: more than any U-Net has.
const BLOCKS: usize = 16;

impl LayerScales {
    /// The same everywhere.
    pub fn same(scale: f32) -> Self {
        Self { otherwise: scale, rules: Vec::new() }
    }

    /// Nothing, but for what [`Self::with_block`] and [`Self::with_attention`] add.
    pub fn none() -> Self {
        Self::same(0.0)
    }

    /// With another scale in all layers of a block.
    #[must_use]
    pub fn with_block(mut self, block: Block, scale: f32) -> Self {
        self.rules.push(Rule { block, attention: None, scale });
        self
    }

    /// With another scale in one transformer of a block.
    #[must_use]
    pub fn with_attention(mut self, block: Block, attention: usize, scale: f32) -> Self {
        self.rules.push(Rule { block, attention: Some(attention), scale });
        self
    }

    /// Reads a scale, or scales by block as diffusers' `set_ip_adapter_scale` takes them: what is not mentioned is 0.
    ///
    /// # Errors
    ///
    /// When the text is something else.
    pub fn from_json(text: &str) -> Result<Self, AdapterError> {
        let refused = |found: String| AdapterError::Setting {
            what: "scales of an adapter".to_owned(),
            found,
            wanted: r#"a number, or {"down": {"block_2": [0.0, 1.0]}, "mid": 1.0, "up": {"block_0": 1.0}}"#.to_owned(),
            next: "name blocks down, mid and up".to_owned(),
        };
        let written: Written = serde_json::from_str(text).map_err(|error| refused(format!("{text} ({error})")))?;
        let blocks = match written {
            Written::Same(scale) => return Ok(Self::same(scale)),
            Written::Blocks(blocks) => blocks,
        };
        let mut scales = Self::none();
        let paths: [(Option<WrittenLevel>, fn(usize) -> Block); 2] =
            [(blocks.down, Block::Down), (blocks.up, Block::Up)];
        for (level, block) in paths {
            match level {
                None => {}
                Some(WrittenLevel::Same(scale)) => {
                    scales = (0..BLOCKS).fold(scales, |scales, index| scales.with_block(block(index), scale));
                }
                Some(WrittenLevel::Blocks(blocks)) => {
                    for (name, written) in blocks {
                        let index = name.strip_prefix("block_").and_then(|index| index.parse().ok());
                        let index = index.ok_or_else(|| refused(format!("block `{name}`")))?;
                        scales = scales.with_written(block(index), written);
                    }
                }
            }
        }
        if let Some(written) = blocks.mid {
            scales = scales.with_written(Block::Mid, written);
        }
        Ok(scales)
    }

    fn with_written(self, block: Block, written: OneOrMany) -> Self {
        match written {
            OneOrMany::One(scale) => self.with_block(block, scale),
            OneOrMany::Many(list) if list.len() == 1 => self.with_block(block, list[0]),
            OneOrMany::Many(list) => list
                .into_iter()
                .enumerate()
                .fold(self, |scales, (attention, scale)| scales.with_attention(block, attention, scale)),
        }
    }

    /// The scale of a layer.
    pub fn of(&self, site: &AttnSite) -> f32 {
        let fits = |rule: &&Rule| {
            rule.block == site.block && rule.attention.is_none_or(|attention| attention == site.attention)
        };
        self.rules.iter().rev().find(fits).map_or(self.otherwise, |rule| rule.scale)
    }

    /// All scales times a number.
    #[must_use]
    pub fn times(mut self, factor: f32) -> Self {
        self.otherwise *= factor;
        self.rules.iter_mut().for_each(|rule| rule.scale *= factor);
        self
    }
}
