//! The U-Net of Stable Diffusion 1.x, 2.x and XL (diffusers' `UNet2DConditionModel`).

mod attention;
mod blocks;
mod config;
mod init;
mod names;
mod pass;
mod plan;
mod time;
mod transformer;
mod trunk;

pub use config::{AdditionEmbedType, Depths, DownBlockType, MidBlockType, UNetConfig, UpBlockType};
pub use time::timestep_embedding;

use burn::module::Module;
use burn::tensor::{Device, Tensor, assert_shape};
use fabric_core::attention::{AttnKind, AttnSite};
use fabric_core::models::{CrossAttention, Record, Residuals, UNetInput, UNetModel, UNetOutput};

use self::blocks::{Builder, UpBlock};
pub(crate) use self::pass::Pass;
pub(crate) use self::plan::Plan;
use self::transformer::Transformer;
pub(crate) use self::trunk::{TimeInputs, Trunk};
use crate::layers::{Conv2d, GroupNorm, Trace, cast, computes_in};

/// U-Net: predicts the noise in latents, conditioned on text and on the outputs of attention processors.
#[derive(Module, Debug)]
pub struct UNet {
    trunk: Trunk,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    sites: Vec<AttnSite>,
    center_input_sample: bool,
    in_channels: usize,
    /// Number of values held at once per latent pixel and row.
    working_width: usize,
}

impl UNet {
    fn new(config: &UNetConfig, plan: &Plan, device: &Device) -> Self {
        let first = config.block_out_channels[0];
        let build = Builder { config, plan, device };
        let mut unet = Self {
            trunk: Trunk::new(config, plan, device),
            up_blocks: plan.up.iter().enumerate().map(|(index, block)| build.up(index, block)).collect(),
            conv_norm_out: GroupNorm::new(config.norm_num_groups, first, config.norm_eps, device),
            conv_out: Conv2d::new(first, config.out_channels, config.conv_out_kernel, device),
            sites: Vec::new(),
            center_input_sample: config.center_input_sample,
            in_channels: config.in_channels,
            working_width: plan.working_width(),
        };
        unet.sites = unet.layers().flat_map(|layer| [layer.attn1.site, layer.attn2.site]).collect();
        unet
    }

    /// Returns the transformer layers in execution order.
    fn layers(&self) -> impl Iterator<Item = &transformer::TransformerBlock> {
        let up = self.up_blocks.iter().flat_map(|block| &block.attentions);
        self.trunk.layers().chain(up.flat_map(|attention: &Transformer| &attention.transformer_blocks))
    }

    /// Runs the network and passes the output of each part to `trace` with its published name (`conv_in`,
    /// `down_blocks.0`, `mid_block`, ...). Embeddings have the shape `[rows, channels, 1, 1]`.
    pub fn forward_traced<'a>(&self, input: UNetInput<'a>, trace: &'a mut dyn FnMut(&str, &Tensor<4>)) -> UNetOutput {
        self.run(input, Some(trace))
    }

    fn run<'a>(&self, input: UNetInput<'a>, mut trace: Trace<'a>) -> UNetOutput {
        let [rows, _, height, width] = input.sample.dims();
        assert_shape!(input.sample, [_, self.in_channels, _, _]);
        assert_shape!(input.context, [rows, _, _]);
        assert!(rows > 0 && height > 0 && width > 0, "U-Net: {rows} rows of {height}x{width} latents");
        let references = input.reference_rows;
        assert!(
            references < rows,
            "U-Net: {references} of {rows} rows are references, expected at least one that is not"
        );
        let record = input.record == Record::SelfAttentionOnly;
        let dtype = input.sample.dtype();
        let compute = computes_in(&self.trunk.conv_in.weight);

        let time = self.trunk.embed_time(rows, TimeInputs::of(&input), &mut trace);
        let mut pass = Pass {
            processor: input.processor,
            context: cast(input.context, compute),
            text_kv_cache: input.text_kv_cache,
            time,
            skips: Vec::new(),
            kept: rows - references,
            last: self.sites.iter().rfind(|site| site.kind == AttnKind::SelfAttention).copied(),
            recorded: record.then(Vec::new),
            trace,
        };
        let sample = self.walk(cast(input.sample, compute), input.residuals, &mut pass);
        UNetOutput { sample: sample.map(|x| cast(x, dtype)), recorded: pass.recorded.unwrap_or_default() }
    }

    /// Returns the number of channels of the prediction.
    pub(crate) fn out_channels(&self) -> usize {
        self.conv_out.weight.lazy_shape()[0]
    }

    /// Returns the width of the added conditions as a whole and of each embedded time id; `None` in networks without.
    pub(crate) fn added_widths(&self) -> Option<[usize; 2]> {
        self.trunk.added_widths()
    }

    /// Returns [`UNetModel::working_bytes`] for the network on another device.
    pub(crate) fn working_bytes_on(&self, device: &Device, [rows, height, width]: [usize; 3]) -> u64 {
        let bytes = fabric_backends::ops::computes_in(device, self.trunk.conv_in.weight.val().dtype()).size();
        [rows, height, width, self.working_width, bytes].into_iter().map(|n| n as u64).product()
    }

    /// Runs all blocks. Returns `None` if the pass only records and has recorded everything.
    fn walk(&self, sample: Tensor<4>, residuals: Option<&Residuals>, pass: &mut Pass<'_>) -> Option<Tensor<4>> {
        let mut x = if self.center_input_sample { sample * 2.0 - 1.0 } else { sample };
        if pass.last.is_none() {
            // Without self-attention, reference rows have no effect and there is nothing to record.
            if pass.recorded.is_some() {
                return None;
            }
            pass.drop_reference_rows();
            x = pass.keep(x);
        }
        let levels = residuals.map_or(&[][..], |residuals| &residuals.levels);
        x = self.trunk.down(self.trunk.conv_in.forward(x), levels, pass)?;
        // Added after the down path, so that the down path itself runs on unchanged features.
        if let Some(residuals) = residuals {
            pass.add_to_skips(&residuals.down);
        }
        x = self.trunk.middle(x, pass)?;
        if let Some(mid) = residuals.and_then(|residuals| residuals.mid.as_ref()) {
            x = pass.add(x, mid);
        }
        // As in diffusers, a residual of another shape is not meant for the middle block and is ignored.
        let fits = |added: &&Tensor<4>| added.dims()[1..] == x.dims()[1..];
        if let Some(added) = levels.get(self.trunk.down_blocks.len()).filter(fits) {
            x = pass.add(x, added);
        }
        for (index, block) in self.up_blocks.iter().enumerate() {
            x = block.forward(x, pass)?;
            pass.trace(|| format!("up_blocks.{index}"), &x);
        }
        x = self.conv_norm_out.forward(x);
        pass.trace(|| "conv_norm_out".to_owned(), &x);
        Some(self.conv_out.forward(self.trunk.act.forward(x)))
    }
}

impl UNetModel for UNet {
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput {
        self.run(input, None)
    }

    fn attention_sites(&self) -> Vec<AttnSite> {
        self.sites.clone()
    }

    fn cross_attentions(&self) -> Vec<CrossAttention> {
        self.layers().map(|layer| layer.attn2.as_cross_attention()).collect()
    }

    fn skip_channels(&self) -> Vec<usize> {
        self.trunk.skips.clone()
    }

    fn level_channels(&self) -> Vec<usize> {
        self.trunk.levels.clone()
    }

    fn levels(&self) -> usize {
        self.trunk.down_blocks.len()
    }

    fn in_channels(&self) -> usize {
        self.in_channels
    }

    fn reads_guidance_scale(&self) -> bool {
        self.trunk.reads_guidance_scale()
    }

    fn working_bytes(&self, [rows, height, width]: [usize; 3]) -> u64 {
        self.working_bytes_on(&self.device(), [rows, height, width])
    }

    fn device(&self) -> Device {
        self.trunk.conv_in.weight.lazy_device()
    }
}

#[cfg(test)]
mod tests;
