//! Parsing of LoRA keys to network, module and matrix.

use super::LoraLayout;
use crate::load::Component;

/// Role of a tensor in a low-rank product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `[rank, in, ..]`.
    Down,
    /// `[out, rank, ..]`.
    Up,
    /// A number; the product is scaled by `alpha / rank`.
    Alpha,
}

/// Parsed LoRA key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoraKey {
    pub(super) part: Component,
    /// Module within its network: the published name (`mid_block.attentions.0.proj_in`), or with underscores instead
    /// of dots.
    pub(super) target: String,
    pub(super) role: Role,
    /// `None` for an alpha, which has the same name in all layouts.
    pub(super) layout: Option<LoraLayout>,
}

/// Kind of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Lora(LoraKey),
    /// Part of an adaptation that is not a plain product of two matrices.
    Unsupported(&'static str),
    Unknown,
}

/// Suffixes of keys. The last two have no dot before `_lora` (`to_q_lora`) and are tried last.
const ENDINGS: [(&str, Role, LoraLayout); 12] = [
    (".lora_down.weight", Role::Down, LoraLayout::Kohya),
    (".lora_up.weight", Role::Up, LoraLayout::Kohya),
    (".lora_A.weight", Role::Down, LoraLayout::Peft),
    (".lora_B.weight", Role::Up, LoraLayout::Peft),
    (".lora_A.default.weight", Role::Down, LoraLayout::Peft),
    (".lora_B.default.weight", Role::Up, LoraLayout::Peft),
    (".lora.down.weight", Role::Down, LoraLayout::Diffusers),
    (".lora.up.weight", Role::Up, LoraLayout::Diffusers),
    (".lora_linear_layer.down.weight", Role::Down, LoraLayout::Diffusers),
    (".lora_linear_layer.up.weight", Role::Up, LoraLayout::Diffusers),
    ("_lora.down.weight", Role::Down, LoraLayout::AttnProcessors),
    ("_lora.up.weight", Role::Up, LoraLayout::AttnProcessors),
];

/// Prefixes of keys.
const BEGINNINGS: [(&str, Component); 12] = [
    ("lora_unet_", Component::UNet),
    ("lora_te_", Component::TextEncoder),
    ("lora_te1_", Component::TextEncoder),
    ("lora_te2_", Component::TextEncoder2),
    ("unet.", Component::UNet),
    ("text_encoder.", Component::TextEncoder),
    ("text_encoder_2.", Component::TextEncoder2),
    // ComfyUI's names.
    ("diffusion_model.", Component::UNet),
    ("model.diffusion_model.", Component::UNet),
    ("text_encoders.clip_l.transformer.", Component::TextEncoder),
    ("text_encoders.clip_h.transformer.", Component::TextEncoder),
    ("text_encoders.clip_g.transformer.", Component::TextEncoder2),
];

/// Parts of keys by which other kinds of adaptation are recognized, with their descriptions.
const OTHER_KINDS: [(&str, &str); 15] = [
    (".dora_scale", "DoRA, which also scales each row"),
    (".lora_magnitude_vector", "DoRA, which also scales each row"),
    (".hada_", "LoHa, a product element by element"),
    (".lokr_", "LoKr, a Kronecker product"),
    (".lora_mid", "a LoCon with a third matrix (Tucker decomposition)"),
    (".oft_", "OFT, a rotation of the weights"),
    (".lora_embedding_", "a LoRA of an embedding table"),
    (".lora_A.bias", "a LoRA with biases"),
    (".lora_B.bias", "a LoRA with biases"),
    (".lora_down.bias", "a LoRA with biases"),
    (".lora_up.bias", "a LoRA with biases"),
    (".w_norm", "differences of norms"),
    (".b_norm", "differences of norms"),
    (".on_input", "(IA)³, which scales activations"),
    ("bundle_emb.", "a LoRA bundled with a textual inversion"),
];

/// Suffixes by which other kinds are recognized. Only as suffixes, because `.diffusion_model` contains `.diff`.
const OTHER_ENDINGS: [(&str, &str); 3] = [
    (".diff", "whole differences of weights"),
    (".diff_b", "whole differences of weights"),
    (".diff.weight", "whole differences of weights"),
];

impl Key {
    pub(super) fn parse(key: &str) -> Self {
        let other_kind = OTHER_KINDS.iter().find(|(part, _)| key.contains(part));
        let other_ending = || OTHER_ENDINGS.iter().find(|(ending, _)| key.ends_with(ending));
        if let Some((_, kind)) = other_kind.or_else(other_ending) {
            return Self::Unsupported(kind);
        }
        let Some((module, role, layout)) = split_ending(key) else { return Self::Unknown };
        let module = module.strip_prefix("base_model.model.").unwrap_or(module);
        let begins = |(prefix, part): &(&str, Component)| Some((module.strip_prefix(prefix)?, *part));
        let (module, part) = BEGINNINGS.iter().find_map(begins).unwrap_or_else(|| {
            // Keys of files that were saved from a single network have no prefix.
            let text = module.starts_with("text_model.") || module.starts_with(BARE_TEXT[0]);
            (module, if text { Component::TextEncoder } else { Component::UNet })
        });
        if module.is_empty() {
            return Self::Unknown;
        }
        let target = match layout {
            Some(LoraLayout::AttnProcessors) => projection_of(module),
            _ => module.to_owned(),
        };
        let target = if part == Component::UNet { target } else { with_text_prefix(target) };
        Self::Lora(LoraKey { part, target, role, layout: layout.filter(|_| role != Role::Alpha) })
    }
}

/// Prefixes of text encoder names in transformers 5, which omits `text_model.`: with dots, and in kohya's form.
const BARE_TEXT: [&str; 2] = ["encoder.layers.", "encoder_layers_"];

/// Adds the prefix `text_model` to the name of a text encoder module if it is missing.
fn with_text_prefix(target: String) -> String {
    match BARE_TEXT.iter().position(|beginning| target.starts_with(beginning)) {
        Some(0) => format!("text_model.{target}"),
        Some(_) => format!("text_model_{target}"),
        None => target,
    }
}

fn split_ending(key: &str) -> Option<(&str, Role, Option<LoraLayout>)> {
    if let Some(module) = key.strip_suffix(".alpha") {
        if let Some(module) = module.strip_suffix("_lora") {
            return Some((module, Role::Alpha, Some(LoraLayout::AttnProcessors)));
        }
        let module =
            [".lora", ".lora_linear_layer"].iter().find_map(|part| module.strip_suffix(part)).unwrap_or(module);
        return Some((module, Role::Alpha, None));
    }
    ENDINGS.iter().find_map(|(ending, role, layout)| Some((key.strip_suffix(ending)?, *role, Some(*layout))))
}

/// Converts the key of an attention processor, which contains the matrices of all four projections, to the name of
/// the adapted projection layer.
fn projection_of(module: &str) -> String {
    let Some((layer, projection)) = module.rsplit_once('.') else { return module.to_owned() };
    let layer = layer.strip_suffix(".processor").unwrap_or(layer);
    let clip = layer.ends_with(".self_attn");
    let projection = match projection {
        "to_q" if clip => "q_proj",
        "to_k" if clip => "k_proj",
        "to_v" if clip => "v_proj",
        "to_out" if clip => "out_proj",
        "to_out" => "to_out.0",
        other => other,
    };
    format!("{layer}.{projection}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> (Component, String, Role) {
        match Key::parse(text) {
            Key::Lora(LoraKey { part, target, role, .. }) => (part, target, role),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn keys_of_every_layout_name_their_weight() {
        use Component::{TextEncoder, TextEncoder2, UNet};
        use Role::{Alpha, Down, Up};
        let cases = [
            ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", UNet, "mid_block_attentions_0_proj_in", Down),
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
                TextEncoder,
                "text_model_encoder_layers_0_mlp_fc1",
                Alpha,
            ),
            ("lora_te1_text_model_x.lora_up.weight", TextEncoder, "text_model_x", Up),
            ("lora_te2_text_projection.lora_up.weight", TextEncoder2, "text_projection", Up),
            ("unet.a.attn1.to_out.0.lora_A.weight", UNet, "a.attn1.to_out.0", Down),
            ("base_model.model.a.attn1.to_q.lora_B.default.weight", UNet, "a.attn1.to_q", Up),
            ("text_encoder_2.text_model.a.lora_B.weight", TextEncoder2, "text_model.a", Up),
            ("text_encoder.text_model.a.q_proj.lora_linear_layer.up.weight", TextEncoder, "text_model.a.q_proj", Up),
            ("text_model.a.q_proj.lora_A.weight", TextEncoder, "text_model.a.q_proj", Down),
            ("unet.a.to_q.lora.down.weight", UNet, "a.to_q", Down),
            ("unet.a.to_q.alpha", UNet, "a.to_q", Alpha),
            ("unet.a.to_q.lora.alpha", UNet, "a.to_q", Alpha),
            ("a.attn1.processor.to_out_lora.up.weight", UNet, "a.attn1.to_out.0", Up),
            ("unet.a.attn2.processor.to_k_lora.down.weight", UNet, "a.attn2.to_k", Down),
            ("unet.a.attn2.processor.to_k_lora.alpha", UNet, "a.attn2.to_k", Alpha),
            ("text_encoder.t.self_attn.to_out_lora.down.weight", TextEncoder, "t.self_attn.out_proj", Down),
            ("diffusion_model.input_blocks.4.1.proj_in.lora_up.weight", UNet, "input_blocks.4.1.proj_in", Up),
            ("diffusion_model.input_blocks.4.1.proj_in.alpha", UNet, "input_blocks.4.1.proj_in", Alpha),
            ("model.diffusion_model.out.2.lora_A.weight", UNet, "out.2", Down),
            ("text_encoders.clip_l.transformer.text_model.a.lora_down.weight", TextEncoder, "text_model.a", Down),
            ("text_encoders.clip_g.transformer.text_projection.lora_up.weight", TextEncoder2, "text_projection", Up),
            ("text_encoder.encoder.layers.0.a.lora_A.weight", TextEncoder, "text_model.encoder.layers.0.a", Down),
            ("base_model.model.encoder.layers.0.a.lora_B.weight", TextEncoder, "text_model.encoder.layers.0.a", Up),
            ("lora_te2_encoder_layers_0_a.lora_up.weight", TextEncoder2, "text_model_encoder_layers_0_a", Up),
        ];
        for (text, part, target, role) in cases {
            assert_eq!(key(text), (part, target.to_owned(), role), "{text}");
        }
    }

    #[test]
    fn other_adaptations_are_named() {
        for (text, word) in [
            ("lora_unet_a.dora_scale", "DoRA"),
            ("lora_unet_a.hada_w1_a", "LoHa"),
            ("lora_unet_a.lokr_w2", "LoKr"),
            ("lora_unet_a.lora_mid.weight", "Tucker"),
            ("lora_unet_a.diff_b", "differences"),
            ("diffusion_model.a.diff", "differences"),
            ("unet.a.lora_B.bias", "biases"),
        ] {
            assert!(matches!(Key::parse(text), Key::Unsupported(kind) if kind.contains(word)), "{text}");
        }
        assert_eq!(Key::parse("conv_in.weight"), Key::Unknown);
        assert_eq!(Key::parse("model.diffusion_model.input_blocks.0.0.weight"), Key::Unknown);
        assert_eq!(Key::parse("lora_unet_.lora_up.weight"), Key::Unknown);
    }
}
