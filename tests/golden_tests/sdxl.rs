//! Golden file `sdxl`: both text encoders, and a U-Net with added conditions, linear projections, and numbers of
//! transformer layers and heads that differ per level.

use burn::tensor::Tensor;
use fabric::core::models::{AddedConditions, UNetInput, UNetModel};

use super::harness::{Golden, device, meaning, numbers};
use super::{text, unet};

#[test]
fn sdxl_equals_the_reference() {
    let device = device();
    let golden = Golden::open("sdxl");
    let ids = text::ids(&golden, "input_ids");
    let first = text::load("sdxl/text_encoder", None, &device).forward(&ids).expect("encodes");
    let second = text::load("sdxl/text_encoder_2", None, &device).forward(&ids).expect("encodes");
    let penultimate = |hidden: Vec<Tensor<3>>| hidden[hidden.len() - 2].clone();
    let context = Tensor::cat(vec![penultimate(first.hidden), penultimate(second.hidden)], 2);
    let pooled = second.text_embeds.expect("an encoder with projection");
    golden.compare("context", context.clone());
    golden.compare("pooled", pooled.clone());

    let (_, unet) = unet::load("sdxl/unet", &device);
    let time_ids = golden.tensor("time_ids", &device);
    let sample = golden.tensor("sample", &device);
    let timesteps = [numbers(&meaning("sdxl", "out", "t=500"))[0]];
    let input = || UNetInput {
        added: Some(AddedConditions { pooled: pooled.clone(), time_ids: time_ids.clone() }),
        ..UNetInput::new(sample.clone(), &timesteps, context.clone())
    };
    golden.compare("out", unet.forward(input()).sample.expect("a prediction"));
    unet::compare_blocks(&golden, "block/", &unet, input());
    golden.finish();
}
