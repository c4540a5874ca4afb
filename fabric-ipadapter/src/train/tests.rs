//! Tests of data sets, of the gradients of every trained part, and of the sampling of examples.

use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use fabric_core::image::Image;

use super::*;
use crate::adapter::KeyValue;
use crate::projection::{
    FaceProjection, FaceResampler, InstructResampler, PooledProjection, Resampler, ResamplerConfig, TokenProjection,
};

fn device() -> Device {
    fabric_backends::default_device().expect("a device").autodiff()
}

/// Returns pseudo-random numbers, the same each time.
fn some<const D: usize>(shape: [usize; D], salt: usize) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|at| ((at * 7919 + salt * 104_729) as f32 * 0.61).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// Sets each weight to fixed values: with random ones, the loss curves too much for some seeds to compare
/// finite differences.
struct Fill(usize);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        self.0 += 1;
        let shape = tensor.dims();
        let numbers = some(shape, 1000 + self.0);
        let filled = if D == 1 { numbers * 0.1 + 1.0 } else { numbers / (shape[0] as f64).sqrt() };
        Param::from_mapped_value(id, filled.require_grad(), mapper)
    }
}

/// Moves each weight along its own direction.
struct Shift(f64, usize);

impl ModuleMapper for Shift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        self.1 += 1;
        let direction = some(tensor.dims(), self.1);
        Param::from_mapped_value(id, (tensor.detach() + direction * self.0).detach().require_grad(), mapper)
    }
}

/// Slope along the same direction, from gradients.
struct Slope<'a>(&'a burn::tensor::Gradients, usize, f64);

impl ModuleVisitor for Slope<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1 += 1;
        let gradient = param.val().grad(self.0).expect("every weight has a gradient");
        self.2 += (gradient * some(param.dims(), self.1).inner()).sum().into_scalar::<f64>();
    }
}

/// Compares the slope of a scalar along one direction with finite differences.
fn check<M: Module>(name: &str, module: M, output: impl Fn(&M) -> Tensor<3>) {
    let module = module.map(&mut Fill(0));
    let measure = |module: &M| {
        let out = output(module);
        let weights = some(out.dims(), 77);
        (out * weights).sum()
    };
    let mut slope = Slope(&measure(&module).backward(), 0, 0.0);
    module.visit(&mut slope);
    let at = |by: f64| measure(&module.clone().map(&mut Shift(by, 0))).into_scalar::<f64>();
    let over = |step: f64| (at(step) - at(-step)) / (2.0 * step);
    // Combining two step sizes cancels the third derivative.
    let difference = (4.0 * over(1e-3) - over(2e-3)) / 3.0;
    let error = (slope.2 - difference).abs() / difference.abs().max(1.0);
    assert!(error < 5e-3, "{name}: gradient {}, difference {difference}", slope.2);
}

#[test]
fn gradients_are_differences() {
    let device = device();
    let config = ResamplerConfig { features: 10, channels: 64, heads: 1, depth: 1, factor: 2, tokens: 3, context: 12 };
    check("pooled", PooledProjection::new(10, 2, 12, &device), |m| m.forward(some([2, 10], 1)));
    check("tokens", TokenProjection::new(10, 12, &device), |m| m.forward(some([2, 4, 10], 2)));
    check("resampler", Resampler::new(&config, &device), |m| m.forward(some([2, 4, 10], 3)));
    check("face", FaceProjection::new(8, 2, 12, &device), |m| m.forward(some([2, 8], 4)));
    check("face resampler", FaceResampler::new(8, 10, 2, 64, &device), |m| {
        m.forward(some([2, 8], 5), some([2, 4, 10], 6))
    });
    check("instruct", InstructResampler::new(&config, 6, &device), |m| {
        m.forward(some([2, 4, 10], 7), some([2, 5, 6], 8), some([2, 5, 6], 9))
    });
    check("keys", KeyValue::new(12, 16, &device), |m| {
        m.forward(some([2, 3, 12], 10))[0].clone() + m.forward(some([2, 3, 12], 10))[1].clone()
    });
}

fn write(folder: &Path, text: &str) -> std::path::PathBuf {
    for name in ["a.png", "b.png"] {
        Image::filled(4, 4, [9, 9, 9]).expect("an image").save(folder.join(name)).expect("saved");
    }
    let path = folder.join("data.jsonl");
    std::fs::write(&path, text).expect("written");
    path
}

#[test]
fn broken_lines_are_named_and_some_may_be_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = format!("{{\"image\": \"a.png\", \"text\": \"{}\"}}", "x".repeat(2 << 20));
    let text = [
        r#"{"image": "a.png", "text": "one"}"#,
        "",
        r#"{"image": "a.png"}"#,
        r#"{"image": "c.png", "text": "missing"}"#,
        "not JSON",
        r#"{"image": "../a.png", "text": "outside"}"#,
        r#"{"image": "/etc/passwd", "text": "outside"}"#,
        &long,
        r#"{"image": "a.png", "condition": "b.png", "text": "two", "task": "style", "instruction": "use the style"}"#,
    ]
    .join("\n");
    let path = write(folder.path(), &text);
    let data = Dataset::open(&path, 6).expect("two examples");
    let lines: Vec<usize> = data.examples().iter().map(|example| example.line).collect();
    assert_eq!(lines, [1, 9]);
    assert_eq!(data.examples()[0].condition, data.examples()[0].image);
    let skipped: Vec<usize> = data.skipped().iter().map(|skipped| skipped.line).collect();
    assert_eq!(skipped, [3, 4, 5, 6, 7, 8]);
    let message = Dataset::open(&path, 1).expect_err("too many").to_string();
    assert!(
        message.contains("lines that cannot be used: expected at most 1, got 2")
            && message.contains("line 4: expected an image \"c.png\", got no such file"),
        "{message}"
    );
    let message = Dataset::open(write(folder.path(), "\n\n"), 9).expect_err("nothing").to_string();
    assert!(message.contains("at least one example that can be used, got none"), "{message}");
    assert!(Dataset::open(folder.path().join("none.jsonl"), 9).is_err());
}

#[test]
fn options_that_do_not_fit_the_data_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(folder.path(), r#"{"image": "a.png", "text": "one", "task": "style"}"#);
    let data = Dataset::open(path, 0).expect("an example");
    let check = |options: &AdapterOptions, instructs| {
        options.check(data.examples(), instructs).map_err(|error| error.to_string())
    };
    let plain = AdapterOptions::default();
    assert!(check(&plain, false).is_ok());
    let message = check(&plain, true).expect_err("no instruction");
    assert!(message.starts_with("line 1 of the data: its instruction"), "{message}");
    let with = |weight: f64, instructions: &[&str]| {
        let instructions = instructions.iter().map(ToString::to_string).collect();
        let tasks = [("style".to_owned(), TaskOptions { weight, instructions })].into();
        AdapterOptions { tasks, ..AdapterOptions::default() }
    };
    assert!(check(&with(1.0, &["use the style"]), true).is_ok());
    for wrong in [with(-1.0, &["x"]), with(f64::NAN, &["x"]), with(0.0, &["x"]), with(1.0, &[])] {
        assert!(check(&wrong, true).is_err(), "{wrong:?}");
    }
    assert!(check(&AdapterOptions { drop_image: 0.9, drop_text: 0.9, ..plain.clone() }, false).is_err());
    for wrong in [0.0, 1.1, f64::NAN] {
        assert!(check(&AdapterOptions { least_scale: wrong, ..plain.clone() }, false).is_err(), "{wrong}");
    }
    assert!(check(&AdapterOptions { size: 4096, ..plain.clone() }, false).is_ok());
    for size in [0, 4097, usize::MAX] {
        let message = check(&AdapterOptions { size, ..plain.clone() }, false).expect_err("an absurd size");
        assert!(message.starts_with("size: expected 1 to 4096 pixels"), "{message}");
    }
    for most_images in [0, 17, usize::MAX] {
        let message = check(&AdapterOptions { most_images, ..plain.clone() }, false).expect_err("an absurd number");
        assert!(message.starts_with("most_images: expected 1 to 16"), "{message}");
    }
    // Sampling weights apply to every adapter.
    assert!(check(&with(f64::NAN, &["x"]), false).is_err());
}

#[test]
fn further_image_prompts_are_read_and_need_an_instruction_with_instruct() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = |more: &str| {
        let text = format!(r#"{{"image": "a.png", "text": "one", "instruction": "use this", "more": [{more}]}}"#);
        Dataset::open(write(folder.path(), &text), 0)
    };
    let with = |more: &str| read(more).expect("an example").examples().to_vec();
    let examples = with(r#"{"condition": "b.png", "instruction": "use that"}"#);
    assert_eq!(examples[0].more[0].condition, folder.path().join("b.png"));
    let options = AdapterOptions { most_images: 2, ..AdapterOptions::default() };
    assert!(options.check(&examples, true).is_ok());
    let without = with(r#"{"condition": "b.png", "instruction": "x"}, {"condition": "a.png"}"#);
    assert!(options.check(&without, false).is_ok(), "other adapters read none");
    let message = options.check(&without, true).expect_err("no instruction").to_string();
    assert!(message.starts_with("line 1 of the data: the instruction of image prompt 3: expected"), "{message}");
    for (wrong, says) in [
        (r#"{"condition": "../b.png"}"#, "in the folder of the file"),
        (r#"{"instruction": "use that"}"#, "missing field `condition`"),
        (r#"{"condition": "b.png", "text": "x"}"#, "unknown field `text`"),
    ] {
        let message = read(wrong).expect_err(wrong).to_string();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn one_number_decides_what_is_left_out() {
    let options = AdapterOptions::default();
    let cases = [
        (0.049, [true, false]),
        (0.051, [false, true]),
        (0.099, [false, true]),
        (0.101, [true, true]),
        (0.151, [false; 2]),
    ];
    for (drawn, expected) in cases {
        assert_eq!(super::task::dropped(drawn, &options), expected, "{drawn}");
    }
    let all = AdapterOptions { drop_image: 0.0, drop_text: 0.0, drop_both: 0.0, ..options };
    assert_eq!(super::task::dropped(0.0, &all), [false; 2]);
}

#[test]
fn tasks_come_as_often_as_they_weigh_however_many_examples_they_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = |task: &str| format!("{{\"image\": \"a.png\", \"text\": \"x\", \"task\": \"{task}\"}}");
    let lines: Vec<String> = ["style", "object", "object", "object"].map(line).into();
    let data = Dataset::open(write(folder.path(), &lines.join("\n")), 0).expect("examples");
    let object = TaskOptions { weight: 2.0, ..TaskOptions::default() };
    let options = AdapterOptions { tasks: [("object".to_owned(), object)].into(), ..AdapterOptions::default() };
    let weights = options.weights(data.examples());
    assert_eq!(weights[0], 1.0);
    assert!((weights[1..].iter().sum::<f64>() - 2.0).abs() < 1e-12, "{weights:?}");
}
