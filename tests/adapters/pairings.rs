//! Adapters combined with a U-Net or an image encoder that they were not made for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fabric::core::image::{Crop, clip_batch};
use fabric::core::models::ImageEncoder;
use fabric::ipadapter::Aspect;
use fabric::models::clip::ClipVision;

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
    let large = UNetConfig::sdxl().init(&device).expect("a network");
    let image = features(&adapter, 1, 1);
    let request = request();
    let run = RunContext::new(&request, &large, pipeline().text_encoder(), [8, 8]);
    let message = prompt(&adapter, &image).prepared(&run).expect_err("SDXL").to_string();
    assert!(message.contains("the U-Net: expected 6, got 70 cross-attentions"), "{message}");
    let message = refusal(prompt(&adapter, &features(&adapter, 0, 1)));
    assert!(message.starts_with("images of an image prompt: expected at least one"), "{message}");
}

#[test]
fn what_an_image_prompt_lacks_is_refused_before_the_run() {
    let [base, instruct] = ["base", "instruct"].map(adapter);
    let message = refusal(base.prompt(image()));
    assert!(
        message.contains("image encoder of an image prompt: expected one that gives") && message.contains("got none"),
        "{message}"
    );
    assert!(message.contains("with_encoder"), "{message}");
    let message = refusal(prompt(&base, &features(&base, 1, 1)).using(Aspect::Style));
    assert!(message.contains("expected none, as only Instruct adapters read one, got `use the style`"), "{message}");
    let message = refusal(instruct.prompt_from_features(features(&base, 1, 1), None).using(Aspect::Style));
    assert!(message.contains("features of an image prompt: expected tokens of the image encoder"), "{message}");
    let message = refusal(prompt(&base, &features(&adapter("plus"), 1, 1)));
    assert!(message.contains("does not fit"), "{message}");
    let request = request().with_for(1..3, prompt(&base, &features(&base, 1, 1)));
    let message = pipeline().generate(&request).expect_err("two images").to_string();
    assert!(message.starts_with("conditioning[0].images: expected some of the images 0..2, got 1..3"), "{message}");
}

#[test]
fn images_are_encoded_as_their_features_are_by_hand() {
    let device = fabric::default_device().expect("a device");
    let encoder = ClipVision::open(folder().join("image_encoder"), &device).expect("an encoder");
    let other = Image::from_rgb(40, 64, (0..40 * 64 * 3).map(|at| (at * 3 % 199) as u8).collect()).expect("an image");
    for kind in ["base", "plus", "instruct"] {
        let adapter = adapter(kind);
        let images = [image(), other.clone()];
        let pixels = clip_batch(&images, encoder.image_size(), Crop::Centre, &device).expect("pixels");
        let reads = match adapter.config().reads() {
            FeatureKind::Instructed(channels, _) => FeatureKind::Tokens(channels),
            reads => reads,
        };
        let [with, none] = [
            Features::of(&encoder, pixels.clone(), reads).expect("features"),
            Features::none_of(&encoder, &pixels, reads).expect("features"),
        ];
        let by_hand = make(&request().with(adapter.prompt_from_features(with, Some(none))));
        let calls = Arc::new(AtomicUsize::new(0));
        let adapter = adapter.with_encoder(Counted { encoder: encoder.clone(), calls: calls.clone() });
        let made = make(&request().with(adapter.prompt(images.clone())));
        assert!(distance(&made, &by_hand) < ROUNDING, "{kind}");
        let encoded = calls.load(Ordering::SeqCst);
        assert!(encoded == 2 || encoded == 3, "two images, and the grey one for tokens: {encoded}");
        assert_again(&make(&request().with(adapter.prompt(images.clone()))), &made, kind);
        assert_eq!(calls.load(Ordering::SeqCst), encoded, "from the cache of features");
    }
}

/// Encoder that counts its calls.
struct Counted {
    encoder: ClipVision,
    calls: Arc<AtomicUsize>,
}

impl ImageEncoder for Counted {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.encoder.embed(pixels)
    }

    fn penultimate(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.encoder.penultimate(pixels)
    }

    fn image_size(&self) -> usize {
        self.encoder.image_size()
    }

    fn device(&self) -> burn::tensor::Device {
        self.encoder.device()
    }
}

#[test]
fn a_prompt_for_some_images_leaves_the_others_alone() {
    let adapter = adapter("plus");
    let [one, two] = [1, 2].map(|seed| prompt(&adapter, &features(&adapter, 1, seed)));
    let made = |request: Request| {
        let all = make(&request);
        let length = all.len() / 2;
        [all[..length].to_vec(), all[length..].to_vec()]
    };
    let plain = made(request());
    let [first, second] = [one.clone(), two.clone()].map(|prompt| made(request().with(prompt)));
    for batch in [None, Some(1)] {
        let settings = Settings { batch, ..request().settings };
        let mixed =
            made(request().with_settings(settings.clone()).with_for(0..1, one.clone()).with_for(1..2, two.clone()));
        assert!(distance(&mixed[0], &first[0]) < ROUNDING && distance(&mixed[1], &second[1]) < ROUNDING);
        let half = made(request().with_settings(settings).with_for(1..2, two.clone()));
        assert!(distance(&half[0], &plain[0]) < ROUNDING && distance(&half[1], &second[1]) < ROUNDING);
    }
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
