use std::fmt;

use serde_json::Value;

/// The generations of Stable Diffusion, which differ in their text encoders and in the U-Net's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// 1.1 to 1.5: CLIP ViT-L, convolutions around each transformer.
    Sd1,
    /// 2.0 and 2.1: OpenCLIP ViT-H, linear layers around each transformer.
    Sd2,
    /// XL: both CLIP ViT-L and OpenCLIP bigG, sizes and crops as a second condition.
    Sdxl,
}

impl Family {
    /// The family of a U-Net, from its `config.json`.
    ///
    /// SDXL is the one with `"addition_embed_type": "text_time"`; of the others, 2 has
    /// `"use_linear_projection": true`. Widths are not looked at, so small models have a family too.
    pub fn of_unet_config(config: &Value) -> Self {
        if config["addition_embed_type"] == "text_time" {
            Self::Sdxl
        } else if config["use_linear_projection"] == true {
            Self::Sd2
        } else {
            Self::Sd1
        }
    }

    /// The networks that a model of this family consists of.
    pub fn components(self) -> &'static [Component] {
        match self {
            Self::Sd1 | Self::Sd2 => &[Component::UNet, Component::Vae, Component::TextEncoder],
            Self::Sdxl => &[Component::UNet, Component::Vae, Component::TextEncoder, Component::TextEncoder2],
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sd1 => "Stable Diffusion 1",
            Self::Sd2 => "Stable Diffusion 2",
            Self::Sdxl => "Stable Diffusion XL",
        })
    }
}

/// The networks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The network that predicts noise.
    UNet,
    /// Between images and latents.
    Vae,
    /// The text encoder, or the first of two.
    TextEncoder,
    /// SDXL's second text encoder, with projection.
    TextEncoder2,
    /// A CLIP image encoder that travels with the model.
    ImageEncoder,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::UNet, Self::Vae, Self::TextEncoder, Self::TextEncoder2, Self::ImageEncoder];

    /// Its key in `model_index.json` and its folder.
    pub fn folder_name(self) -> &'static str {
        match self {
            Self::UNet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::ImageEncoder => "image_encoder",
        }
    }

    /// The Python library and class that `model_index.json` gives for it.
    pub fn python_class(self) -> [&'static str; 2] {
        match self {
            Self::UNet => ["diffusers", "UNet2DConditionModel"],
            Self::Vae => ["diffusers", "AutoencoderKL"],
            Self::TextEncoder => ["transformers", "CLIPTextModel"],
            Self::TextEncoder2 => ["transformers", "CLIPTextModelWithProjection"],
            Self::ImageEncoder => ["transformers", "CLIPVisionModelWithProjection"],
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder_name())
    }
}
