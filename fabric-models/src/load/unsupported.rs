//! Recognition of unsupported checkpoints with the names of the original code.

use std::collections::BTreeMap;

use super::TensorInfo;

const UNET: &str = "model.diffusion_model.";

/// Description of an unsupported checkpoint, and advice for the error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsupported {
    pub(super) got: &'static str,
    pub(super) next: &'static str,
}

/// Recognizes checkpoints that would be mistaken for Stable Diffusion 1, 2 or XL: their tensors have the same names,
/// but the network or the meaning of its output differs.
pub(super) fn unsupported(tensors: &BTreeMap<String, TensorInfo>) -> Option<Unsupported> {
    let has = |name: &str| tensors.contains_key(name);
    let starts = |prefix: &str| tensors.range(prefix.to_owned()..).next().is_some_and(|(n, _)| n.starts_with(prefix));
    let within = |part: &str| tensors.keys().any(|name| name.starts_with(UNET) && name.contains(part));
    let is = |got, next| Some(Unsupported { got, next });

    // These models have other noise levels or latents, which the names of the weights do not show.
    if has("edm_mean") || has("edm_std") {
        return is(
            "a model in EDM's parameterisation (`edm_mean`, `edm_std`: Playground v2.5)",
            "its prediction and latents are scaled in another way, which is not supported: use a model that predicts noise or velocity",
        );
    }
    if starts("edm_vpred.") {
        return is(
            "a model in EDM's parameterisation of velocity (`edm_vpred.sigma_max`: CosXL)",
            "its noise levels are of another kind, which is not supported: use a model that predicts noise or velocity",
        );
    }
    // These models have conditioning inputs that our U-Net does not have.
    let base = "use the base model";
    if starts("noise_augmentor.") || starts("embedder.") || (within("label_emb.") && starts("cond_stage_model.")) {
        return is("Stable Diffusion 2.1 unCLIP, which reads the embedding of an image", base);
    }
    if has("model.diffusion_model.label_emb.weight") {
        return is("the Stable Diffusion x4 upscaler", base);
    }
    if within(".time_stack.") || within(".time_mixer.") {
        return is("Stable Video Diffusion", "use a model of images");
    }
    if starts("cc_projection.") {
        return is("Zero-1-to-3, which reads the embedding of an image", base);
    }
    if starts("conditioner.embedders.0.model.") {
        return is("the SDXL refiner", "the refiner is not supported: use the base model");
    }
    let inputs = tensors.get("model.diffusion_model.input_blocks.0.0.weight").and_then(|info| info.shape.get(1));
    let latents = tensors.get("first_stage_model.post_quant_conv.weight").and_then(|info| info.shape.first());
    match inputs {
        // Only valid for 4 latent channels; a model with other latents may have 5 or 8 input channels by itself.
        Some(5) if latents.is_none_or(|latents| *latents == 4) => {
            is("Stable Diffusion 2 depth, which reads a depth map beside the latents", base)
        }
        Some(8) if latents.is_none_or(|latents| *latents == 4) => {
            is("InstructPix2Pix, or another model that reads an image beside the latents", base)
        }
        _ => None,
    }
}
