//! Golden file `controlnet`: the ControlNet's residuals, and the U-Net's output with them.

use std::path::Path;

use burn::tensor::Tensor;
use fabric::core::models::{Residuals, UNetInput, UNetModel};
use fabric::models::control::ControlNet;

use super::harness::{Golden, device, folder, meaning, numbers};
use super::model;

/// Loads the ControlNet of this golden folder.
pub(super) fn load_in(folder: &Path) -> ControlNet {
    ControlNet::open(folder.join("models/controlnet"), &device()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn what_a_controlnet_adds_equals_the_reference() {
    let (golden, device) = (Golden::open("controlnet"), device());
    let (network, unet) = (load_in(&folder()), model::unet());
    let sample: Tensor<4> = golden.tensor("sample", &device);
    let context: Tensor<3> = golden.tensor("context", &device);
    let hint = network.read(golden.tensor("cond", &device));
    let cases: Vec<String> = golden.cases().into_iter().filter(|case| case.starts_with("scale_")).collect();
    assert!(!cases.is_empty(), "no cases");
    let timestep = |case: &str| [numbers(&meaning("controlnet", &format!("{case}/out"), "t=444"))[0]];
    let timesteps = timestep(&cases[0]);
    let input = UNetInput::new(sample.clone(), &timesteps, context.clone());
    let Residuals { down, mid, .. } = network.forward(&input, hint.clone(), 1.0, false);
    assert_eq!(down.len(), golden.cases_under("down").len());
    for (index, x) in down.into_iter().enumerate() {
        golden.compare(&format!("down/{index}"), x);
    }
    golden.compare("mid", mid.expect("a share for the middle"));
    for case in cases {
        let key = format!("{case}/out");
        let timesteps = timestep(&case);
        let scale: f64 = case.trim_start_matches("scale_").parse().expect("a scale");
        let input = || UNetInput::new(sample.clone(), &timesteps, context.clone());
        let added = network.forward(&input(), hint.clone(), scale, false);
        let output = unet.forward(UNetInput { residuals: Some(&added), ..input() });
        golden.compare(&key, output.sample.expect("a prediction"));
    }
    golden.finish();
}
