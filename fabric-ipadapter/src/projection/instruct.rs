use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use fabric_models::layers::Linear;

use super::perceiver::PerceiverLayer;
use super::resampler::{Reader, ResamplerConfig, queries, repeated};

/// Channels in the middle of the feed-forward networks of prompt and instruction, as a multiple.
const SECOND_FACTOR: usize = 2;

/// A [`Resampler`](super::Resampler) that also reads a prompt and an instruction, which says what of the picture is meant.
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

    /// # Shapes
    ///
    /// - `features`: `[images, tokens, features]`, the image encoder's last layer but one
    /// - `prompt`, `instruction`: `[images, text_tokens, text]`, the text encoder's last layer, normed
    /// - returns: `[images, tokens, context]`
    pub fn forward(&self, features: Tensor<3>, prompt: Tensor<3>, instruction: Tensor<3>) -> Tensor<3> {
        self.forward_traced(features, prompt, instruction, &mut |_, _| ())
    }

    /// [`Self::forward`] that also shows what each layer reads, by name: `layer0/image_attn`, `layer0/prompt_attn`,
    /// `layer0/instruct_attn`, in the order in which they run.
    pub fn forward_traced(
        &self,
        features: Tensor<3>,
        prompt: Tensor<3>,
        instruction: Tensor<3>,
        trace: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let mut latents = repeated(&self.latents, features.dims()[0]);
        let streams = [
            ("image", &self.body.layers, self.body.proj_in.forward(features)),
            ("prompt", &self.prompt_layers, self.proj_prompt.forward(prompt)),
            ("instruct", &self.instruction_layers, self.proj_instruction.forward(instruction)),
        ];
        for index in 0..self.body.layers.len() {
            for (name, layers, stream) in &streams {
                let read = layers[index].attention.forward(stream.clone(), latents.clone());
                trace(&format!("layer{index}/{name}_attn"), &read);
                latents = layers[index].add(latents, read);
            }
        }
        self.body.out(latents)
    }
}
