//! Image-prompt layers of IPAdapter-Instruct for the joint attention of Stable Diffusion 3. The transformer
//! itself is not part of this library.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_core::attention::{AttnExtras, attend};
use fabric_models::layers::Linear;
use fabric_models::load::{LoadOptions, LoadReport, PublishedNames, TensorSource, load_into};

use crate::AdapterError;
use crate::projection::{InstructResampler, ResamplerConfig, published};

/// Image-prompt attention of one transformer block, applied after the block's own attention.
#[derive(Module, Debug)]
pub struct JointLayer {
    to_k_ip: Linear,
    to_v_ip: Linear,
    add_k_proj_ip: Linear,
    add_v_proj_ip: Linear,
    proj_ip: Linear,
    proj_encoder_hidden_states_ip: Linear,
    proj_encoder_passthrough_ip: Linear,
    heads: usize,
}

/// Attention state of a block before its output projections.
#[derive(Debug, Clone)]
pub struct JointState {
    /// Queries of the latents, `[rows, pixels, channels]`, heads not split.
    pub latent_query: Tensor<3>,
    /// Queries of the text, `[rows, tokens, channels]`.
    pub text_query: Tensor<3>,
    /// Attention result for the latents.
    pub latents: Tensor<3>,
    /// Attention result for the text.
    pub text: Tensor<3>,
    /// Image tokens at this block, `[rows, image_tokens, channels]`.
    pub image: Tensor<3>,
}

impl JointLayer {
    /// Creates random weights.
    pub fn new(channels: usize, heads: usize, device: &Device) -> Self {
        let linear = || Linear::new(channels, channels, false, device);
        Self {
            to_k_ip: linear(),
            to_v_ip: linear(),
            add_k_proj_ip: linear(),
            add_v_proj_ip: linear(),
            proj_ip: linear(),
            proj_encoder_hidden_states_ip: linear(),
            proj_encoder_passthrough_ip: linear(),
            heads,
        }
    }

    /// Adds the attention to the image tokens to the results for latents and text, and projects the image
    /// tokens for the next block. The block's output projections follow.
    ///
    /// Keys and values come from the attention result for the latents, not from the attention input: the
    /// published code calls this a mistake, but its weights were trained with it.
    pub fn forward(&self, state: JointState, scale: f64) -> JointState {
        let JointState { latent_query, text_query, latents, text, image } = state;
        let joined = |own: &Linear, added: &Linear| {
            Tensor::cat(vec![own.forward(latents.clone()), added.forward(image.clone())], 1)
        };
        let key = joined(&self.to_k_ip, &self.add_k_proj_ip);
        let value = joined(&self.to_v_ip, &self.add_v_proj_ip);
        let pixels = latent_query.dims()[1];
        let tokens = text_query.dims()[1];
        let query = Tensor::cat(vec![latent_query.clone(), text_query.clone()], 1);
        let seen = attend(query, key, value, self.heads, &AttnExtras::default());
        let [of_latents, of_text] =
            [(0, pixels), (pixels, tokens)].map(|(start, count)| seen.clone().narrow(1, start, count));
        JointState {
            latent_query,
            text_query,
            latents: latents + self.proj_ip.forward(of_latents) * scale,
            text: text + self.proj_encoder_hidden_states_ip.forward(of_text) * scale,
            image: self.proj_encoder_passthrough_ip.forward(image),
        }
    }
}

/// Weights of `ip-adapter-instruct-sd3`: the projection, and a layer for every second block of the transformer.
#[derive(Module, Debug)]
pub struct JointInstruct {
    /// Projects images, prompt and instruction to tokens, which the transformer's context embedder gets along
    /// with its text.
    pub(crate) projection: InstructResampler,
    /// Layers of blocks 0, 2, 4 and so on.
    pub layers: Vec<JointLayer>,
}

impl JointInstruct {
    /// Creates random weights. The published file has 12 layers of 1536 channels in 24 heads.
    pub fn new(
        resampler: &ResamplerConfig,
        text: usize,
        layers: usize,
        channels: usize,
        heads: usize,
        device: &Device,
    ) -> Self {
        Self {
            projection: InstructResampler::new(resampler, text, device),
            layers: (0..layers).map(|_| JointLayer::new(channels, heads, device)).collect(),
        }
    }

    /// Creates random weights with the sizes of the published file.
    pub fn published(device: &Device) -> Self {
        let resampler = ResamplerConfig {
            features: 1280,
            channels: 1280,
            heads: 20,
            depth: 4,
            factor: 4,
            tokens: 16,
            context: 4096,
        };
        Self::new(&resampler, 768, 12, 1536, 24, device)
    }

    /// Loads the tensors of a file.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing, unexpected, of another shape, or not finite.
    pub fn load(self, source: &dyn TensorSource, options: &LoadOptions) -> Result<(Self, LoadReport), AdapterError> {
        Ok(load_into(self, source, options)?)
    }
}

impl PublishedNames for JointInstruct {
    fn published_name(path: &str) -> String {
        match path.split_once('.') {
            Some(("projection", rest)) => {
                let name = published(&format!("Instruct.{rest}"));
                // The output layers have other names in this file.
                let renamed = name.replace("proj_out.", "proj_out_big.").replace("norm_out.", "norm_out_big.");
                format!("image_proj.{renamed}")
            }
            Some(("layers", rest)) => {
                let (index, rest) = rest.split_once('.').unwrap_or((rest, ""));
                format!("ip_adapter.{}.{rest}", 2 * index.parse::<usize>().unwrap_or(0))
            }
            _ => path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, activation::softmax};
    use fabric_models::layers::count_parameters;
    use fabric_models::load::parameters;

    use super::*;

    fn device() -> Device {
        fabric_backends::default_device().expect("a device")
    }

    fn random(shape: [usize; 3]) -> Tensor<3> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device())
    }

    #[test]
    fn the_published_file_has_its_size_and_names() {
        let module = JointInstruct::published(&device());
        let count = count_parameters(&module);
        assert_eq!((count.tensors, count.parameters), (227, 390_657_792));
        let names: Vec<String> = parameters(&module).into_iter().map(|one| one.name).collect();
        for name in [
            "image_proj.proj_out_big.weight",
            "image_proj.norm_out_big.bias",
            "image_proj.proj_new_input.weight",
            "ip_adapter.0.to_k_ip.weight",
            "ip_adapter.22.proj_encoder_passthrough_ip.weight",
        ] {
            assert!(names.iter().any(|got| got == name), "{name} is not among {names:?}");
        }
    }

    #[test]
    fn a_block_computes_what_the_published_code_does() {
        let layer = JointLayer::new(8, 1, &device());
        let state = JointState {
            latent_query: random([2, 5, 8]),
            text_query: random([2, 3, 8]),
            latents: random([2, 5, 8]),
            text: random([2, 3, 8]),
            image: random([2, 4, 8]),
        };
        let product = |x: &Tensor<3>, layer: &Linear| {
            x.clone().matmul(layer.weight.val().transpose().unsqueeze::<3>().expand([2, 8, 8]))
        };
        let got = layer.forward(state.clone(), 0.7);
        // Reference computation with one head.
        let key =
            Tensor::cat(vec![product(&state.latents, &layer.to_k_ip), product(&state.image, &layer.add_k_proj_ip)], 1);
        let value =
            Tensor::cat(vec![product(&state.latents, &layer.to_v_ip), product(&state.image, &layer.add_v_proj_ip)], 1);
        let query = Tensor::cat(vec![state.latent_query.clone(), state.text_query.clone()], 1);
        let weights = softmax(query.matmul(key.swap_dims(1, 2)) / 8_f64.sqrt(), 2);
        let seen = weights.matmul(value);
        let latents = state.latents.clone() + product(&seen.clone().narrow(1, 0, 5), &layer.proj_ip) * 0.7;
        let text = state.text.clone() + product(&seen.narrow(1, 5, 3), &layer.proj_encoder_hidden_states_ip) * 0.7;
        let image = product(&state.image, &layer.proj_encoder_passthrough_ip);
        for (got, expected) in [(got.latents, latents), (got.text, text), (got.image, image)] {
            let error: f32 = (got - expected).abs().max().into_scalar();
            assert!(error < 1e-5, "{error}");
        }
        // With scale 0, only the image tokens change.
        let off = layer.forward(state.clone(), 0.0);
        assert_eq!((off.latents - state.latents).abs().max().into_scalar::<f32>(), 0.0);
    }
}
