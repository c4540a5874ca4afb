//! All tokens, under a prompt and an instruction.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use fabric_models::layers::Linear;

use super::perceiver::PerceiverLayer;
use super::resampler::{Reader, ResamplerConfig, queries, repeated};

/// Channels in the middle of the feed-forward networks of prompt and instruction, as a multiple.
const SECOND_FACTOR: usize = 2;

/// A [`Resampler`](super::Resampler) that also reads a prompt and an instruction, which says what of the image is meant.
///
/// Three streams, as in the published code (`ResamplerInstructBigger`); the paper's figure shows two.
#[derive(Module, Debug)]
pub struct InstructResampler {
    /// The learned queries, `[1, tokens, channels]`.
    latents: Param<Tensor<3>>,
    body: Reader,
    proj_prompt: Linear,
    proj_instruction: Linear,
    prompt_layers: Vec<PerceiverLayer>,
    instruction_layers: Vec<PerceiverLayer>,
}

impl InstructResampler {
    /// With random weights; prompt and instruction have `text` channels (768 of CLIP ViT-L).
    pub fn new(config: &ResamplerConfig, text: usize, device: &Device) -> Self {
        let layers = || {
            let layer = |_| PerceiverLayer::new(config.channels, config.heads, SECOND_FACTOR, device);
            (0..config.depth).map(layer).collect()
        };
        Self {
            latents: queries(config, device),
            body: Reader::new(config, device),
            proj_prompt: Linear::new(text, config.channels, true, device),
            proj_instruction: Linear::new(text, config.channels, true, device),
            prompt_layers: layers(),
            instruction_layers: layers(),
        }
    }

    /// The same with other last layers in the feed-forward networks that follow prompt and instruction: where published
    /// training begins, they hardly say anything.
    #[cfg(feature = "train")]
    pub(crate) fn with_quiet_instructions(mut self, mut quiet: impl FnMut(Linear) -> Linear) -> Self {
        for layers in [&mut self.prompt_layers, &mut self.instruction_layers] {
            let changed = std::mem::take(layers).into_iter().map(|mut layer| {
                layer.feed_forward = layer.feed_forward.with_contract(&mut quiet);
                layer
            });
            *layers = changed.collect();
        }
        self
    }

    /// # Shapes
    ///
    /// - `features`: `[images, tokens, features]`, the image encoder's last layer but one
    /// - `prompt`, `instruction`: `[images, text_tokens, text]`, the text encoder's last layer, normed
    /// - returns: `[images, tokens, context]`
    pub fn forward(&self, features: Tensor<3>, prompt: Tensor<3>, instruction: Tensor<3>) -> Tensor<3> {
        let mut latents = repeated(&self.latents, features.dims()[0]);
        let streams = self.streams(features, prompt, instruction);
        for index in 0..self.body.layers.len() {
            for (layers, stream) in &streams {
                latents = layers[index].forward(stream.clone(), latents);
            }
        }
        self.body.out(latents)
    }

    /// What the learned queries read in the first layer of each stream (image, prompt, instruction), to look inside.
    ///
    /// # Shapes
    ///
    /// - as [`Self::forward`]
    /// - returns: `[images, tokens, channels]` each
    pub fn first_reads(&self, features: Tensor<3>, prompt: Tensor<3>, instruction: Tensor<3>) -> [Tensor<3>; 3] {
        let latents = repeated(&self.latents, features.dims()[0]);
        let streams = self.streams(features, prompt, instruction);
        streams.map(|(layers, stream)| layers[0].attention.forward(stream, latents.clone()))
    }

    /// The layers that read each stream, and the stream as they read it, in the order in which a layer's parts run.
    fn streams(
        &self,
        features: Tensor<3>,
        prompt: Tensor<3>,
        instruction: Tensor<3>,
    ) -> [(&[PerceiverLayer], Tensor<3>); 3] {
        [
            (&self.body.layers, self.body.proj_in.forward(features)),
            (&self.prompt_layers, self.proj_prompt.forward(prompt)),
            (&self.instruction_layers, self.proj_instruction.forward(instruction)),
        ]
    }
}
