//! The U-Net of Stable Diffusion 1.x, 2.x and XL (diffusers' `UNet2DConditionModel`).

mod attention;
mod blocks;
mod config;
mod names;
mod pass;
mod plan;
mod time;
mod transformer;

pub use config::{AdditionEmbedType, Depths, DownBlockType, MidBlockType, UNetConfig, UpBlockType};
pub use time::timestep_embedding;

use burn::module::Module;
use burn::tensor::{Device, Tensor, assert_shape};
use fabric_core::attention::{AttnKind, AttnSite};
use fabric_core::models::{AddedConditions, CrossAttention, NoisePredictor, Record, Residuals, UNetInput, UNetOutput};

use self::blocks::{Builder, DownBlock, MidBlock, UpBlock};
use self::pass::Pass;
use self::plan::Plan;
use self::time::{Sinusoid, TimestepEmbedding};
use self::transformer::Transformer;
use crate::layers::{Activation, Conv2d, GroupNorm, Trace, cast, show};

/// Predicts the noise in latents, under text and under what processors add to its attention layers.
#[derive(Module, Debug)]
pub struct UNet {
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    act: Activation,
    #[module(skip)]
    time_proj: Sinusoid,
    #[module(skip)]
    add_time_proj: Option<Sinusoid>,
    #[module(skip)]
    sites: Vec<AttnSite>,
    center_input_sample: bool,
    in_channels: usize,
    /// Numbers that are alive at once per latent pixel and row.
    working_width: usize,
}

impl UNet {
    fn new(config: &UNetConfig, plan: &Plan, device: &Device) -> Self {
        let channels = &config.block_out_channels;
        let (flip_sin_to_cos, freq_shift) = (config.flip_sin_to_cos, config.freq_shift);
        let sinusoid = |dim| Sinusoid { dim, flip_sin_to_cos, freq_shift };
        let build = Builder { config, plan, device };
        let mut unet = Self {
            conv_in: Conv2d::new(config.in_channels, channels[0], config.conv_in_kernel, device),
            time_embedding: TimestepEmbedding::new(channels[0], plan.time_dim, config.act_fn, device),
            add_embedding: plan
                .added
                .as_ref()
                .map(|added| TimestepEmbedding::new(added.inputs, plan.time_dim, Activation::Silu, device)),
            down_blocks: plan.down.iter().enumerate().map(|(index, block)| build.down(index, block)).collect(),
            mid_block: plan.mid.as_ref().map(|block| build.mid(block)),
            up_blocks: plan.up.iter().enumerate().map(|(index, block)| build.up(index, block)).collect(),
            conv_norm_out: GroupNorm::new(config.norm_num_groups, channels[0], config.norm_eps, device),
            conv_out: Conv2d::new(channels[0], config.out_channels, config.conv_out_kernel, device),
            act: config.act_fn,
            time_proj: sinusoid(channels[0]),
            add_time_proj: plan.added.as_ref().map(|added| sinusoid(added.time_id_dim)),
            sites: Vec::new(),
            center_input_sample: config.center_input_sample,
            in_channels: config.in_channels,
            working_width: plan.working_width(),
        };
        unet.sites = unet.layers().flat_map(|layer| [layer.attn1.site, layer.attn2.site]).collect();
        unet
    }

    /// Transformer layers, in the order in which they run.
    fn layers(&self) -> impl Iterator<Item = &transformer::TransformerBlock> {
        let down = self.down_blocks.iter().map(|block| &block.attentions);
        let mid = self.mid_block.iter().map(|block| &block.attentions);
        let up = self.up_blocks.iter().map(|block| &block.attentions);
        down.chain(mid).chain(up).flatten().flat_map(|attention: &Transformer| &attention.transformer_blocks)
    }

    /// One pass that also shows the output of each part, by its published name (`conv_in`, `down_blocks.0`,
    /// `mid_block`, ...). Embeddings are shown as `[rows, channels, 1, 1]`.
    pub fn forward_traced<'a>(&self, input: UNetInput<'a>, trace: &'a mut dyn FnMut(&str, &Tensor<4>)) -> UNetOutput {
        self.run(input, Some(trace))
    }

    fn run<'a>(&self, input: UNetInput<'a>, mut trace: Trace<'a>) -> UNetOutput {
        let [rows, _, height, width] = input.sample.dims();
        assert_shape!(input.sample, [_, self.in_channels, _, _]);
        assert_shape!(input.context, [rows, _, _]);
        assert!(rows > 0 && height > 0 && width > 0, "U-Net: {rows} rows of {height}x{width} latents");
        let lending = input.lending_rows;
        assert!(lending < rows, "U-Net: {lending} of {rows} rows only lend, wanted at least one that does not");
        let record = input.record == Record::SelfAttentionOnly;
        let dtype = input.sample.dtype();
        let compute = self.conv_in.weight.val().dtype();

        let time = self.embed_time(rows, input.timesteps, input.added, &mut trace);
        let mut pass = Pass {
            processor: input.processor,
            context: cast(input.context, compute),
            time: self.act.forward(time),
            skips: Vec::new(),
            kept: rows - lending,
            last: self.sites.iter().rfind(|site| site.kind == AttnKind::SelfAttention).copied(),
            recorded: record.then(Vec::new),
            trace,
        };
        let sample = self.walk(cast(input.sample, compute), input.residuals, &mut pass);
        UNetOutput { sample: sample.map(|x| cast(x, dtype)), recorded: pass.recorded.unwrap_or_default() }
    }

    /// What the resnets are told of the time (and of SDXL's second conditioning): `[rows, time_dim]`.
    fn embed_time(
        &self,
        rows: usize,
        timesteps: &[f64],
        added: Option<AddedConditions>,
        trace: &mut Trace<'_>,
    ) -> Tensor<2> {
        assert!(
            timesteps.len() == 1 || timesteps.len() == rows,
            "U-Net: {} timesteps for {rows} rows, wanted 1 or one per row",
            timesteps.len()
        );
        let mut show = |name: &str, x: &Tensor<2>| {
            show(trace, || name.to_owned(), &x.clone().unsqueeze_dims(&[2, 3]));
        };
        let weight = self.conv_in.weight.val();
        let (device, compute) = (weight.device(), weight.dtype());
        let time = self.time_embedding.forward(cast(self.time_proj.embed(timesteps, &device), compute));
        let [_, time_dim] = time.dims();
        let mut time = time.expand([rows, time_dim]);
        show("time_embedding", &time);
        if let (Some(embedding), Some(sinusoid)) = (&self.add_embedding, self.add_time_proj) {
            let added = added.expect("U-Net: this network wants added conditions (pooled text and time ids)");
            let ids = sinusoid.embed_tensor(added.time_ids);
            let ids = cast(ids, compute);
            let added = embedding.forward(Tensor::cat(vec![cast(added.pooled, compute), ids], 1));
            show("add_embedding", &added);
            time = time + added;
        }
        time
    }

    /// `None` when the pass only records, and has recorded all.
    fn walk(&self, sample: Tensor<4>, residuals: Option<&Residuals>, pass: &mut Pass<'_>) -> Option<Tensor<4>> {
        let mut x = if self.center_input_sample { sample * 2.0 - 1.0 } else { sample };
        if pass.last.is_none() {
            // No layer to lend to, and nothing to record.
            if pass.recorded.is_some() {
                return None;
            }
            pass.drop_lenders();
            x = pass.keep(x);
        }
        x = self.conv_in.forward(x);
        pass.trace(|| "conv_in".to_owned(), &x);
        pass.skips.push(x.clone());
        for (index, block) in self.down_blocks.iter().enumerate() {
            x = block.forward(x, pass)?;
            pass.trace(|| format!("down_blocks.{index}"), &x);
        }
        // After the way down, so that it runs on unchanged features.
        if let Some(residuals) = residuals {
            pass.add_to_skips(&residuals.down);
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(x, pass)?;
            pass.trace(|| "mid_block".to_owned(), &x);
        }
        if let Some(mid) = residuals.and_then(|residuals| residuals.mid.as_ref()) {
            x = pass.add(x, mid);
        }
        for (index, block) in self.up_blocks.iter().enumerate() {
            x = block.forward(x, pass)?;
            pass.trace(|| format!("up_blocks.{index}"), &x);
        }
        x = self.conv_norm_out.forward(x);
        pass.trace(|| "conv_norm_out".to_owned(), &x);
        Some(self.conv_out.forward(self.act.forward(x)))
    }
}

impl NoisePredictor for UNet {
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput {
        self.run(input, None)
    }

    fn attention_sites(&self) -> Vec<AttnSite> {
        self.sites.clone()
    }

    fn cross_attentions(&self) -> Vec<CrossAttention> {
        self.layers().map(|layer| layer.attn2.as_cross_attention()).collect()
    }

    fn levels(&self) -> usize {
        self.down_blocks.len()
    }

    fn in_channels(&self) -> usize {
        self.in_channels
    }

    fn working_bytes(&self, [rows, height, width]: [usize; 3]) -> u64 {
        let bytes = self.conv_in.weight.dtype().size();
        [rows, height, width, self.working_width, bytes].into_iter().map(|n| n as u64).product()
    }

    fn device(&self) -> Device {
        self.conv_in.weight.lazy_device()
    }
}

#[cfg(test)]
mod tests;
