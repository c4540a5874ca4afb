use std::fmt;

use serde_json::Value;

/// Generation of Stable Diffusion. The generations differ in their text encoders and in the attention of the U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Stable Diffusion 1.1 to 1.5: CLIP ViT-L, convolutional projections around each transformer.
    Sd1,
    /// Stable Diffusion 2.0 and 2.1: OpenCLIP ViT-H, linear projections around each transformer.
    Sd2,
    /// Stable Diffusion XL: CLIP ViT-L and OpenCLIP bigG, size and crop conditioning.
    Sdxl,
}

impl Family {
    /// Recognizes the family of a U-Net from its `config.json`.
    ///
    /// SDXL has `"addition_embed_type": "text_time"`; otherwise, Stable Diffusion 2 has
    /// `"use_linear_projection": true`. Channel counts are ignored, so small test models have a family too.
    pub fn of_unet_config(config: &Value) -> Self {
        if config["addition_embed_type"] == "text_time" {
            Self::Sdxl
        } else if config["use_linear_projection"] == true {
            Self::Sd2
        } else {
            Self::Sd1
        }
    }

    /// Networks that a model of this family requires.
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

/// Network of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// U-Net.
    UNet,
    /// VAE, which encodes images to latents and decodes latents to images.
    Vae,
    /// Text encoder, or the first of SDXL's two.
    TextEncoder,
    /// SDXL's second text encoder, with projection.
    TextEncoder2,
    /// CLIP image encoder that is stored with the model.
    ImageEncoder,
}

impl Component {
    /// All components.
    pub const ALL: [Self; 5] = [Self::UNet, Self::Vae, Self::TextEncoder, Self::TextEncoder2, Self::ImageEncoder];

    /// Key in `model_index.json` and name of the folder.
    pub fn folder_name(self) -> &'static str {
        match self {
            Self::UNet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::ImageEncoder => "image_encoder",
        }
    }

    /// Name of the folder with the tokenizer of a text encoder; `None` for other networks.
    pub fn tokenizer_folder_name(self) -> Option<&'static str> {
        match self {
            Self::TextEncoder => Some("tokenizer"),
            Self::TextEncoder2 => Some("tokenizer_2"),
            Self::UNet | Self::Vae | Self::ImageEncoder => None,
        }
    }

    /// Python library and class in `model_index.json`.
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
