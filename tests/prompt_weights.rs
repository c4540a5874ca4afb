//! Prompt weights on the demo model: whichever word is weighted, the text embedding changes moderately.

use burn::tensor::Tensor;
use fabric::core::models::{TextOptions, WeightNormalisation};
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::models::{ModelOptions, demo_folder, load_model};

const RULES: [WeightNormalisation; 3] =
    [WeightNormalisation::None, WeightNormalisation::Mean, WeightNormalisation::Comfy];
const COLOURS: [&str; 9] = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white"];
const THINGS: [&str; 6] = ["square", "circle", "star", "heart", "face", "house"];
const WEIGHTS: [f32; 4] = [0.6, 0.9, 1.2, 1.5];

fn pipeline() -> Pipeline {
    let device = fabric::default_device().expect("a device");
    load_model(demo_folder().expect("the model ships"), &device, &ModelOptions::default()).expect("a pipeline").0
}

fn options(rule: WeightNormalisation) -> TextOptions {
    TextOptions { weights: true, weight_normalisation: rule, ..TextOptions::default() }
}

/// Encodes prompts; returns one vector per prompt and token.
fn encode(pipeline: &Pipeline, prompts: &[String], rule: WeightNormalisation) -> Vec<Vec<Vec<f32>>> {
    let context = pipeline.text_encoder().encode(prompts, &options(rule)).expect("an encoding").context;
    let [_, _, channels] = context.dims();
    let rows = |x: Tensor<3>| x.into_data().convert::<f32>().try_to_vec::<f32>().expect("f32");
    let tokens = |row| rows(context.clone().narrow(0, row, 1)).chunks_exact(channels).map(<[f32]>::to_vec).collect();
    (0..prompts.len()).map(tokens).collect()
}

/// Returns each combination of colour and thing without weights, and its variants with a weight on the colour or the
/// thing.
fn prompts() -> Vec<(String, Vec<(f32, String)>)> {
    let mut prompts = Vec::new();
    for colour in COLOURS {
        for thing in THINGS {
            let weighted = WEIGHTS.iter().flat_map(|&weight| {
                let one = |text: String| (weight, text);
                [one(format!("a ({colour}:{weight}) {thing}")), one(format!("a {colour} ({thing}:{weight})"))]
            });
            prompts.push((format!("a {colour} {thing}"), weighted.collect()));
        }
    }
    prompts
}

#[test]
fn a_weight_never_runs_away_with_the_shipped_model() {
    let pipeline = pipeline();
    let (mut worst, mut checked) = (Vec::new(), 0);
    for rule in RULES {
        for (plain, weighted) in prompts() {
            let texts: Vec<String> =
                std::iter::once(plain).chain(weighted.iter().map(|(_, text)| text.clone())).collect();
            let encoded = encode(&pipeline, &texts, rule);
            for ((_, text), got) in weighted.iter().zip(&encoded[1..]) {
                // The start token has no weight: the change of its embedding is the factor on the whole prompt.
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                let factor = dot(&got[0], &encoded[0][0]) / dot(&encoded[0][0], &encoded[0][0]);
                if !(0.4999..2.0001).contains(&factor) {
                    worst.push(format!("{rule}, {text}: {factor}"));
                }
                checked += 1;
            }
        }
    }
    assert_eq!(checked, RULES.len() * COLOURS.len() * THINGS.len() * 2 * WEIGHTS.len());
    assert!(worst.is_empty(), "{} of {checked}: {worst:#?}", worst.len());
}

#[test]
fn weights_leave_other_tokens_alone() {
    let pipeline = pipeline();
    let texts = ["a white square", "a (white:1.2) square", ""].map(str::to_owned);
    let encoded = encode(&pipeline, &texts, WeightNormalisation::default());
    let [plain, weighted, empty] = &encoded[..] else { panic!("three encodings") };
    for (token, ((plain, weighted), empty)) in plain.iter().zip(weighted).zip(empty).enumerate() {
        // Tokens: the start token, "a", "white".
        let weight = if token == 2 { 1.2 } else { 1.0 };
        for ((plain, weighted), empty) in plain.iter().zip(weighted).zip(empty) {
            let expected = empty + weight * (plain - empty);
            assert!((weighted - expected).abs() < 1e-4, "token {token}: {weighted}, expected {expected}");
        }
    }
}

#[test]
fn a_small_weight_changes_an_image_less_than_another_seed() {
    let pipeline = pipeline();
    let make = |prompt: &str, seed: u64| {
        let mut settings = Settings { steps: 8, guidance_scale: 3.0, ..Settings::default() };
        settings.text = options(WeightNormalisation::default());
        let request = Request::new(prompt).with_seeds([seed]).with_settings(settings);
        pipeline.generate(&request).expect("an image").images.remove(0)
    };
    let mut shares = Vec::new();
    for (colour, thing) in [("white", "square"), ("red", "star"), ("blue", "circle"), ("green", "heart")] {
        let prompt = format!("a {colour} {thing}");
        let (plain, other) = (make(&prompt, 1), make(&prompt, 2));
        let weighted = make(&format!("a ({colour}:1.2) {thing}"), 1);
        let distance = |image: &fabric::core::image::Image| -> f64 {
            let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
            image.rgb().iter().zip(plain.rgb()).map(square).sum::<f64>().sqrt()
        };
        assert!(distance(&weighted) > 0.0, "{prompt}: the weight does nothing");
        shares.push(distance(&weighted) / distance(&other));
    }
    shares.sort_by(f64::total_cmp);
    assert!(shares[3] < 1.0 && shares[1] < 0.5, "{shares:?}");
}
