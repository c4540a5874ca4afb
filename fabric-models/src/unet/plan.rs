//! Converts a configuration to a list of blocks, and returns an error for everything invalid or unsupported.

use serde_json::Value;

use super::config::{AdditionEmbedType, Depths, DownBlockType, MODEL, MidBlockType, UNetConfig, UpBlockType};
use crate::config::{ConfigError, OneOrMany, brief, check_count, check_epsilon, check_resnets, limits};

/// Validated configuration with one entry per block, in execution order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) time_dim: usize,
    pub(crate) added: Option<AddedPlan>,
    pub(crate) down: Vec<BlockPlan>,
    pub(crate) mid: Option<BlockPlan>,
    pub(crate) up: Vec<BlockPlan>,
}

/// Widths of SDXL's added conditions.
#[derive(Debug)]
pub(crate) struct AddedPlan {
    pub(crate) time_id_dim: usize,
    pub(crate) inputs: usize,
}

/// Plan of one block: its resnets, the transformer after each (if any), and whether a down- or upsampler follows.
#[derive(Debug)]
pub(crate) struct BlockPlan {
    /// Input channels of each resnet, including the skip connection.
    pub(crate) inputs: Vec<usize>,
    pub(crate) channels: usize,
    /// Layers of each transformer; empty in blocks without transformers.
    pub(crate) depths: Vec<usize>,
    pub(crate) heads: usize,
    pub(crate) context_dim: usize,
    pub(crate) resample: bool,
}

/// Settings that must be absent or have one of the listed values, which have no effect.
const NEUTRAL: [(&str, &[&str]); 18] = [
    ("only_cross_attention", &["false", "null"]),
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("mid_block_scale_factor", &["1", "1.0"]),
    ("dual_cross_attention", &["false"]),
    ("class_embed_type", &["null"]),
    ("num_class_embeds", &["null"]),
    ("class_embeddings_concat", &["false"]),
    ("encoder_hid_dim", &["null"]),
    ("encoder_hid_dim_type", &["null"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_out_scale_factor", &["1.0", "1"]),
    ("time_embedding_type", &["\"positional\""]),
    ("time_embedding_act_fn", &["null"]),
    ("timestep_post_act", &["null"]),
    ("attention_type", &["\"default\""]),
    ("cross_attention_norm", &["null"]),
    ("_class_name", &["\"UNet2DConditionModel\""]),
];

fn invalid<T>(field: &str, got: impl ToString, expected: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::invalid(MODEL, field, got, expected))
}

fn per_level<T: Clone>(field: &str, value: &OneOrMany<T>, levels: usize) -> Result<Vec<T>, ConfigError> {
    let expected = format!("one value, or one for each of the {levels} levels");
    value.spread(levels).or_else(|got| invalid(field, format!("{got} values"), expected))
}

impl Plan {
    pub(crate) fn new(config: &UNetConfig) -> Result<Self, ConfigError> {
        check_neutral(config)?;
        check_numbers(config)?;
        let levels = config.block_out_channels.len();
        check_blocks(config, levels)?;
        let layers = per_level("layers_per_block", &config.layers_per_block, levels)?;
        for &count in &layers {
            check_count(MODEL, "layers_per_block", count, limits::LAYERS)?;
        }
        let heads = heads(config, levels)?;
        let contexts = per_level("cross_attention_dim", &config.cross_attention_dim, levels)?;
        for &dim in &contexts {
            check_count(MODEL, "cross_attention_dim", dim, limits::CHANNELS)?;
        }
        let down_depths = match &config.transformer_layers_per_block {
            Depths::Same(depth) => vec![OneOrMany::One(*depth); levels],
            Depths::PerLevel(listed) => {
                per_level("transformer_layers_per_block", &OneOrMany::Many(listed.clone()), levels)?
            }
        };
        let up_depths = up_depths(config, &down_depths)?;

        let channels = &config.block_out_channels;
        let block = |level: usize| BlockPlan {
            inputs: Vec::new(),
            channels: channels[level],
            depths: Vec::new(),
            heads: heads[level],
            context_dim: contexts[level],
            resample: false,
        };
        let mut down = Vec::new();
        for level in 0..levels {
            let mut inputs = vec![channels[level]; layers[level]];
            inputs[0] = channels[level.saturating_sub(1)];
            let depths = match config.down_block_types[level] {
                DownBlockType::DownBlock2D => Vec::new(),
                DownBlockType::CrossAttnDownBlock2D => {
                    depths("transformer_layers_per_block", &down_depths[level], layers[level])?
                }
            };
            down.push(BlockPlan { inputs, depths, resample: level + 1 < levels, ..block(level) });
        }
        let mut up = Vec::new();
        for (index, level) in (0..levels).rev().enumerate() {
            let count = layers[level] + 1;
            // The skip connections of this level come in reverse order; the last is the input of the level.
            let inputs = (0..count).map(|layer| {
                let hidden = if layer == 0 { channels[(level + 1).min(levels - 1)] } else { channels[level] };
                let skip = if layer + 1 == count { channels[level.saturating_sub(1)] } else { channels[level] };
                hidden + skip
            });
            let inputs: Vec<usize> = inputs.collect();
            let depths = match config.up_block_types[index] {
                UpBlockType::UpBlock2D => Vec::new(),
                UpBlockType::CrossAttnUpBlock2D => {
                    depths("reverse_transformer_layers_per_block", &up_depths[index], count)?
                }
            };
            up.push(BlockPlan { inputs, depths, resample: index + 1 < levels, ..block(level) });
        }
        let mid = match config.mid_block_type {
            None => None,
            Some(MidBlockType::UNetMidBlock2D) => {
                Some(BlockPlan { inputs: vec![channels[levels - 1]], ..block(levels - 1) })
            }
            Some(MidBlockType::UNetMidBlock2DCrossAttn) => {
                let depth = depths("transformer_layers_per_block", &down_depths[levels - 1], 1).or_else(|_| {
                    depths("transformer_layers_per_block", &down_depths[levels - 1], layers[levels - 1])
                })?;
                let inputs = vec![channels[levels - 1]; 2];
                Some(BlockPlan { inputs, depths: vec![depth[0]], ..block(levels - 1) })
            }
        };
        if let Some(dim) = config.time_cond_proj_dim {
            check_count(MODEL, "time_cond_proj_dim", dim, limits::CHANNELS)?;
            if dim < 4 || !dim.is_multiple_of(2) {
                return invalid("time_cond_proj_dim", dim, "an even number of at least 4, or null");
            }
        }
        let plan = Self {
            time_dim: config.time_embedding_dim.unwrap_or(channels[0] * 4),
            added: added(config)?,
            down,
            mid,
            up,
        };
        plan.check_divisions(config)?;
        let layers: usize = plan.blocks().flat_map(|block| &block.depths).sum();
        check_count(MODEL, "transformer_layers_per_block", layers.max(1), limits::TRANSFORMER_LAYERS)?;
        check_resnets(MODEL, "layers_per_block", plan.blocks().map(|block| block.inputs.len()).sum())?;
        Ok(plan)
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = &BlockPlan> {
        self.down.iter().chain(&self.mid).chain(&self.up)
    }

    /// Returns the channels of the text embeddings.
    pub(crate) fn context(&self) -> usize {
        self.blocks().find(|block| !block.depths.is_empty()).map_or(0, |block| block.context_dim)
    }

    /// Returns the channels of the skip connections, in the order in which the down path produces them.
    pub(crate) fn skips(&self) -> Vec<usize> {
        let first = self.down.first().map_or(0, |block| block.channels);
        let of = |block: &BlockPlan| vec![block.channels; block.inputs.len() + usize::from(block.resample)];
        std::iter::once(first).chain(self.down.iter().flat_map(of)).collect()
    }

    /// Returns a lower bound of the number of values held at once per latent pixel and row: the skip connections, and
    /// the widest layer at full resolution with its result (the gated MLP, 8 and 4 times as wide as its input).
    pub(crate) fn working_width(&self) -> usize {
        let area = |level: usize| 4_usize.saturating_pow(level as u32);
        let skips =
            self.down.iter().enumerate().map(|(level, block)| block.channels * block.inputs.len() / area(level));
        let first = self.down.first().map_or(0, |block| block.channels);
        skips.sum::<usize>() + 12 * first
    }

    /// Checks that the groups divide the channels of every norm, and the heads those of every attention.
    fn check_divisions(&self, config: &UNetConfig) -> Result<(), ConfigError> {
        let groups = config.norm_num_groups;
        for block in self.blocks() {
            for &channels in block.inputs.iter().chain([&block.channels]) {
                if !channels.is_multiple_of(groups) {
                    return invalid("norm_num_groups", groups, format!("a divisor of {channels} channels"));
                }
            }
            if !block.depths.is_empty() && !block.channels.is_multiple_of(block.heads) {
                let expected = format!("numbers of heads that divide the channels, here {}", block.channels);
                return invalid("attention_head_dim", block.heads, expected);
            }
        }
        Ok(())
    }
}

fn check_neutral(config: &UNetConfig) -> Result<(), ConfigError> {
    for (field, accepted) in NEUTRAL {
        let Some(value) = config.other.get(field) else { continue };
        let neutral = |value: &Value| accepted.contains(&value.to_string().as_str());
        let fine = match value {
            Value::Array(values) => !values.is_empty() && values.iter().all(neutral),
            value => neutral(value),
        };
        if !fine {
            return Err(ConfigError::unsupported(MODEL, field, brief(value), accepted[0]));
        }
    }
    Ok(())
}

fn check_numbers(config: &UNetConfig) -> Result<(), ConfigError> {
    check_count(MODEL, "block_out_channels", config.block_out_channels.len(), limits::LEVELS)?;
    for &channels in &config.block_out_channels {
        check_count(MODEL, "block_out_channels", channels, limits::CHANNELS)?;
    }
    let counts = [
        ("in_channels", config.in_channels),
        ("out_channels", config.out_channels),
        ("norm_num_groups", config.norm_num_groups),
        ("time_embedding_dim", config.time_embedding_dim.unwrap_or(1)),
    ];
    for (field, count) in counts {
        check_count(MODEL, field, count, limits::CHANNELS)?;
    }
    check_epsilon(MODEL, "norm_eps", config.norm_eps)?;
    if config.downsample_padding > 1 {
        return invalid("downsample_padding", config.downsample_padding, "0 or 1");
    }
    for (field, kernel) in [("conv_in_kernel", config.conv_in_kernel), ("conv_out_kernel", config.conv_out_kernel)] {
        if kernel > 15 || kernel.is_multiple_of(2) {
            return invalid(field, kernel, "an odd number up to 15");
        }
    }
    let sides = match &config.sample_size {
        None => Vec::new(),
        Some(OneOrMany::One(side)) => vec![*side],
        Some(OneOrMany::Many(sides)) => sides.clone(),
    };
    for side in sides {
        check_count(MODEL, "sample_size", side, limits::SIDE)?;
    }
    let (shift, most) = (config.freq_shift, limits::FREQUENCY_SHIFT);
    if !(-most..=most).contains(&shift) {
        return invalid("freq_shift", shift, format!("a number from -{most} to {most}"));
    }
    let first = config.block_out_channels[0];
    check_frequencies("block_out_channels", first, config.freq_shift)
}

/// Checks that a sinusoidal embedding of `dim` channels is even and has more frequencies than `shift`.
fn check_frequencies(field: &str, dim: usize, shift: f64) -> Result<(), ConfigError> {
    let half = dim / 2;
    if dim.is_multiple_of(2) && half as f64 - shift > 0.0 {
        return Ok(());
    }
    invalid(field, dim, format!("an even number above twice `freq_shift` ({shift})"))
}

fn check_blocks(config: &UNetConfig, levels: usize) -> Result<(), ConfigError> {
    let lists = [("down_block_types", config.down_block_types.len()), ("up_block_types", config.up_block_types.len())];
    for (field, count) in lists {
        if count != levels {
            return invalid(field, format!("{count} blocks"), format!("{levels}, one for each of block_out_channels"));
        }
    }
    Ok(())
}

fn heads(config: &UNetConfig, levels: usize) -> Result<Vec<usize>, ConfigError> {
    let (field, value) = match &config.num_attention_heads {
        Some(heads) => ("num_attention_heads", heads),
        None => ("attention_head_dim", &config.attention_head_dim),
    };
    let heads = per_level(field, value, levels)?;
    for &count in &heads {
        check_count(MODEL, field, count, limits::CHANNELS)?;
    }
    Ok(heads)
}

/// Returns the depths of the up path, from the lowest resolution: those of the file, or the down path mirrored.
fn up_depths(config: &UNetConfig, down: &[OneOrMany<usize>]) -> Result<Vec<OneOrMany<usize>>, ConfigError> {
    match &config.reverse_transformer_layers_per_block {
        Some(listed) if listed.len() == down.len() => Ok(listed.clone()),
        Some(listed) => invalid(
            "reverse_transformer_layers_per_block",
            format!("{} values", listed.len()),
            format!("one for each of the {} levels", down.len()),
        ),
        None if down.iter().any(|depths| matches!(depths, OneOrMany::Many(_))) => invalid(
            "reverse_transformer_layers_per_block",
            "nothing",
            "the depths of the way up, because `transformer_layers_per_block` lists each transformer",
        ),
        None => Ok(down.iter().rev().cloned().collect()),
    }
}

fn depths(field: &str, value: &OneOrMany<usize>, count: usize) -> Result<Vec<usize>, ConfigError> {
    let expected = format!("one value, or one for each of {count} transformers");
    let depths = value.spread(count).or_else(|got| invalid(field, format!("{got} values in a level"), expected))?;
    match depths.iter().find(|&&depth| depth > limits::LAYERS) {
        Some(depth) => invalid(field, depth, format!("at most {}", limits::LAYERS)),
        None => Ok(depths),
    }
}

fn added(config: &UNetConfig) -> Result<Option<AddedPlan>, ConfigError> {
    let Some(AdditionEmbedType::TextTime) = config.addition_embed_type else { return Ok(None) };
    let expected = "a number, because `addition_embed_type` is text_time";
    let Some(time_id_dim) = config.addition_time_embed_dim else {
        return invalid("addition_time_embed_dim", "nothing", expected);
    };
    let Some(inputs) = config.projection_class_embeddings_input_dim else {
        return invalid("projection_class_embeddings_input_dim", "nothing", expected);
    };
    check_count(MODEL, "addition_time_embed_dim", time_id_dim, limits::CHANNELS)?;
    check_frequencies("addition_time_embed_dim", time_id_dim, config.freq_shift)?;
    check_count(MODEL, "projection_class_embeddings_input_dim", inputs, limits::CHANNELS)?;
    Ok(Some(AddedPlan { time_id_dim, inputs }))
}
