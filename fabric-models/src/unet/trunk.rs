//! The part shared by U-Nets and control networks: time embedding, down path and middle block.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_core::models::{AddedConditions, UNetInput};

use super::UNetConfig;
use super::blocks::{Builder, DownBlock, MidBlock};
use super::pass::Pass;
use super::plan::Plan;
use super::time::{Sinusoid, TimestepEmbedding, guidance_embedding};
use super::transformer::{Transformer, TransformerBlock};
use crate::layers::{Activation, Conv2d, Trace, cast, computes_in, show};

/// Time embedding, down path and middle block.
#[derive(Module, Debug)]
pub(crate) struct Trunk {
    pub(crate) conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
    pub(crate) down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    #[module(skip)]
    pub(crate) act: Activation,
    #[module(skip)]
    time_proj: Sinusoid,
    #[module(skip)]
    add_time_proj: Option<Sinusoid>,
    /// Channels of the skip connections.
    #[module(skip)]
    pub(crate) skips: Vec<usize>,
    /// Channels of the down blocks.
    #[module(skip)]
    pub(crate) levels: Vec<usize>,
}

/// The inputs of a pass that become its time embedding.
pub(crate) struct TimeInputs<'a> {
    timesteps: &'a [f64],
    added: Option<AddedConditions>,
    guidance_scale: Option<f64>,
}

impl<'a> TimeInputs<'a> {
    pub(crate) fn of(input: &UNetInput<'a>) -> Self {
        let UNetInput { timesteps, added, guidance_scale, .. } = input;
        Self { timesteps, added: added.clone(), guidance_scale: *guidance_scale }
    }
}

impl Trunk {
    pub(crate) fn new(config: &UNetConfig, plan: &Plan, device: &Device) -> Self {
        let channels = &config.block_out_channels;
        let (flip_sin_to_cos, freq_shift) = (config.flip_sin_to_cos, config.freq_shift);
        let sinusoid = |dim| Sinusoid { dim, flip_sin_to_cos, freq_shift };
        let build = Builder { config, plan, device };
        Self {
            conv_in: Conv2d::new(config.in_channels, channels[0], config.conv_in_kernel, device),
            time_embedding: TimestepEmbedding::new(channels[0], plan.time_dim, config.act_fn, device)
                .with_condition(config.time_cond_proj_dim, device),
            add_embedding: plan
                .added
                .as_ref()
                .map(|added| TimestepEmbedding::new(added.inputs, plan.time_dim, Activation::Silu, device)),
            down_blocks: plan.down.iter().enumerate().map(|(index, block)| build.down(index, block)).collect(),
            mid_block: plan.mid.as_ref().map(|block| build.mid(block)),
            act: config.act_fn,
            time_proj: sinusoid(channels[0]),
            add_time_proj: plan.added.as_ref().map(|added| sinusoid(added.time_id_dim)),
            skips: plan.skips(),
            levels: plan.down.iter().map(|block| block.channels).collect(),
        }
    }

    /// Returns the width of the added conditions as a whole and of each embedded time id.
    pub(crate) fn added_widths(&self) -> Option<[usize; 2]> {
        let (embedding, sinusoid) = (self.add_embedding.as_ref()?, self.add_time_proj?);
        Some([embedding.inputs(), sinusoid.dim])
    }

    /// Returns the transformer layers in execution order.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &TransformerBlock> {
        let down = self.down_blocks.iter().map(|block| &block.attentions);
        let mid = self.mid_block.iter().map(|block| &block.attentions);
        down.chain(mid).flatten().flat_map(|attention: &Transformer| &attention.transformer_blocks)
    }

    /// Whether the time embedding is conditioned on the guidance scale.
    pub(crate) fn reads_guidance_scale(&self) -> bool {
        self.time_embedding.condition_dim().is_some()
    }

    /// Returns the time embedding for the resnets, including SDXL's added conditions: `[rows, time_dim]`.
    pub(crate) fn embed_time(&self, rows: usize, inputs: TimeInputs<'_>, trace: &mut Trace<'_>) -> Tensor<2> {
        let TimeInputs { timesteps, added, guidance_scale } = inputs;
        assert!(
            timesteps.len() == 1 || timesteps.len() == rows,
            "U-Net: {} timesteps for {rows} rows, expected 1 or one per row",
            timesteps.len()
        );
        let mut show = |name: &str, x: &Tensor<2>| {
            show(trace, || name.to_owned(), &x.clone().unsqueeze_dims(&[2, 3]));
        };
        let (device, compute) = (self.conv_in.weight.lazy_device(), computes_in(&self.conv_in.weight));
        let condition = self.time_embedding.condition_dim().zip(guidance_scale);
        let condition = condition.map(|(dim, scale)| cast(guidance_embedding(scale, dim, &device), compute));
        let time = cast(self.time_proj.embed(timesteps, &device), compute);
        let time = self.time_embedding.forward_with(time, condition);
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
        self.act.forward(time)
    }

    /// Runs the down path on the output of the first convolution, with one residual added per block, and leaves the
    /// skip connections in the pass. Returns `None` if the pass only records and has recorded everything.
    pub(crate) fn down(&self, mut x: Tensor<4>, added: &[Tensor<4>], pass: &mut Pass<'_>) -> Option<Tensor<4>> {
        pass.trace(|| "conv_in".to_owned(), &x);
        pass.skips.push(x.clone());
        for (index, block) in self.down_blocks.iter().enumerate() {
            x = block.forward(x, added.get(index), pass)?;
            pass.trace(|| format!("down_blocks.{index}"), &x);
        }
        Some(x)
    }

    /// Runs the middle block. Returns `None` as [`Self::down`].
    pub(crate) fn middle(&self, x: Tensor<4>, pass: &mut Pass<'_>) -> Option<Tensor<4>> {
        let Some(block) = &self.mid_block else { return Some(x) };
        let x = block.forward(x, pass)?;
        pass.trace(|| "mid_block".to_owned(), &x);
        Some(x)
    }
}
