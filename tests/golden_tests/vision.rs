//! Golden file `vision`: the image encoder.

use burn::tensor::{Device, Tensor};
use fabric::core::models::ImageEncoder;
use fabric::models::clip::{ClipVision, ClipVisionConfig};
use fabric::models::load::{LoadOptions, SafetensorsFile, load_into};

use super::harness::{Golden, device, folder};

/// The image encoder of the golden models.
pub(crate) fn load(device: &Device) -> ClipVision {
    let folder = folder().join("models/image_encoder");
    let text = std::fs::read_to_string(folder.join("config.json")).expect("config.json");
    let config = ClipVisionConfig::from_json(&text).expect("a good configuration");
    let file = SafetensorsFile::open(folder.join("model.safetensors")).expect("weights");
    load_into(config.init(device).expect("a network"), &file, &LoadOptions::default()).expect("loads").0
}

#[test]
fn image_encoder_equals_the_reference() {
    let device = device();
    let vision = load(&device);
    let golden = Golden::open("vision");
    let pixels: Tensor<4> = golden.tensor("pixel_values", &device);
    let output = vision.forward(pixels.clone());
    for key in golden.keys() {
        if let Some(layer) = key.strip_prefix("hidden/") {
            golden.compare(&key, output.hidden[layer.parse::<usize>().expect("a layer")].clone());
        }
    }
    golden.compare("last_hidden_state", output.hidden.last().expect("a state").clone());
    golden.compare("penultimate", vision.penultimate(pixels.clone()));
    golden.compare("image_embeds", output.image_embeds);
    let zero = Tensor::zeros([1, 3, vision.image_size(), vision.image_size()], &device);
    golden.compare("zero_image/penultimate", vision.penultimate(zero.clone()));
    golden.compare("zero_image/image_embeds", vision.embed(zero));
    golden.finish();
}
