//! What holds for any LoRA.

use burn::module::{ModuleMapper, Param};
use burn::tensor::{DType, TensorData};
use fabric_core::models::{UNetInput, UNetModel};

use super::*;
use crate::layers::count_parameters;

fn any(_: &str) -> bool {
    true
}

fn predict(unet: &UNet) -> Vec<f32> {
    let tensor = |shape: [usize; 4], seed| TensorData::new(noise(shape.iter().product(), seed), shape);
    let sample = Tensor::from_data(tensor([2, 4, 6, 8], 1), &cpu());
    let context = Tensor::<4>::from_data(tensor([1, 2, 5, 6], 2), &cpu()).reshape([2, 5, 6]);
    let out = unet.forward(UNetInput::new(sample, &[321.0], context)).sample.unwrap();
    out.into_data().iter::<f32>().collect()
}

fn error(a: &[f32], b: &[f32]) -> f32 {
    let scale = b.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / scale
}

#[test]
fn scale_zero_changes_no_bit() {
    let unet = tiny_unet();
    let lora = lora_for(&unet, 1, peft_keys, any).read_lora().unwrap().unet;
    let (merged, report) = merge(unet.clone(), &lora, 0.0).unwrap();
    assert_eq!(report.applied.len(), adaptable(&unet).len());
    assert!(same_bits(&weights(&merged), &weights(&unet)));
    assert_eq!(predict(&attach(unet.clone(), &lora, 0.0).unwrap().0), predict(&unet));
}

#[test]
fn the_opposite_scale_undoes_to_within_rounding() {
    let unet = tiny_unet();
    let lora = lora_for(&unet, 1, kohya_keys, any).read_lora().unwrap().unet;
    let (merged, _) = merge(unet.clone(), &lora, 0.7).unwrap();
    assert!(distance(&weights(&merged), &weights(&unet)) > 0.1);
    let (undone, _) = merge(merged, &lora, -0.7).unwrap();
    assert!(distance(&weights(&undone), &weights(&unet)) < 1e-6);
}

#[test]
fn attached_computes_what_merged_does() {
    let unet = tiny_unet();
    let lora = lora_for(&unet, 1, peft_keys, any).read_lora().unwrap().unet;
    let (merged, merge_report) = merge(unet.clone(), &lora, 0.7).unwrap();
    let (attached, report) = attach(unet.clone(), &lora, 0.7).unwrap();
    assert_eq!(report, merge_report);
    let expected = predict(&merged);
    assert!(error(&predict(&unet), &expected) > 0.1);
    assert_eq!(predict(&attached), expected);
    assert!(same_bits(&weights(&attached.clone().merge().unwrap()), &weights(&merged)));
    assert!(same_bits(&weights(&attached.detach()), &weights(&unet)));
}

#[test]
fn the_order_of_several_is_rounding() {
    let unet = tiny_unet();
    let lora = |seed, expected| lora_for(&unet, seed, peft_keys, expected).read_lora().unwrap().unet;
    let (a, b) = (lora(1, any), lora(1000, |name| name.contains("attn") || name.contains("conv1")));
    let (merged, _) = merge(merge(unet.clone(), &a, 0.5).unwrap().0, &b, 0.3).unwrap();
    let (turned, _) = merge(merge(unet.clone(), &b, 0.3).unwrap().0, &a, 0.5).unwrap();
    let (attached, report) = attach(unet.clone(), &a, 0.5).unwrap().0.with(&b, 0.3).unwrap();
    assert_eq!(report.applied.len(), b.changes().len());
    let expected = predict(&merged);
    assert!(error(&predict(&turned), &expected) < 1e-5);
    assert!(error(&predict(&attached), &expected) < 1e-5);
    assert!(same_bits(&weights(&attached.detach()), &weights(&unet)));
}

#[test]
fn another_scale_is_the_same_as_attaching_anew() {
    let unet = tiny_unet();
    let lora = lora_for(&unet, 1, peft_keys, any).read_lora().unwrap().unet;
    let (attached, _) = attach(unet.clone(), &lora, 0.5).unwrap();
    let (expected, _) = attach(unet, &lora, -0.2).unwrap();
    assert_eq!(predict(&attached.with_scales(&[-0.2]).unwrap()), predict(&expected));
    let counts = attached.with_scales(&[1.0, 1.0]).unwrap_err();
    assert!(matches!(counts, LoraError::ScaleCount { got: 2, expected: 1 }));
}

#[test]
fn attached_products_are_no_parameters() {
    let unet = tiny_unet();
    let lora = lora_for(&unet, 1, peft_keys, any).read_lora().unwrap().unet;
    let (attached, _) = attach(unet.clone(), &lora, 1.0).unwrap();
    assert_eq!(count_parameters(&*attached), count_parameters(&unet));
    assert_eq!(parameters(&*attached), parameters(&unet));
    assert!(same_bits(&weights(&attached.network()), &weights(&unet)), "what a visitor, and so a file, gets");
}

#[test]
fn a_second_attachment_goes_through_the_first() {
    let unet = tiny_unet();
    let lora = lora_for(&unet, 1, peft_keys, any).read_lora().unwrap().unet;
    let (attached, _) = attach(unet, &lora, 1.0).unwrap();
    for error in [
        attach((*attached).clone(), &lora, 1.0).map(|_| ()).unwrap_err(),
        merge((*attached).clone(), &lora, 1.0).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, LoraError::AlreadyAttached { .. }), "{error}");
    }
}

#[test]
fn half_precision_weights_are_rounded_once() {
    struct Halve;
    impl ModuleMapper for Halve {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| x.cast(DType::F16))
        }
    }
    struct Widen;
    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| x.cast(DType::F32))
        }
    }
    let half = tiny_unet().map(&mut Halve);
    let lora = lora_for(&half, 1, peft_keys, any).read_lora().unwrap().unet;
    let (merged, _) = merge(half.clone(), &lora, 0.7).unwrap();
    let (wide, _) = merge(half.clone().map(&mut Widen), &lora, 0.7).unwrap();
    assert!(same_bits(&weights(&merged), &weights(&wide.map(&mut Halve))));
    let (attached, _) = attach(half, &lora, 0.7).unwrap();
    assert!(same_bits(&weights(&attached.merge().unwrap()), &weights(&merged)));
}

#[test]
fn the_product_counts_alpha_over_rank() {
    let unet = tiny_unet();
    let rank = 2;
    let file = |alpha: Option<f32>| {
        let file = Memory::default().with_pair(kohya_keys("conv_in"), &[8, 4, 3, 3], rank, 5);
        match alpha {
            Some(alpha) => file.with("lora_unet_conv_in.alpha", &[], &[alpha]),
            None => file,
        }
    };
    let change = |alpha| {
        let lora = file(alpha).read_lora().unwrap().unet;
        let (merged, _) = merge(unet.clone(), &lora, 1.0).unwrap();
        let (merged, base) = (weights(&merged), weights(&unet));
        let pairs = merged["conv_in.weight"].iter().zip(&base["conv_in.weight"]);
        pairs.map(|(x, y)| x - y).collect::<Vec<f32>>()
    };
    // By hand: up [8, 2] times down [2, 36].
    let (down, up) = (noise(rank * 36, 5), noise(8 * rank, 6));
    let product: Vec<f32> =
        (0..8 * 36).map(|i| (0..rank).map(|r| up[i / 36 * rank + r] * down[r * 36 + i % 36]).sum()).collect();
    let half: Vec<f32> = product.iter().map(|x| x / 2.0).collect();
    assert!(error(&change(None), &product) < 1e-5);
    assert!(error(&change(Some(2.0)), &product) < 1e-5);
    assert!(error(&change(Some(1.0)), &half) < 1e-5);
}
