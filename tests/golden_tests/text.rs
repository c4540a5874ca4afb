//! Golden file `text`: the text encoder (stored in f16, computed in f32).

use burn::tensor::Device;
use fabric::models::clip::{ClipText, ClipTextConfig};
use fabric::models::load::{LoadOptions, SafetensorsFile, load_into};

use super::harness::{Golden, device, folder, json};

/// Loads a text encoder of the golden models, optionally with another end token.
pub(crate) fn load(path: &str, eos_token_id: Option<u32>, device: &Device) -> ClipText {
    let folder = folder().join("models").join(path);
    let text = std::fs::read_to_string(folder.join("config.json")).expect("config.json");
    let mut config = ClipTextConfig::from_json(&text).expect("a good configuration");
    config.eos_token_id = eos_token_id.unwrap_or(config.eos_token_id);
    let file = SafetensorsFile::open(folder.join("model.safetensors")).expect("weights");
    load_into(config.init(device).expect("a network"), &file, &LoadOptions::default()).expect("loads").0
}

/// Returns the rows of a tensor of token ids.
pub(crate) fn ids(golden: &Golden, key: &str) -> Vec<Vec<u32>> {
    let values: Vec<u32> = golden.values(key).into_iter().map(|id| id as u32).collect();
    values.chunks(golden.shape(key)[1]).map(<[u32]>::to_vec).collect()
}

#[test]
fn text_encoder_equals_the_reference() {
    let device = device();
    let golden = Golden::open("text");
    let ids = ids(&golden, "input_ids");
    let prompts = json("text.json")["prompts"].as_array().expect("prompts").len();
    assert_eq!(ids.len(), prompts, "one row of ids per prompt");
    // The legacy value in published configurations, and the actual end token.
    let legacy = load("text_encoder", Some(2), &device);
    let proper = load("text_encoder", Some(49407), &device);
    let output = legacy.forward(&ids).expect("encodes");
    for key in golden.keys() {
        if let Some(layer) = key.strip_prefix("hidden/") {
            golden.compare(&key, output.hidden[layer.parse::<usize>().expect("a layer")].clone());
        } else if let Some(skip) = key.strip_prefix("clip_skip_") {
            let skip = skip.parse().expect("a number");
            golden.compare(&key, legacy.skip_layers(&output, skip).expect("enough layers"));
        }
    }
    golden.compare("last_hidden_state", output.last_hidden_state);
    golden.compare("pooled", output.pooled);
    golden.compare("pooled_eos", proper.forward(&ids).expect("encodes").pooled);
    golden.finish();
}
