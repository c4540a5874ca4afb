//! Tests of a single forward pass.

use burn::module::{ModuleMapper, Param};
use burn::tensor::DType;
use fabric_core::models::Residuals;

use super::*;

#[test]
fn a_processor_without_answers_changes_nothing() {
    let bench = Bench::new(&tiny(), 2);
    let plain = bench.predict(bench.input());
    let spy = Spy::default();
    let spied = bench.predict(UNetInput { processor: &spy, ..bench.input() });
    assert_eq!(difference(spied, plain), 0.0);
}

#[test]
fn every_layer_asks_once_in_the_order_of_the_sites() {
    let bench = Bench::new(&tiny(), 1);
    let spy = Spy::default();
    bench.predict(UNetInput { processor: &spy, ..bench.input() });
    let calls = spy.calls();
    let sites: Vec<AttnSite> = calls.iter().map(|call| call.0).collect();
    assert_eq!(sites, bench.unet.attention_sites());
    for (site, key, value, [height, width]) in calls {
        let tokens = if is_self(&site) { height * width } else { 5 };
        assert_eq!((key.dims()[1], value.dims()[1]), (tokens, tokens), "{site}");
    }
}

#[test]
fn rows_of_a_batch_do_not_see_one_another() {
    let bench = Bench::new(&tiny(), 3);
    let together = bench.predict(bench.input());
    for row in 0..3 {
        let alone = bench.rows(row, 1);
        let alone = alone.predict(alone.input());
        assert!(difference(together.clone().narrow(0, row, 1), alone) < 1e-5);
    }
}

#[test]
fn one_timestep_serves_all_rows() {
    let bench = Bench::new(&tiny(), 2);
    let one = bench.predict(UNetInput { timesteps: &[300.0], ..bench.input() });
    let each = bench.predict(UNetInput { timesteps: &[300.0, 300.0], ..bench.input() });
    assert!(difference(one, each) < 1e-6);
}

#[test]
fn any_size_comes_back_as_it_went_in() {
    let three = UNetConfig {
        block_out_channels: vec![4, 8, 8],
        down_block_types: vec![DownBlockType::DownBlock2D; 3],
        up_block_types: vec![UpBlockType::UpBlock2D; 3],
        attention_head_dim: OneOrMany::One(2),
        ..tiny()
    };
    // Downsampling rounds down with padding 0 and up with padding 1.
    for (downsample_padding, smallest) in [(1, 1), (0, 4)] {
        let config = UNetConfig { downsample_padding, ..three.clone() };
        for [height, width] in [[smallest, smallest], [5, 9], [8, 12], [11, 6]] {
            let bench = Bench { sample: random([1, 4, height, width]), ..Bench::new(&config, 1) };
            assert_eq!(bench.predict(bench.input()).dims(), [1, 4, height, width]);
        }
    }
}

#[test]
fn residuals_of_zeros_are_no_residuals_and_others_are_added() {
    let bench = Bench::new(&tiny(), 2);
    // conv_in, one resnet and one downsampler at full size, one resnet at half size.
    let shapes = [[2, 12, 7, 6], [2, 12, 7, 6], [2, 12, 4, 3], [2, 16, 4, 3]];
    let zero = Residuals {
        down: shapes.map(|shape| Tensor::zeros(shape, &cpu())).to_vec(),
        mid: Some(Tensor::zeros(shapes[3], &cpu())),
        levels: Vec::new(),
    };
    let plain = bench.predict(bench.input());
    let with = |residuals: &Residuals| bench.predict(UNetInput { residuals: Some(residuals), ..bench.input() });
    assert_eq!(difference(with(&zero), plain.clone()), 0.0);
    assert_eq!(difference(with(&Residuals::default()), plain.clone()), 0.0);
    for (index, shape) in shapes.into_iter().enumerate() {
        let mut changed = zero.clone();
        changed.down[index] = random(shape);
        assert!(difference(with(&changed), plain.clone()) > 1e-4, "skip connection {index}");
    }
    let changed = Residuals { mid: Some(random(shapes[3])), ..zero };
    assert!(difference(with(&changed), plain) > 1e-4);
}

#[test]
fn a_centred_input_is_shifted_first() {
    let bench = Bench::new(&tiny(), 1);
    let plain = bench.predict(bench.input());
    let centring = UNet { center_input_sample: true, ..bench.unet.clone() };
    let sample = (bench.sample.clone() + 1.0) / 2.0;
    let shifted = centring.forward(UNetInput { sample, ..bench.input() }).sample.unwrap();
    assert!(difference(shifted, plain) < 1e-5);
}

#[test]
fn nine_channels_take_a_mask_and_a_masked_image() {
    let config = UNetConfig { in_channels: 9, ..tiny() };
    let bench = Bench::new(&config, 1);
    assert_eq!(bench.unet.in_channels(), 9);
    assert_eq!(bench.predict(bench.input()).dims(), [1, 4, 7, 6]);
}

/// Casts all weights to another data type.
struct ToType(DType);

impl ModuleMapper for ToType {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| x.cast(self.0))
    }
}

#[test]
fn half_precision_weights_predict_nearly_the_same_in_the_type_of_the_input() {
    for upcast_attention in [false, true] {
        let bench = Bench::new(&UNetConfig { upcast_attention, ..tiny() }, 2);
        let expected = bench.predict(bench.input());
        for (dtype, tolerance) in [(DType::F16, 2e-2), (DType::BF16, 1e-1)] {
            let unet = bench.unet.clone().map(&mut ToType(dtype));
            let got = unet.forward(bench.input()).sample.unwrap();
            assert_eq!(got.dtype(), DType::F32);
            let error = difference(got, expected.clone());
            assert!(error > 0.0 && error < tolerance, "{dtype:?}: {error}");
        }
    }
}

#[test]
#[should_panic(expected = "3 residuals for 4 skip connections")]
fn residuals_of_another_network_are_refused() {
    let bench = Bench::new(&tiny(), 1);
    let residuals = Residuals { down: vec![bench.sample.clone(); 3], ..Residuals::default() };
    bench.predict(UNetInput { residuals: Some(&residuals), ..bench.input() });
}

#[test]
#[should_panic(expected = "2 timesteps for 3 rows")]
fn timesteps_that_do_not_fit_the_rows_are_refused() {
    let bench = Bench::new(&tiny(), 3);
    bench.predict(UNetInput { timesteps: &[1.0, 2.0], ..bench.input() });
}
