//! Scales of an adapter per cross-attention layer.

use std::fmt;

use fabric_core::InvalidValue;
use fabric_core::attention::{AttnSite, Block};
use serde::Deserialize;

use crate::AdapterError;

/// Maximum magnitude of a scale, a factor or a weight, the same as of image conditions; far beyond useful ones.
pub(crate) const MAX_SCALE: f32 = 100.0;

/// Scale of an adapter for each cross-attention layer.
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
    /// The last matching rule applies.
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq)]
struct Rule {
    part: Part,
    scale: f32,
}

/// Layers that a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Down,
    Up,
    Block(Block),
    /// One transformer of a block.
    Attention(Block, usize),
    /// One transformer of a block, from a list of this length, which must be the number of transformers in the
    /// block.
    Listed(Block, usize, usize),
}

/// Formats the part as in diffusers' paths.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("down_blocks"),
            Self::Up => f.write_str("up_blocks"),
            Self::Block(Block::Down(index)) => write!(f, "down_blocks.{index}"),
            Self::Block(Block::Mid) => f.write_str("mid_block"),
            Self::Block(Block::Up(index)) => write!(f, "up_blocks.{index}"),
            Self::Attention(block, attention) | Self::Listed(block, attention, _) => {
                write!(f, "{}.attentions.{attention}", Self::Block(*block))
            }
        }
    }
}

impl Part {
    fn has(self, site: &AttnSite) -> bool {
        match self {
            Self::Down => matches!(site.block, Block::Down(_)),
            Self::Up => matches!(site.block, Block::Up(_)),
            Self::Block(block) => block == site.block,
            Self::Attention(block, attention) | Self::Listed(block, attention, _) => {
                block == site.block && attention == site.attention
            }
        }
    }
}

/// The JSON that diffusers accepts: a number for all layers, or an object.
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

impl OneOrMany {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Many(list) if list.is_empty())
    }
}

impl LayerScales {
    /// Creates scales that are equal in all layers.
    pub fn same(scale: f32) -> Self {
        Self { otherwise: scale, rules: Vec::new() }
    }

    /// Creates scales that are 0 in all layers; set others with [`Self::with_block`] and
    /// [`Self::with_attention`].
    pub fn none() -> Self {
        Self::same(0.0)
    }

    /// Sets the scale of all layers of a block.
    #[must_use]
    pub fn with_block(self, block: Block, scale: f32) -> Self {
        self.with(Part::Block(block), scale)
    }

    /// Sets the scale of one transformer of a block.
    #[must_use]
    pub fn with_attention(self, block: Block, attention: usize, scale: f32) -> Self {
        self.with(Part::Attention(block, attention), scale)
    }

    fn with(mut self, part: Part, scale: f32) -> Self {
        self.rules.push(Rule { part, scale });
        self
    }

    /// Checks that the scales are not absurd and name only layers of a U-Net with these cross-attention layers.
    pub(crate) fn check<'a>(&self, sites: impl Iterator<Item = &'a AttnSite> + Clone) -> Result<(), AdapterError> {
        let refused = |got: String, expected: String| {
            AdapterError::Setting(InvalidValue {
                what: "scales of an adapter".to_owned(),
                got,
                expected,
                help: "1 is the strength of training, 0 is off".to_owned(),
            })
        };
        let mut scales = self.rules.iter().map(|rule| rule.scale).chain([self.otherwise]);
        if let Some(scale) = scales.find(|scale| !(-MAX_SCALE..=MAX_SCALE).contains(scale)) {
            return Err(refused(scale.to_string(), format!("numbers from -{MAX_SCALE} to {MAX_SCALE}")));
        }
        for Rule { part, .. } in &self.rules {
            if !sites.clone().any(|site| part.has(site)) {
                return Err(refused(part.to_string(), "parts of the U-Net that have cross-attentions".to_owned()));
            }
            if let Part::Listed(block, _, count) = part {
                let last = sites.clone().filter(|site| site.block == *block).map(|site| site.attention + 1).max();
                if last != Some(*count) {
                    let expected = format!("{}, one for each", last.unwrap_or_default());
                    return Err(refused(format!("{count} scales for {}", Part::Block(*block)), expected));
                }
            }
        }
        Ok(())
    }

    /// Parses one scale, or scales by block as for diffusers' `set_ip_adapter_scale`; blocks that are not
    /// mentioned get 0.
    ///
    /// # Errors
    ///
    /// Returns an error if the text has another form.
    pub fn from_json(text: &str) -> Result<Self, AdapterError> {
        let refused = |got: String| {
            AdapterError::Setting(InvalidValue {
                what: "scales of an adapter".to_owned(),
                got,
                expected: r#"a number, or {"down": {"block_2": [0.0, 1.0]}, "mid": 1.0, "up": {"block_0": 1.0}}"#
                    .to_owned(),
                help: "name blocks down, mid and up".to_owned(),
            })
        };
        if fabric_core::json::is_list(text.as_bytes()) {
            return Err(refused(text.to_owned()));
        }
        let written: Written =
            fabric_core::json::from_str(text).map_err(|error| refused(format!("{text} ({error})")))?;
        let blocks = match written {
            Written::Same(scale) => return Ok(Self::same(scale)),
            Written::Blocks(blocks) => blocks,
        };
        let mut scales = Self::none();
        let down: (_, _, fn(usize) -> Block) = (blocks.down, Part::Down, Block::Down);
        for (level, part, block) in [down, (blocks.up, Part::Up, Block::Up)] {
            match level {
                None => {}
                Some(WrittenLevel::Same(scale)) => scales = scales.with(part, scale),
                Some(WrittenLevel::Blocks(blocks)) => {
                    for (name, written) in blocks {
                        let index = name.strip_prefix("block_").and_then(|index| index.parse().ok());
                        let index = index.ok_or_else(|| refused(format!("block `{name}`")))?;
                        if written.is_empty() {
                            return Err(refused(format!("no scales for block `{name}`")));
                        }
                        scales = scales.with_written(block(index), written);
                    }
                }
            }
        }
        if let Some(written) = blocks.mid {
            if written.is_empty() {
                return Err(refused("no scales for block `mid`".to_owned()));
            }
            scales = scales.with_written(Block::Mid, written);
        }
        Ok(scales)
    }

    fn with_written(self, block: Block, written: OneOrMany) -> Self {
        match written {
            OneOrMany::One(scale) => self.with_block(block, scale),
            OneOrMany::Many(list) if list.len() == 1 => self.with_block(block, list[0]),
            OneOrMany::Many(list) => {
                let count = list.len();
                list.into_iter()
                    .enumerate()
                    .fold(self, |scales, (attention, scale)| scales.with(Part::Listed(block, attention, count), scale))
            }
        }
    }

    /// Returns the scale of a layer.
    pub fn of(&self, site: &AttnSite) -> f32 {
        self.rules.iter().rev().find(|rule| rule.part.has(site)).map_or(self.otherwise, |rule| rule.scale)
    }

    /// Multiplies all scales by a factor.
    #[must_use]
    pub fn times(mut self, factor: f32) -> Self {
        self.otherwise *= factor;
        self.rules.iter_mut().for_each(|rule| rule.scale *= factor);
        self
    }
}

#[cfg(test)]
mod tests {
    use fabric_core::attention::AttnKind;

    use super::*;

    #[test]
    fn scales_that_do_not_fit_a_u_net_are_refused() {
        let site = |block, attention| AttnSite { block, attention, layer: 0, kind: AttnKind::CrossAttention };
        let sites = [site(Block::Down(0), 0), site(Block::Down(0), 1), site(Block::Mid, 0), site(Block::Up(1), 0)];
        let check = |text: &str| LayerScales::from_json(text).expect("scales").check(sites.iter());
        for good in [
            "0.7",
            "-100",
            "100",
            r#"{"down": 1, "up": {"block_1": [0.5]}}"#,
            r#"{"down": {"block_0": [0, 1]}, "mid": 1}"#,
        ] {
            check(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for (bad, word) in [
            ("1e39", "numbers from -100 to 100"),
            ("100.5", "from -100 to 100"),
            (r#"{"mid": -1e30}"#, "from -100 to 100"),
            (r#"{"up": {"block_9": 1}}"#, "up_blocks.9"),
            (r#"{"down": {"block_0": [1, 1, 1]}}"#, "down_blocks.0"),
            (r#"{"down": {"block_0": [[], 1]}}"#, ""),
            (r#"{"down": {"block_0": []}}"#, "no scales for block `block_0`"),
            (r#"{"mid": []}"#, "no scales for block `mid`"),
            ("[]", "got []"),
            (" [1.0]", "expected a number"),
            ("\u{feff}[]", "expected a number"),
            ("[1, 0.5, {}]", "expected a number"),
        ] {
            let error = LayerScales::from_json(bad).and_then(|scales| scales.check(sites.iter())).expect_err(bad);
            let message = error.to_string();
            assert!(message.starts_with("scales of an adapter: expected") && message.contains(word), "{message}");
        }
        assert!(LayerScales::from_json(r#"{"middle": 1}"#).is_err());
    }
}
