//! Names of U-Nets, whose blocks CompVis numbers consecutively.

use std::collections::BTreeSet;

use super::{Pairs, count, numbered};

/// Maximum number of levels, and of layers per level, for which names are translated.
const MOST: usize = 64;

/// Structure of a U-Net on which the numbering of blocks depends: levels, layers, and levels with attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct UNetShape {
    /// Residual blocks per down block; an up block has one more.
    pub(in super::super) layers: usize,
    /// Whether each down block has attention.
    pub(in super::super) down_attention: Vec<bool>,
    /// Whether each up block has attention.
    pub(in super::super) up_attention: Vec<bool>,
}

impl UNetShape {
    /// Derives the structure from CompVis' names (without `model.diffusion_model.`); `None` if they are not a U-Net's.
    pub(in super::super) fn of_compvis<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut blocks = 0;
        let (mut downsamplers, mut down, mut up) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for name in names {
            if let Some((block, rest)) = numbered(name, "input_blocks.") {
                blocks = blocks.max(block.saturating_add(1));
                if rest.starts_with("0.op.") {
                    downsamplers.insert(block);
                } else if rest.starts_with("1.norm.") {
                    down.insert(block);
                }
            } else if let Some((block, rest)) = numbered(name, "output_blocks.")
                && rest.starts_with("1.norm.")
            {
                up.insert(block);
            }
        }
        let levels = downsamplers.len() + 1;
        // Block 0 is the input convolution; the last block of a level is its downsampler.
        let layers = downsamplers.first().map_or(blocks, |first| *first).checked_sub(1).filter(|layers| *layers > 0)?;
        // Real files have fewer layers; the limit bounds the size of the table for malicious files.
        if layers > MOST || levels > MOST {
            return None;
        }
        let step = layers + 1;
        Some(Self {
            layers,
            down_attention: (0..levels).map(|level| down.contains(&(level * step + 1))).collect(),
            up_attention: (0..levels).map(|level| up.contains(&(level * step))).collect(),
        })
    }

    /// Lists the corresponding prefixes.
    pub(in super::super) fn pairs(&self) -> Pairs {
        let Self { layers, down_attention, up_attention } = self;
        let levels = down_attention.len();
        let step = layers + 1;
        let mut pairs: Pairs = [
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.cond_proj", "time_embed.cond_proj"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
            ("mid_block.attentions.0", "middle_block.1"),
            ("conv_norm_out", "out.0"),
            ("conv_out", "out.2"),
        ]
        .map(|(diffusers, compvis)| (diffusers.to_owned(), compvis.to_owned()))
        .into();
        resnet(&mut pairs, "mid_block.resnets.0", "middle_block.0");
        resnet(&mut pairs, "mid_block.resnets.1", "middle_block.2");
        for level in 0..levels {
            for layer in 0..*layers {
                let block = format!("input_blocks.{}", level * step + layer + 1);
                resnet(&mut pairs, &format!("down_blocks.{level}.resnets.{layer}"), &format!("{block}.0"));
                if down_attention[level] {
                    pairs.push((format!("down_blocks.{level}.attentions.{layer}"), format!("{block}.1")));
                }
            }
            for layer in 0..step {
                let block = format!("output_blocks.{}", level * step + layer);
                resnet(&mut pairs, &format!("up_blocks.{level}.resnets.{layer}"), &format!("{block}.0"));
                if up_attention[level] {
                    pairs.push((format!("up_blocks.{level}.attentions.{layer}"), format!("{block}.1")));
                }
            }
            if level + 1 < levels {
                let down = format!("input_blocks.{}.0.op", (level + 1) * step);
                pairs.push((format!("down_blocks.{level}.downsamplers.0.conv"), down));
                // The upsampler comes after the attention, where there is one.
                let place = if up_attention[level] { 2 } else { 1 };
                let up = format!("output_blocks.{}.{place}", level * step + layers);
                pairs.push((format!("up_blocks.{level}.upsamplers.0"), up));
            }
        }
        pairs
    }
}

/// Adds the layers of a residual block, which CompVis numbers.
fn resnet(pairs: &mut Pairs, diffusers: &str, compvis: &str) {
    let parts = [
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    ];
    pairs.extend(parts.map(|(left, right)| (format!("{diffusers}.{left}"), format!("{compvis}.{right}"))));
}

impl UNetShape {
    /// Derives the structure from diffusers' names.
    pub(in crate::load) fn of_diffusers<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let attention = |side: &str| {
            let has = |level| {
                let prefix = format!("{side}{level}.attentions.");
                names.clone().any(|name| name.starts_with(&prefix))
            };
            (0..count(names.clone(), side)).map(has).collect()
        };
        Self {
            layers: count(names.clone(), "down_blocks.0.resnets."),
            down_attention: attention("down_blocks."),
            up_attention: attention("up_blocks."),
        }
    }
}
