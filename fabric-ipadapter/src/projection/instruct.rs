//! Resampler of all image tokens, conditioned on a prompt and an instruction.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use fabric_models::layers::Linear;

use super::perceiver::PerceiverLayer;
use super::resampler::{Reader, ResamplerConfig, queries, repeated};

/// Width of the feed-forward networks for prompt and instruction, as a multiple of their channels.
const SECOND_FACTOR: usize = 2;

/// [`Resampler`](super::Resampler) that also attends to a prompt and an instruction, which says which aspect of
/// the image is used.
///
/// It has three streams, as in the published code (`ResamplerInstructBigger`); the paper's figure shows two.
#[derive(Module, Debug)]
pub(crate) struct InstructResampler {
    /// The learned queries, `[1, tokens, channels]`.
    latents: Param<Tensor<3>>,
    body: Reader,
    proj_prompt: Linear,
    proj_instruction: Linear,
    prompt_layers: Vec<PerceiverLayer>,
    instruction_layers: Vec<PerceiverLayer>,
}

impl InstructResampler {
    /// Creates random weights. Prompt and instruction have `text` channels (768 for CLIP ViT-L).
    pub(crate) fn new(config: &ResamplerConfig, text: usize, device: &Device) -> Self {
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

    /// Replaces the last layers of the feed-forward networks for prompt and instruction. The published training
    /// starts with them close to zero.
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
    /// - `features`: `[images, tokens, features]`, the image encoder's penultimate layer
    /// - `prompt`, `instruction`: `[images, text_tokens, text]`, the text encoder's last layer, after the final
    ///   layer norm
    /// - returns: `[images, tokens, context]`
    pub(crate) fn forward(&self, features: Tensor<3>, prompt: Tensor<3>, instruction: Tensor<3>) -> Tensor<3> {
        let mut latents = repeated(&self.latents, features.dims()[0]);
        let streams = self.streams(features, prompt, instruction);
        for index in 0..self.body.layers.len() {
            for (layers, stream) in &streams {
                latents = layers[index].forward(stream.clone(), latents);
            }
        }
        self.body.out(latents)
    }

    /// Returns the attention output of the first layer of each stream (image, prompt, instruction), for
    /// inspection.
    ///
    /// # Shapes
    ///
    /// - as [`Self::forward`]
    /// - returns: `[images, tokens, channels]` each
    pub(crate) fn first_reads(&self, features: Tensor<3>, prompt: Tensor<3>, instruction: Tensor<3>) -> [Tensor<3>; 3] {
        let latents = repeated(&self.latents, features.dims()[0]);
        let streams = self.streams(features, prompt, instruction);
        streams.map(|(layers, stream)| layers[0].attention.forward(stream, latents.clone()))
    }

    /// Returns the layers of each stream with its projected input, in the order in which they run within a
    /// layer.
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
