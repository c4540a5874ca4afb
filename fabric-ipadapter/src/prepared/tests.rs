//! The rows that attend to the images of a prompt, compared with the keys that they get.

use burn::tensor::{Device, Tensor, TensorData};
use fabric_core::denoise::NoiseLevel;
use fabric_core::models::{TextEmbedding, TextEncoder, TextOptions, UNetModel};
use fabric_core::pipeline::Request;
use fabric_models::unet::UNetConfig;

use super::*;
use crate::{
    AdapterConfig, InstructGuidance, IpAdapter, LayerPreset, ProjectionConfig, ResamplerConfig, numbered_layers,
};

/// Channels of the text embeddings.
const TEXT: usize = 6;
/// Channels of the image features.
const FEATURES: usize = 10;

const TWO: [Branch; 2] = [Branch::Conditional, Branch::Unconditional];
const FOUR: [Branch; 4] = [Branch::Conditional, Branch::ImageOnly, Branch::Everything, Branch::Unconditional];

fn device() -> Device {
    fabric_backends::default_device().expect("a device")
}

/// Returns waves that differ by `salt`.
fn waves<const D: usize>(shape: [usize; D], salt: usize) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|at| ((at * 7 + salt * 31) as f32 * 0.37).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// Text encoder whose embeddings depend on the length of a text.
struct Lengths;

impl TextEncoder for Lengths {
    fn encode(&self, prompts: &[String], _options: &TextOptions) -> Result<TextEmbedding, Error> {
        let rows = prompts.iter().map(|prompt| waves([1, 2, TEXT], prompt.len())).collect();
        Ok(TextEmbedding { context: Tensor::cat(rows, 0), pooled: None, truncated: Vec::new() })
    }
}

/// Returns the keys that the row of each branch gets in a layer, without those of scale 0.
fn keys(prompt: &PreparedImagePrompt, branches: &[Branch], layer: &CrossAttention) -> Vec<Vec<f32>> {
    let level = NoiseLevel { timestep: 500.0, alpha: 0.6, sigma: 0.8 };
    let call = ModelCall { index: 0, total: 1, level };
    let processor = prompt.attention(&call, &BatchLayout::new(branches.to_vec(), 0..1));
    let query = Tensor::<3>::zeros([branches.len(), 4, layer.channels], &device());
    let call = AttnCall { site: layer.site, query: &query, key: &query, value: &query, grid: [2, 2], heads: 2 };
    let mut keys = vec![Vec::new(); branches.len()];
    for tokens in processor.extras(&call).decoupled.into_iter().filter(|tokens| tokens.scale != 0.0) {
        let own: Vec<f32> = tokens.key.into_data().try_to_vec().expect("f32 keys");
        tokens.rows.for_each(|row| keys[row].extend(&own));
    }
    keys
}

#[test]
fn rows_attend_to_the_image_exactly_where_their_keys_depend_on_it() {
    let device = device();
    // As many transformers as Stable Diffusion has, with few channels.
    let unet = UNetConfig {
        block_out_channels: vec![8; 4],
        norm_num_groups: 4,
        attention_head_dim: 2.into(),
        cross_attention_dim: 12.into(),
        ..UNetConfig::default()
    };
    let unet = unet.init(&device).expect("a network");
    let layers = unet.cross_attentions();
    let adapter = |projection| {
        let widths = numbered_layers(&layers).iter().map(|layer| layer.channels).collect();
        let config = AdapterConfig { projection, widths, context: 12, lora_rank: None };
        IpAdapter::new(config.clone(), config.init(&device)).expect("an adapter")
    };
    let plain = adapter(ProjectionConfig::Pooled { features: FEATURES, tokens: 2 });
    let resampler =
        ResamplerConfig { features: FEATURES, channels: 64, heads: 1, depth: 1, factor: 2, tokens: 3, context: 12 };
    let instruct = adapter(ProjectionConfig::Instruct { resampler, text: TEXT });

    let pooled = |salt| {
        let [images, none] = [salt, 9].map(|salt| Features::Pooled(waves([1, FEATURES], salt)));
        plain.prompt_from_features(images, Some(none))
    };
    let instructed = |salt, guidance| {
        let [images, none] = [salt, 9].map(|salt| Features::Tokens(waves([1, 4, FEATURES], salt)));
        let instruction = Instruction::new("use the pose").with_guidance(guidance);
        instruct.prompt_from_features(images, Some(none)).with_instruction(instruction)
    };
    let precise = |salt| pooled(salt).with_preset(LayerPreset::StyleTransferPrecise, 1.0, Some(0.5));
    let four = InstructGuidance::ThreeWay { instruction: 4.0, image: 1.5 };
    let request = Request::new("a red star").with_negative_prompt("blurry");
    let run = RunContext::new(&request, &unet, &Lengths, [8, 8]);
    // Made one after the other, because prompts are large.
    let kinds: [(&str, &dyn Fn(usize) -> ImagePrompt); 7] = [
        ("plain", &pooled),
        ("plain, away", &|salt| pooled(salt).away()),
        ("with inverted layers", &precise),
        ("two branches", &|salt| instructed(salt, InstructGuidance::Simple)),
        ("two branches, away", &|salt| instructed(salt, InstructGuidance::Simple).away()),
        ("four branches", &|salt| instructed(salt, four)),
        ("four branches, away", &|salt| instructed(salt, four).away()),
    ];
    for (name, make) in kinds {
        let [one, other] = [1, 2].map(|salt| make(salt).prepared(&run).expect(name));
        let mut attending = 0;
        for layer in &layers {
            for branches in [&TWO[..], &FOUR] {
                let (keys, others) = (keys(&one, branches, layer), keys(&other, branches, layer));
                // In layers of scale 0, no row has keys.
                if keys.iter().all(Vec::is_empty) {
                    continue;
                }
                for (row, branch) in branches.iter().enumerate() {
                    let attends = one.attends_to_image(*branch, &layer.site);
                    assert_eq!(attends, keys[row] != others[row], "{name}: {branch:?} in {}", layer.site);
                    attending += usize::from(attends);
                }
            }
        }
        assert!(attending > 0, "{name}: this would prove nothing");
    }
}
