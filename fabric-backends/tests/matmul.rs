//! `FABRIC_MATMUL=bf16` reaches convolutions and linear layers, forward and backward, and changes no more than bf16
//! explains. The variable is read once in a process, so each test runs in a process of its own.

#![cfg(all(feature = "flex", feature = "autodiff"))]

use std::process::Command;

use burn::tensor::{Distribution, Tensor};
use fabric_backends::ops::{conv2d, linear};
use fabric_backends::{DeviceKind, device};

/// Runs an ignored test of this file with a value of the variable.
fn run(test: &str, value: &str) {
    let this = std::env::current_exe().expect("this test");
    let arguments = ["--exact", test, "--ignored", "--nocapture"];
    let output = Command::new(this).args(arguments).env("FABRIC_MATMUL", value).output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn bf16_changes_no_more_than_its_rounding() {
    run("errors_are_those_of_bf16", "bf16");
}

#[test]
fn f32_stays_exact() {
    run("errors_are_those_of_f32", "f32");
}

#[test]
fn an_unknown_value_is_an_error() {
    run("the_device_is_refused", "f16");
}

#[test]
#[ignore = "run by another test, with its variable"]
fn the_device_is_refused() {
    let error = device(DeviceKind::Flex).expect_err("an unknown value").to_string();
    assert!(error.contains("FABRIC_MATMUL") && error.contains("`f16`"), "{error}");
}

#[test]
#[ignore = "run by another test, with its variable"]
fn errors_are_those_of_bf16() {
    let errors = errors();
    assert!(errors.iter().all(|error| *error < 1e-2), "{errors:?}");
    let has_amx = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("amx_bf16"));
    let is_limited = std::env::var_os("FABRIC_MAX_ISA").is_some();
    if has_amx && !is_limited {
        assert_eq!(fabric_backends::matmul_format(), "bf16");
        assert!(errors.iter().all(|error| *error > 1e-4), "{errors:?}");
    } else {
        // The variable has no effect here, which is all that can be checked.
        assert_eq!(fabric_backends::matmul_format(), "f32");
    }
}

#[test]
#[ignore = "run by another test, with its variable"]
fn errors_are_those_of_f32() {
    let errors = errors();
    assert!(errors.iter().all(|error| *error < 1e-5), "{errors:?}");
}

/// Returns the relative errors of a 3x3 convolution, one with stride 2 and a linear layer, each with the gradients of
/// input and weight, compared with sums of element-wise products, which are always f32.
fn errors() -> Vec<f64> {
    let cpu = device(DeviceKind::Flex).expect("a known value");
    let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &cpu);
    let mut errors = Vec::new();
    for (stride, side) in [(1, 8), (2, 12)] {
        let (x, weight) = (random([4, 48, side, side]), random([40, 48, 3, 3]));
        let slope = random([4, 40, side / stride, side / stride]);
        let forward = |x: Tensor<4>, weight: Tensor<4>| conv2d(x, weight, None, stride, (1, 1));
        errors.extend(compare((x, weight), slope, forward, |x, weight| plain(x, weight, stride)));
    }
    let (x, weight, slope) = (random([1, 2, 100, 96]), random([1, 1, 80, 96]), random([1, 2, 100, 80]));
    let forward = |x: Tensor<4>, weight: Tensor<4>| linear(x, weight.reshape([80, 96]), None);
    errors.extend(compare((x, weight), slope, forward, |x, weight| {
        let product: Tensor<3> = x.reshape([200, 1, 96]) * weight.reshape([1, 80, 96]);
        product.sum_dim(2).reshape([1, 2, 100, 80])
    }));
    errors
}

/// Convolves tap by tap.
fn plain(x: Tensor<4>, weight: Tensor<4>, stride: usize) -> Tensor<4> {
    let ([rows, channels, height, width], [outputs, ..]) = (x.dims(), weight.dims());
    let [down, across] = [height / stride, width / stride];
    let padded = x.pad((1, 1, 1, 1), 0.0);
    let tap = |ky: usize, kx: usize| {
        let taken = padded.clone().slice([0..rows, 0..channels, ky..ky + height, kx..kx + width]);
        let taken: Tensor<6> = taken.reshape([rows, channels, down, stride, across, stride]);
        let taken: Tensor<5> = taken.narrow(3, 0, 1).narrow(5, 0, 1).reshape([rows, 1, channels, down, across]);
        let factors = weight.clone().slice([0..outputs, 0..channels, ky..ky + 1, kx..kx + 1]);
        (taken * factors.reshape([1, outputs, channels, 1, 1])).sum_dim(2).reshape([rows, outputs, down, across])
    };
    let taps = (0..9).map(|number| tap(number / 3, number % 3));
    taps.reduce(|sum: Tensor<4>, tap| sum + tap).expect("nine taps")
}

/// Returns the relative errors of a result and of its gradients, whose sum is weighted with these slopes.
fn compare(
    (x, weight): (Tensor<4>, Tensor<4>),
    slope: Tensor<4>,
    got: impl Fn(Tensor<4>, Tensor<4>) -> Tensor<4>,
    expected: impl Fn(Tensor<4>, Tensor<4>) -> Tensor<4>,
) -> [f64; 3] {
    let run = |f: &dyn Fn(Tensor<4>, Tensor<4>) -> Tensor<4>| {
        let [x, weight] = [&x, &weight].map(|tensor| tensor.clone().autodiff().require_grad());
        let out = f(x.clone(), weight.clone());
        let gradients = (out.clone() * slope.clone().autodiff()).sum().backward();
        let gradient = |of: &Tensor<4>| of.grad(&gradients).expect("a gradient");
        [out.inner(), gradient(&x), gradient(&weight)]
    };
    let (got, expected) = (run(&got), run(&expected));
    std::array::from_fn(|at| {
        let norm = |tensor: Tensor<4>| tensor.square().sum().into_scalar::<f64>().sqrt();
        norm(got[at].clone() - expected[at].clone()) / norm(expected[at].clone())
    })
}
