//! Checks that the sizes of a model's networks match, so that a mismatch is reported before a run starts.

use fabric_core::models::{Autoencoder, LatentDecoder, UNetModel};

use super::ModelError;
use crate::clip::ClipText;
use crate::tiny_vae::TinyDecoder;
use crate::unet::UNet;
use crate::vae::Vae;

/// Number of time ids of Stable Diffusion XL (original size, crop offset, target size).
const TIME_IDS: usize = 6;

/// Text encoder with the length of its tokenizer window.
pub(super) struct TextPart<'a> {
    pub(super) encoder: &'a ClipText,
    pub(super) window: usize,
}

/// Checks the sizes of all tensors that one network passes to another. `pooled` says whether the U-Net also receives
/// the projected pooled embedding of the last text encoder (SDXL). `preview` is the decoder of previews, if there is one.
pub(super) fn check(
    unet: &UNet,
    vae: &Vae,
    texts: &[TextPart<'_>],
    pooled: bool,
    preview: Option<&TinyDecoder>,
) -> Result<(), ModelError> {
    let preview = preview.and_then(|decoder| previews(vae, decoder));
    let faults = [context(unet, texts), windows(texts), added(unet, texts, pooled), latents(unet, vae), preview];
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    if faults.is_empty() { Ok(()) } else { Err(ModelError::Unfit { faults }) }
}

/// Checks the width of the cross-attention context: the concatenated channels of all text encoders.
fn context(unet: &UNet, texts: &[TextPart<'_>]) -> Option<String> {
    let given: usize = texts.iter().map(|text| text.encoder.channels()).sum();
    let layers = unet.cross_attentions();
    let expected = layers.iter().map(|layer| layer.context).find(|expected| *expected != given)?;
    let parts: Vec<String> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| format!("`{}` {}", name(index), text.encoder.channels()))
        .collect();
    Some(format!("`unet` reads text of {expected} channels, got {given} ({})", parts.join(", ")))
}

/// Checks that all text encoders have the same window, as their hidden states are concatenated token by token.
fn windows(texts: &[TextPart<'_>]) -> Option<String> {
    let first = texts.first()?.window;
    let (index, other) = texts.iter().enumerate().find(|(_, text)| text.window != first)?;
    let (name, got) = (name(index), other.window);
    Some(format!("`text_encoder` reads {first} tokens at once, expected {first} of `{name}` too, got {got}"))
}

/// Checks the width of SDXL's added conditions: the pooled text embedding and the time ids.
fn added(unet: &UNet, texts: &[TextPart<'_>], pooled: bool) -> Option<String> {
    let name = name(texts.len().saturating_sub(1));
    let text = texts.last().filter(|_| pooled).and_then(|text| text.encoder.projection());
    match (unet.added_widths(), text) {
        (Some(_), None) => {
            Some(format!("`unet` reads a projected pooled text, got `{name}` without `text_projection`"))
        }
        (Some([inputs, time_id]), Some(text)) if text + TIME_IDS * time_id != inputs => Some(format!(
            "`unet` reads {inputs} channels of pooled text and sizes (`projection_class_embeddings_input_dim`), got {} \
             ({text} of `{name}` and {TIME_IDS} times {time_id}, its `addition_time_embed_dim`)",
            text + TIME_IDS * time_id
        )),
        _ => None,
    }
}

/// Checks the latent channels. An inpainting U-Net also takes a mask and the latents of the masked image.
fn latents(unet: &UNet, vae: &Vae) -> Option<String> {
    let (takes, makes, latents) = (unet.in_channels(), unet.out_channels(), vae.latent_channels());
    if (takes == latents || takes == 2 * latents + 1) && makes == latents {
        return None;
    }
    Some(format!(
        "`vae` has latents of {latents} channels, expected a `unet` that takes {latents} (or {} for inpainting) and \
         predicts {latents}, got {takes} and {makes}",
        2 * latents + 1
    ))
}

/// Checks that the decoder of previews reads the VAE's latents.
fn previews(vae: &Vae, decoder: &TinyDecoder) -> Option<String> {
    let sizes = |channels, pixels| format!("latents of {channels} channels with {pixels}x{pixels} pixels each");
    let expected = sizes(vae.latent_channels(), vae.scale_factor());
    let got = sizes(decoder.latent_channels(), decoder.scale_factor());
    (got != expected).then(|| format!("the preview decoder reads {got}, expected those of `vae`: {expected}"))
}

/// Returns the folder name of a text encoder.
fn name(index: usize) -> &'static str {
    if index == 0 { "text_encoder" } else { "text_encoder_2" }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use fabric_backends::{DeviceKind, device};

    use super::*;
    use crate::clip::ClipTextConfig;
    use crate::config::OneOrMany;
    use crate::tiny_vae::TinyAutoencoderConfig;
    use crate::unet::{Depths, UNetConfig};
    use crate::vae::VaeConfig;

    fn cpu() -> Device {
        device(DeviceKind::Flex).expect("the CPU")
    }

    fn text(hidden_size: usize, projection: Option<usize>) -> ClipText {
        let config = ClipTextConfig {
            hidden_size,
            projection_dim: projection.unwrap_or(1),
            num_attention_heads: 1,
            architectures: projection.map(|_| "CLIPTextModelWithProjection".to_owned()).into_iter().collect(),
            ..ClipTextConfig::default()
        };
        config.init(&cpu()).expect("a network")
    }

    fn vae() -> Vae {
        VaeConfig::sd15().init(&cpu()).expect("a network")
    }

    fn sd1(change: impl FnOnce(&mut UNetConfig)) -> UNet {
        let mut config = UNetConfig::sd15();
        change(&mut config);
        config.init(&cpu()).expect("a network")
    }

    /// Returns SDXL's U-Net for text encoders of 8 and 24 channels, the second with a projection to 16.
    fn xl() -> UNet {
        let config = UNetConfig {
            cross_attention_dim: OneOrMany::One(32),
            transformer_layers_per_block: Depths::Same(1),
            addition_time_embed_dim: Some(8),
            projection_class_embeddings_input_dim: Some(16 + 6 * 8),
            ..UNetConfig::sdxl()
        };
        config.init(&cpu()).expect("a network")
    }

    /// Asserts that the check fails with a message that contains all of `said`.
    #[track_caller]
    fn refused(result: Result<(), ModelError>, said: &[&str]) {
        let message = result.expect_err("parts that do not fit").to_string();
        assert!(message.contains("take all of them from one model"), "{message}");
        for part in said {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }

    fn parts<'a>(encoders: &[&'a ClipText]) -> Vec<TextPart<'a>> {
        encoders.iter().map(|&encoder| TextPart { encoder, window: encoder.max_tokens() }).collect()
    }

    #[test]
    fn parts_of_one_model_belong_together() {
        let clip = text(768, None);
        assert!(check(&sd1(|_| {}), &vae(), &parts(&[&clip]), false, None).is_ok());
        assert!(check(&sd1(|unet| unet.in_channels = 9), &vae(), &parts(&[&clip]), false, None).is_ok());
        let (first, second) = (text(8, None), text(24, Some(16)));
        assert!(check(&xl(), &vae(), &parts(&[&first, &second]), true, None).is_ok());
    }

    #[test]
    fn every_pair_of_parts_that_do_not_belong_together_is_named_with_both_widths() {
        let wide = text(1024, None);
        let result = check(&sd1(|_| {}), &vae(), &parts(&[&wide]), false, None);
        refused(result, &["`unet` reads text of 768 channels, got 1024 (`text_encoder` 1024)"]);
        let clip = text(768, None);
        let result = check(&sd1(|unet| unet.out_channels = 8), &vae(), &parts(&[&clip]), false, None);
        refused(result, &["`vae` has latents of 4 channels", "predicts 4, got 4 and 8"]);
        let result = check(&sd1(|unet| unet.in_channels = 5), &vae(), &parts(&[&wide]), false, None);
        refused(result, &["`unet` reads text of 768", "or 9 for inpainting", "got 5 and 4"]);

        let (first, second) = (text(8, None), text(24, Some(16)));
        let result = check(&xl(), &vae(), &parts(&[&first, &first]), true, None);
        refused(
            result,
            &["reads text of 32 channels, got 16 (`text_encoder` 8, `text_encoder_2` 8)", "`text_projection`"],
        );
        let other = text(24, Some(20));
        let result = check(&xl(), &vae(), &parts(&[&first, &other]), true, None);
        refused(
            result,
            &["reads 64 channels of pooled text and sizes", "got 68 (20 of `text_encoder_2` and 6 times 8"],
        );
        let windows = [TextPart { encoder: &first, window: 77 }, TextPart { encoder: &second, window: 64 }];
        refused(check(&xl(), &vae(), &windows, true, None), &["expected 77 of `text_encoder_2` too, got 64"]);
    }

    #[test]
    fn a_preview_decoder_reads_the_latents_of_the_vae() {
        let clip = text(768, None);
        let checked = |config: TinyAutoencoderConfig| {
            let decoder = config.init_decoder(&cpu()).expect("a network");
            check(&sd1(|_| {}), &vae(), &parts(&[&clip]), false, Some(&decoder))
        };
        assert!(checked(TinyAutoencoderConfig::taesd()).is_ok());
        let channels = TinyAutoencoderConfig { latent_channels: 16, ..TinyAutoencoderConfig::taesd() };
        refused(checked(channels), &["preview decoder reads latents of 16 channels", "expected those of `vae`"]);
        let size = TinyAutoencoderConfig {
            encoder_block_out_channels: vec![64; 3],
            decoder_block_out_channels: vec![64; 3],
            num_encoder_blocks: vec![1; 3],
            num_decoder_blocks: vec![1; 3],
            ..TinyAutoencoderConfig::taesd()
        };
        refused(checked(size), &["4 channels with 4x4 pixels each", "4 channels with 8x8 pixels each"]);
    }
}
