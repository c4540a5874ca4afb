//! Recognition of the kind of a file from its tensor names and shapes.

use std::collections::BTreeMap;
use std::fmt;

/// Kind of a file of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    SingleFile,
    Lora,
    IpAdapter,
    ControlNet,
    ControlLora,
    UNetSd1,
    UNetSd2,
    UNetXl,
    Vae,
    CompVisVae,
    TinyAutoencoder,
    TextEncoder,
    ImageEncoder,
}

impl Contents {
    /// Recognizes a file from its tensor names (in any order) and shapes; `None` if the kind is unknown.
    pub(crate) fn of<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Option<Self> {
        let tensors: BTreeMap<&str, &[usize]> = tensors.into_iter().collect();
        let starts = |prefix: &str| tensors.range(prefix..).next().is_some_and(|(name, _)| name.starts_with(prefix));
        let within = |part: &str| tensors.keys().any(|name| name.contains(part));
        // LoRA files with ComfyUI's names have this prefix, too.
        let is_lora = within("lora_up") || within("lora_A") || within("lora.up") || within("_lora.");
        if starts("model.diffusion_model.") && !is_lora {
            return Some(Self::SingleFile);
        }
        if tensors.contains_key("lora_controlnet") {
            return Some(Self::ControlLora);
        }
        if is_lora {
            return Some(Self::Lora);
        }
        if starts("ip_adapter.") || starts("image_proj.") {
            return Some(Self::IpAdapter);
        }
        if starts("controlnet_cond_embedding.") || starts("control_model.") {
            return Some(Self::ControlNet);
        }
        if starts("down_blocks.") && starts("time_embedding.") {
            let linear = tensors.iter().any(|(name, shape)| name.ends_with(".proj_in.weight") && shape.len() == 2);
            return Some(match (starts("add_embedding."), linear) {
                (true, _) => Self::UNetXl,
                (false, true) => Self::UNetSd2,
                (false, false) => Self::UNetSd1,
            });
        }
        let has = |name: &str| tensors.contains_key(name);
        let is_sequence = has("decoder.layers.0.weight") || has("0.weight") || has("1.weight");
        if is_sequence && tensors.keys().any(|name| name.ends_with(".conv.0.weight")) {
            return Some(Self::TinyAutoencoder);
        }
        let landmarks = [
            ("encoder.down_blocks.", Self::Vae),
            ("encoder.down.", Self::CompVisVae),
            ("text_model.", Self::TextEncoder),
            ("embeddings.token_embedding.", Self::TextEncoder),
            ("vision_model.", Self::ImageEncoder),
            ("embeddings.patch_embedding.", Self::ImageEncoder),
        ];
        landmarks.into_iter().find(|(prefix, _)| starts(prefix)).map(|(_, contents)| contents)
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SingleFile => "a single-file checkpoint (open it with `SingleFile`)",
            Self::Lora => "a LoRA",
            Self::IpAdapter => "an IP-Adapter",
            Self::ControlNet => "a ControlNet",
            Self::ControlLora => "a Control-LoRA (a ControlNet as low-rank differences from the U-Net)",
            Self::UNetSd1 => "the U-Net of Stable Diffusion 1",
            Self::UNetSd2 => "the U-Net of Stable Diffusion 2",
            Self::UNetXl => "the U-Net of Stable Diffusion XL",
            Self::Vae => "a VAE",
            Self::CompVisVae => "a VAE with the names of the original code (give it as `ModelOptions::vae`)",
            Self::TinyAutoencoder => "a tiny autoencoder (give it as `ModelOptions::preview_decoder`)",
            Self::TextEncoder => "a CLIP text encoder",
            Self::ImageEncoder => "a CLIP image encoder",
        })
    }
}
