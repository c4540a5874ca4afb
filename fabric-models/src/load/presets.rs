//! Configurations of networks that were stored without a `config.json`.
//!
//! Widths, depths and channel counts are read from the tensor shapes; all other fields have the values of the
//! family's published files.

use std::collections::BTreeMap;

use fabric_core::schedule::Prediction;
use serde_json::{Value, json};

use super::{Component, Family, TensorInfo};

type Tensors = BTreeMap<String, TensorInfo>;

/// The U-Net's projection of the guidance scale, which latent consistency models have.
pub(super) const GUIDANCE_PROJECTION: &str = "time_embedding.cond_proj.weight";

/// Builds the configuration of a network with these tensors, with diffusers' field names.
pub(super) fn config(family: Family, prediction: Prediction, component: Component, tensors: &Tensors) -> Value {
    match component {
        Component::UNet => unet(family, prediction, tensors),
        Component::Vae => vae(family, tensors),
        Component::TextEncoder => text(tensors, family != Family::Sd2),
        Component::TextEncoder2 => text(tensors, false),
        Component::ImageEncoder => Value::Null,
    }
}

/// Length of one axis of a tensor; 0 if the tensor or axis does not exist, which no network accepts.
fn side(tensors: &Tensors, name: &str, axis: usize) -> usize {
    tensors.get(name).and_then(|info| info.shape.get(axis)).copied().unwrap_or(0)
}

/// Counts the tensors whose names are `pattern` with `{}` replaced by 0, 1, 2, ... without a gap.
fn count(tensors: &Tensors, pattern: &str) -> usize {
    let Some((before, after)) = pattern.split_once("{}") else {
        return 0;
    };
    (0..tensors.len()).take_while(|number| tensors.contains_key(&format!("{before}{number}{after}"))).count()
}

fn unet(family: Family, prediction: Prediction, tensors: &Tensors) -> Value {
    let mut config = way_down(family, tensors);
    let levels = config["block_out_channels"].as_array().map_or(0, Vec::len);
    config["_class_name"] = json!("UNet2DConditionModel");
    config["out_channels"] = json!(side(tensors, "conv_out.weight", 0));
    config["up_block_types"] = json!(block_types(tensors, "up", levels, "UpBlock2D", "CrossAttnUpBlock2D"));
    if tensors.contains_key(GUIDANCE_PROJECTION) {
        config["time_cond_proj_dim"] = json!(side(tensors, GUIDANCE_PROJECTION, 1));
    }
    if family == Family::Sdxl {
        config["reverse_transformer_layers_per_block"] = json!(depths(tensors, "up", levels));
    }
    config["sample_size"] = json!(match (family, prediction) {
        (Family::Sd1, _) | (Family::Sd2, Prediction::Epsilon) => 64,
        (Family::Sd2, _) => 96,
        (Family::Sdxl, _) => 128,
    });
    config
}

/// The fields of a U-Net's configuration that a ControlNet shares: time embedding, down path and mid block.
fn way_down(family: Family, tensors: &Tensors) -> Value {
    let levels = count(tensors, "down_blocks.{}.resnets.0.conv1.weight");
    let widths: Vec<usize> =
        (0..levels).map(|i| side(tensors, &format!("down_blocks.{i}.resnets.0.conv1.weight"), 0)).collect();
    // Stable Diffusion 2 and XL have 64 channels per head; 1 has 8 heads at every level. diffusers stores the number
    // of heads in `attention_head_dim` for historical reasons.
    let heads = match family {
        Family::Sd1 => json!(8),
        Family::Sd2 | Family::Sdxl => json!(widths.iter().map(|width| (width / 64).max(1)).collect::<Vec<_>>()),
    };
    let text = tensors.iter().find(|(name, _)| name.ends_with(".attn2.to_k.weight"));
    let has = |name: &str| tensors.contains_key(name);
    // Distilled networks (SSD-1B) have a mid block without attention, or no mid block.
    let mid = if has("mid_block.attentions.0.norm.weight") {
        Some("UNetMidBlock2DCrossAttn")
    } else {
        has("mid_block.resnets.0.conv1.weight").then_some("UNetMidBlock2D")
    };
    let xl = family == Family::Sdxl;
    json!({
        "act_fn": "silu",
        "addition_embed_type": xl.then_some("text_time"),
        "addition_time_embed_dim": xl.then_some(256),
        "attention_head_dim": heads,
        "block_out_channels": widths,
        "center_input_sample": false,
        "cross_attention_dim": text.and_then(|(_, info)| info.shape.get(1)).copied().unwrap_or(0),
        "down_block_types": block_types(tensors, "down", levels, "DownBlock2D", "CrossAttnDownBlock2D"),
        "downsample_padding": 1,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": side(tensors, "conv_in.weight", 1),
        "layers_per_block": count(tensors, "down_blocks.0.resnets.{}.conv1.weight"),
        "mid_block_scale_factor": 1,
        "mid_block_type": mid,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "projection_class_embeddings_input_dim": xl.then(|| side(tensors, "add_embedding.linear_1.weight", 1)),
        "transformer_layers_per_block": if xl { json!(depths(tensors, "down", levels)) } else { json!(1) },
        // 768-v needs this in f16; the base model works with it too.
        "upcast_attention": family == Family::Sd2,
        "use_linear_projection": family != Family::Sd1,
    })
}

/// Class of each block of the down path or the up path.
fn block_types<'a>(tensors: &Tensors, side: &str, levels: usize, plain: &'a str, attending: &'a str) -> Vec<&'a str> {
    let attends = |i: usize| tensors.contains_key(&format!("{side}_blocks.{i}.attentions.0.norm.weight"));
    (0..levels).map(|i| if attends(i) { attending } else { plain }).collect()
}

/// Transformer layers in the down path or the up path: for each level a number, or a list if its transformers differ.
fn depths(tensors: &Tensors, side: &str, levels: usize) -> Vec<Value> {
    let level = |i: usize| {
        let place = format!("{side}_blocks.{i}.attentions");
        let transformers = count(tensors, &format!("{place}.{{}}.norm.weight"));
        let depth = |j: usize| count(tensors, &format!("{place}.{j}.transformer_blocks.{{}}.norm1.weight"));
        let depths: Vec<usize> = (0..transformers).map(depth).collect();
        let first = depths.first().copied().unwrap_or(1);
        if depths.iter().all(|depth| *depth == first) { json!(first) } else { json!(depths) }
    };
    (0..levels).map(level).collect()
}

/// Builds the configuration of a ControlNet with these tensors.
pub(super) fn controlnet(tensors: &Tensors) -> Value {
    let linear = tensors.iter().any(|(name, info)| name.ends_with(".proj_in.weight") && info.shape.len() == 2);
    let family = match (tensors.keys().any(|name| name.starts_with("add_embedding.")), linear) {
        (true, _) => Family::Sdxl,
        (false, true) => Family::Sd2,
        (false, false) => Family::Sd1,
    };
    let mut config = way_down(family, tensors);
    let hint = |name: &str, axis| side(tensors, &format!("controlnet_cond_embedding.{name}.weight"), axis);
    let blocks = count(tensors, "controlnet_cond_embedding.blocks.{}.weight");
    // Every second block increases the number of channels.
    let widths = (1..blocks).step_by(2).map(|block| hint(&format!("blocks.{block}"), 0));
    let widths: Vec<usize> = std::iter::once(hint("conv_in", 0)).chain(widths).collect();
    config["_class_name"] = json!("ControlNetModel");
    config["conditioning_channels"] = json!(hint("conv_in", 1));
    config["conditioning_embedding_out_channels"] = json!(widths);
    config
}

fn vae(family: Family, tensors: &Tensors) -> Value {
    let levels = count(tensors, "encoder.down_blocks.{}.resnets.0.conv1.weight");
    let widths: Vec<usize> =
        (0..levels).map(|i| side(tensors, &format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0)).collect();
    json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "force_upcast": family == Family::Sdxl,
        "in_channels": side(tensors, "encoder.conv_in.weight", 1),
        "latent_channels": side(tensors, "decoder.conv_in.weight", 1),
        "layers_per_block": count(tensors, "encoder.down_blocks.0.resnets.{}.conv1.weight"),
        "norm_num_groups": 32,
        "out_channels": side(tensors, "decoder.conv_out.weight", 0),
        "sample_size": match family { Family::Sd1 => 512, Family::Sd2 => 768, Family::Sdxl => 1024 },
        "scaling_factor": if family == Family::Sdxl { 0.13025 } else { 0.18215 },
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
    })
}

/// Configuration of a text encoder. `quick` is true for OpenAI's CLIP, which uses quick GELU, and false for OpenCLIP.
fn text(tensors: &Tensors, quick: bool) -> Value {
    let width = side(tensors, "text_model.embeddings.token_embedding.weight", 1);
    let projection = side(tensors, "text_projection.weight", 0);
    json!({
        "architectures": [if projection > 0 { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
        "model_type": "clip_text_model",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": if quick { "quick_gelu" } else { "gelu" },
        "hidden_size": width,
        "intermediate_size": side(tensors, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": side(tensors, "text_model.embeddings.position_embedding.weight", 0),
        "num_attention_heads": (width / 64).max(1),
        "num_hidden_layers": count(tensors, "text_model.encoder.layers.{}.layer_norm1.weight"),
        "pad_token_id": 1,
        "projection_dim": if projection > 0 { projection } else { width },
        "vocab_size": side(tensors, "text_model.embeddings.token_embedding.weight", 0),
    })
}

/// Builds the configuration of a whole CLIP model with these tensors.
///
/// They show every size except the numbers of heads, and not the activation function. OpenAI published models up to
/// ViT-L, with quick GELU; wider ones are OpenCLIP's, with GELU.
pub(super) fn clip_model(tensors: &Tensors) -> Value {
    let patches = "vision_model.embeddings.patch_embedding.weight";
    let (width, patch) = (side(tensors, patches, 0), side(tensors, patches, 2));
    let positions = side(tensors, "vision_model.embeddings.position_embedding.weight", 0);
    let quick = width <= 1024;
    json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": side(tensors, "visual_projection.weight", 0),
        "text_config": text(tensors, quick),
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_act": if quick { "quick_gelu" } else { "gelu" },
            "hidden_size": width,
            // One position is that of the class token.
            "image_size": positions.saturating_sub(1).isqrt().saturating_mul(patch),
            "intermediate_size": side(tensors, "vision_model.encoder.layers.0.mlp.fc1.weight", 0),
            "layer_norm_eps": 1e-5,
            "num_attention_heads": (width / 64).clamp(1, MOST_VISION_HEADS),
            "num_channels": side(tensors, patches, 1),
            "num_hidden_layers": count(tensors, "vision_model.encoder.layers.{}.layer_norm1.weight"),
            "patch_size": patch,
        },
    })
}

/// Heads of CLIP's image encoders from ViT-L on; wider ones have wider heads (80 channels in ViT-H, 104 in ViT-bigG).
const MOST_VISION_HEADS: usize = 16;

/// Scheduler configuration that the family was published with, for a network with this prediction type.
pub(super) fn scheduler(family: Family, prediction: Prediction, zero_terminal_snr: bool, is_lcm: bool) -> Value {
    let class = match family {
        _ if is_lcm => "LCMScheduler",
        Family::Sd1 => "PNDMScheduler",
        Family::Sd2 => "DDIMScheduler",
        Family::Sdxl => "EulerDiscreteScheduler",
    };
    json!({
        "_class_name": class,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": zero_terminal_snr,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    })
}
