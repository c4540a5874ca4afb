//! Adapters combined with a U-Net or an image encoder that they were not made for.

use super::*;

#[test]
fn layers_of_the_large_model_are_numbered_as_published() {
    let device = fabric::default_device().expect("a device");
    let layers = UNetConfig::sdxl().init(&device).expect("a network").cross_attentions();
    // Blocks, their number of transformers, and the layers per transformer, in the order of the files.
    let blocks = [("down_blocks.1", 2, 2), ("down_blocks.2", 2, 10), ("up_blocks.0", 3, 10), ("up_blocks.1", 3, 2)];
    let path = |block: &str, attention: usize, layer: usize| {
        format!("{block}.attentions.{attention}.transformer_blocks.{layer}.attn2")
    };
    let mut expected: Vec<String> = Vec::new();
    for (block, attentions, depth) in blocks.into_iter().chain([("mid_block", 1, 10)]) {
        expected.extend((0..attentions * depth).map(|at| path(block, at / depth, at % depth)));
    }
    let got: Vec<String> = numbered_layers(&layers).iter().map(|layer| layer.site.to_string()).collect();
    assert_eq!(got, expected);
    assert!(layers.iter().all(|layer| layer.context == 2048));
}

#[test]
fn an_adapter_for_another_model_is_refused_by_name() {
    let adapter = adapter("base");
    let device = fabric::default_device().expect("a device");
    let large = UNetConfig::sdxl().init(&device).expect("a network").cross_attentions();
    let image = features(&adapter, 1, 1);
    let message = ImagePrompt::new(&adapter, &large, &image, &image).expect_err("SDXL").to_string();
    assert!(message.contains("the U-Net: expected 6, got 70 cross-attentions"), "{message}");
    let none = features(&adapter, 0, 1);
    let message = ImagePrompt::new(&adapter, &pipeline().cross_attentions(), &none, &none).expect_err("0").to_string();
    assert!(message.starts_with("features of images: expected") && message.contains("got [0] of them"), "{message}");
}

/// Returns six families of published adapters with the U-Net and the features that each was made for. Sizes are reduced
/// where they do not matter.
fn families() -> Vec<(AdapterConfig, UNetConfig, FeatureKind)> {
    let resampler = |features, context| ResamplerConfig {
        features,
        channels: 64,
        heads: 1,
        depth: 1,
        factor: 1,
        tokens: 16,
        context,
    };
    let sd: &[usize] = &[320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320, 1280];
    let xl = [[640; 4].as_slice(), &[1280; 20], &[1280; 30], &[640; 6], &[1280; 10]].concat();
    let adapter = |projection, widths: &[usize], context| AdapterConfig {
        projection,
        widths: widths.to_vec(),
        context,
        lora_rank: None,
    };
    let pooled = |features| ProjectionConfig::Pooled { features, tokens: 4 };
    let face = ProjectionConfig::Face { identity: 512, tokens: 4 };
    let instruct = ProjectionConfig::Instruct { resampler: resampler(1280, 768), text: 768 };
    let large = UNetConfig::sdxl();
    let second = || UNetConfig::sd21();
    [
        (adapter(pooled(1024), sd, 768), UNetConfig::sd15()),
        (adapter(pooled(1280), &xl, 2048), large.clone()),
        (adapter(ProjectionConfig::Resampler(resampler(1280, 1024)), sd, 1024), second()),
        (adapter(ProjectionConfig::Resampler(resampler(1664, 2048)), &xl, 2048), large),
        (adapter(face, sd, 1024), second()),
        (adapter(instruct, sd, 768), UNetConfig::sd15()),
    ]
    .map(|(adapter, unet)| (adapter.clone(), unet, adapter.reads()))
    .to_vec()
}

/// Features of one image, all 0.
fn zeros(kind: FeatureKind) -> Features {
    let device = fabric::default_device().expect("a device");
    let pooled = |channels| Tensor::zeros([1, channels], &device);
    let tokens = |channels| Tensor::zeros([1, 2, channels], &device);
    match kind {
        FeatureKind::Pooled(channels) => Features::Pooled(pooled(channels)),
        FeatureKind::Tokens(channels) => Features::Tokens(tokens(channels)),
        FeatureKind::Face(channels) => Features::Face(pooled(channels)),
        FeatureKind::FaceAndTokens(face, channels) => {
            Features::FaceAndTokens { identities: pooled(face), tokens: tokens(channels) }
        }
        FeatureKind::Instructed(channels, text) => {
            Features::Instructed { tokens: tokens(channels), prompt: tokens(text), instruction: tokens(text) }
        }
    }
}

#[test]
fn each_wrong_pairing_of_encoder_adapter_and_model_is_refused_by_name() {
    let device = fabric::default_device().expect("a device");
    let families = families();
    let layers: Vec<_> =
        families.iter().map(|(_, unet, _)| unet.init(&device).expect("a network").cross_attentions()).collect();
    let mut refused = 0;
    for (own, (adapter, _, reads)) in families.iter().enumerate() {
        for (other, (_, _, offered)) in families.iter().enumerate() {
            let (unet, encoder) = (adapter.check_layers(&layers[other]), adapter.check_features(&zeros(*offered)));
            assert!(own != other || (unet.is_ok() && encoder.is_ok()), "{adapter} does not fit its own");
            let same_layers =
                layers[own].len() == layers[other].len() && layers[own][0].context == layers[other][0].context;
            assert_eq!(unet.is_ok(), same_layers, "{adapter} and model {other}");
            assert_eq!(encoder.is_ok(), reads == offered, "{adapter} and {offered}");
            for error in [unet.err(), encoder.err()].into_iter().flatten() {
                assert!(matches!(error, AdapterError::Unfit { .. }), "{error}");
                let message = error.to_string();
                // The message names the adapter, the U-Net or features that it expects, and those that it got.
                assert!(message.starts_with(&format!("{adapter}, reading {reads} does not fit")), "{message}");
                assert!(message.contains("for a U-Net of context"), "{message}");
                assert!(message.contains("got") && message.contains("expected"), "{message}");
                assert!(message.contains("take") || message.contains("give") || message.contains("make"), "{message}");
                refused += 1;
            }
        }
    }
    // There are 36 pairs of each kind, some of which fit.
    assert!(refused >= 36, "{refused}");
    assert!(parameters(&families[0].0.init(&device)).len() == 36);
}

#[test]
fn features_of_another_encoder_are_refused_by_name() {
    let adapter = adapter("plus");
    let device = fabric::default_device().expect("a device");
    for wrong in
        [Features::Pooled(Tensor::zeros([1, 24], &device)), Features::Tokens(Tensor::zeros([1, 17, 99], &device))]
    {
        let message = adapter.tokens(&wrong).expect_err("another encoder").to_string();
        assert!(message.contains("a plus adapter (16 tokens)") && message.contains("expected tokens of"), "{message}");
    }
}
