//! Golden file `lora`: LoRA files of several layouts, merged and attached; compares weights and outputs.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use fabric::core::models::{UNetInput, UNetModel};
use fabric::models::load::PublishedNames;
use fabric::models::lora::{LoraFile, attach, merge};
use fabric::models::unet::UNet;

use super::harness::{Golden, device, folder, json, relative_error, tolerance};
use super::{text, unet};

/// Returns every float parameter by its published name.
fn weights<M: Module + PublishedNames>(module: &M) -> BTreeMap<String, Vec<f64>> {
    struct Collector<F> {
        path: Vec<String>,
        name: F,
        got: BTreeMap<String, Vec<f64>>,
    }
    impl<F: Fn(&str) -> String> ModuleVisitor for Collector<F> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().iter::<f64>().collect();
            self.got.insert((self.name)(&self.path.join(".")), values);
        }
    }
    let mut collector = Collector { path: Vec::new(), name: M::published_name, got: BTreeMap::new() };
    module.visit(&mut collector);
    collector.got
}

/// Counts the parameters that differ in any bit.
fn changed(base: &BTreeMap<String, Vec<f64>>, merged: &BTreeMap<String, Vec<f64>>) -> usize {
    assert_eq!(base.len(), merged.len(), "parameters");
    base.iter().filter(|(name, values)| merged[*name] != **values).count()
}

/// Returns the timestep of the evaluations, which the README gives with the base output.
fn timestep() -> f64 {
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap_or_default();
    let section = readme.split("\n## ").find(|section| section.starts_with("lora\n")).unwrap_or_default();
    let row = section.lines().find(|line| line.starts_with("| `base/out` |")).unwrap_or_default();
    let number = row.split_once("t=").map_or("345", |(_, rest)| rest.split([',', ' ', '|']).next().unwrap_or_default());
    number.parse().unwrap_or_else(|_| panic!("t={number} in the README's section on lora"))
}

#[test]
fn merged_and_attached_loras_equal_the_reference() {
    let device = device();
    let golden = Golden::open("lora");
    let settings = json("lora.json");
    let scale = settings["scale"].as_f64().expect("a scale") as f32;
    let (_, unet) = unet::load("unet", &device);
    let encoder = text::load("text_encoder", None, &device);
    let ids = text::ids(&golden, "input_ids");
    let timesteps = [timestep()];
    let predict = |unet: &UNet| -> Tensor<4> {
        let (sample, context) = (golden.tensor("sample", &device), golden.tensor("context", &device));
        unet.forward(UNetInput::new(sample, &timesteps, context)).sample.expect("a prediction")
    };
    golden.compare("base/out", predict(&unet));
    let (base_unet, base_text) = (weights(&unet), weights(&encoder));

    for (name, counts) in settings["files"].as_object().expect("files") {
        let file = LoraFile::open(folder().join(format!("models/lora/{name}.safetensors"))).expect("a LoRA");
        let (tuned, unet_report) = merge(unet.clone(), &file.unet, scale).expect("fits the U-Net");
        let (tuned_text, text_report) = merge(encoder.clone(), &file.text_encoder, scale).expect("fits the encoder");
        assert!(file.text_encoder_2.is_empty(), "{name}: for two text encoders");

        let merged = BTreeMap::from([("unet", weights(&tuned)), ("text_encoder", weights(&tuned_text))]);
        for (count, applied, base, part) in [
            ("unet_changed", unet_report.applied, &base_unet, "unet"),
            ("text_changed", text_report.applied, &base_text, "text_encoder"),
        ] {
            let expected = counts[count].as_u64().expect("a count") as usize;
            assert_eq!(applied.len(), expected, "{name}: {count}, as reported");
            assert_eq!(changed(base, &merged[part]), expected, "{name}: {count}");
        }
        for key in golden.keys() {
            let Some(weight) = key.strip_prefix(&format!("{name}/merged/")) else { continue };
            let (part, weight) = weight.split_once('.').expect("a network and a weight");
            golden.compare_values(&key, &merged[part][weight]);
        }
        let encode =
            |encoder: &fabric::models::clip::ClipText| encoder.forward(&ids).expect("encodes").last_hidden_state;
        golden.compare(&format!("{name}/out"), predict(&tuned));
        golden.compare(&format!("{name}/text"), encode(&tuned_text));

        let (attached, _) = attach(unet.clone(), &file.unet, scale).expect("fits the U-Net");
        let (attached_text, _) = attach(encoder.clone(), &file.text_encoder, scale).expect("fits the encoder");
        for (key, got) in [("out", predict(&attached).into_data()), ("text", encode(&attached_text).into_data())] {
            let key = format!("{name}/{key}");
            let error = relative_error(&got.iter::<f64>().collect::<Vec<_>>(), &golden.values(&key));
            assert!(error <= tolerance(), "{key}, attached: {error:.1e}");
        }
        assert_eq!(changed(&base_unet, &weights(&attached.detach())), 0, "{name}: detached");
    }
    golden.finish();
}
