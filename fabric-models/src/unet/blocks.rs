//! Down, middle and up blocks.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_core::attention::Block;

use super::UNetConfig;
use super::pass::Pass;
use super::plan::{BlockPlan, Plan};
use super::transformer::{Transformer, TransformerConfig};
use crate::layers::{Downsample, Resnet, ResnetConfig, Upsample};

/// Builds the layers of a block from its plan.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a UNetConfig,
    pub(crate) plan: &'a Plan,
    pub(crate) device: &'a Device,
}

impl Builder<'_> {
    fn resnets(&self, block: &BlockPlan) -> Vec<Resnet> {
        let config = ResnetConfig {
            time_dim: Some(self.plan.time_dim),
            groups: self.config.norm_num_groups,
            epsilon: self.config.norm_eps,
            act: self.config.act_fn,
        };
        block.inputs.iter().map(|&inputs| config.init(inputs, block.channels, self.device)).collect()
    }

    fn attentions(&self, address: Block, block: &BlockPlan) -> Vec<Transformer> {
        let config = TransformerConfig {
            channels: block.channels,
            context_dim: block.context_dim,
            heads: block.heads,
            groups: self.config.norm_num_groups,
            linear: self.config.use_linear_projection,
            upcast: self.config.upcast_attention,
        };
        let depths = block.depths.iter().enumerate();
        depths.map(|(index, &depth)| config.init(address, index, depth, self.device)).collect()
    }

    pub(crate) fn down(&self, index: usize, block: &BlockPlan) -> DownBlock {
        let padding = self.config.downsample_padding;
        DownBlock {
            resnets: self.resnets(block),
            attentions: self.attentions(Block::Down(index), block),
            downsampler: block.resample.then(|| Downsample::new(block.channels, padding, self.device)),
        }
    }

    pub(crate) fn mid(&self, block: &BlockPlan) -> MidBlock {
        MidBlock { resnets: self.resnets(block), attentions: self.attentions(Block::Mid, block) }
    }

    pub(crate) fn up(&self, index: usize, block: &BlockPlan) -> UpBlock {
        UpBlock {
            resnets: self.resnets(block),
            attentions: self.attentions(Block::Up(index), block),
            upsampler: block.resample.then(|| Upsample::new(block.channels, self.device)),
        }
    }
}

/// Down block: one level of the down path; appends a skip connection after every layer.
#[derive(Module, Debug)]
pub(crate) struct DownBlock {
    resnets: Vec<Resnet>,
    pub(crate) attentions: Vec<Transformer>,
    downsampler: Option<Downsample>,
}

impl DownBlock {
    /// `added` is the residual of a T2I-Adapter. As in diffusers, it is added after the last transformer, or, in a
    /// block without transformers, at the end of the block and to its last skip connection.
    pub(crate) fn forward(
        &self,
        mut x: Tensor<4>,
        added: Option<&Tensor<4>>,
        pass: &mut Pass<'_>,
    ) -> Option<Tensor<4>> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, Some(&pass.time));
            if let Some(attention) = self.attentions.get(index) {
                x = attention.forward(x, pass)?;
            }
            if let Some(added) = added.filter(|_| index + 1 == self.attentions.len()) {
                x = pass.add(x, added);
            }
            pass.skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(x);
            pass.skips.push(x.clone());
        }
        if let Some(added) = added.filter(|_| self.attentions.is_empty()) {
            x = pass.add(x, added);
            pass.skips.pop();
            pass.skips.push(x.clone());
        }
        Some(x)
    }
}

/// Middle block at the lowest resolution: resnets with a transformer between each two.
#[derive(Module, Debug)]
pub(crate) struct MidBlock {
    resnets: Vec<Resnet>,
    pub(crate) attentions: Vec<Transformer>,
}

impl MidBlock {
    pub(crate) fn forward(&self, mut x: Tensor<4>, pass: &mut Pass<'_>) -> Option<Tensor<4>> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, Some(&pass.time));
            if let Some(attention) = self.attentions.get(index) {
                x = attention.forward(x, pass)?;
            }
        }
        Some(x)
    }
}

/// Up block: one level of the up path; every resnet consumes a skip connection.
#[derive(Module, Debug)]
pub(crate) struct UpBlock {
    resnets: Vec<Resnet>,
    pub(crate) attentions: Vec<Transformer>,
    upsampler: Option<Upsample>,
}

impl UpBlock {
    pub(crate) fn forward(&self, mut x: Tensor<4>, pass: &mut Pass<'_>) -> Option<Tensor<4>> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            let skip = pass.skips.pop().expect("as many skips as the way down left");
            x = resnet.forward(Tensor::cat(vec![x, skip], 1), Some(&pass.time));
            if let Some(attention) = self.attentions.get(index) {
                x = attention.forward(x, pass)?;
            }
        }
        if let Some(upsampler) = &self.upsampler {
            // Not always twice the size: one less where the down path rounded up.
            let [_, _, height, width] = pass.skips.last().expect("a skip of the next level").dims();
            x = upsampler.forward(x, [height, width]);
        }
        Some(x)
    }
}
