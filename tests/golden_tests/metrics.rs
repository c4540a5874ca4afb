//! Golden file `metrics`.

use burn::tensor::Tensor;
use fabric::core::metrics::{in_batch_similarity, mean_similarity, nearest, similarity};

use super::harness::{Golden, device};

#[test]
fn metrics_equal_the_reference() {
    let golden = Golden::open("metrics");
    let device = device();
    for case in golden.cases() {
        let key = |name: &str| format!("{case}/{name}");
        let a: Tensor<2> = golden.tensor(&key("a"), &device);
        let b: Tensor<2> = golden.tensor(&key("b"), &device);
        let all = similarity(a.clone(), b.clone());
        assert_eq!(golden.shape(&key("similarity")), [all.len(), all[0].len()], "{case}");
        golden.compare_values(&key("similarity"), &all.concat());
        golden.compare_values(&key("self_similarity"), &similarity(a.clone(), a.clone()).concat());
        golden.compare_values(&key("diversity"), &[in_batch_similarity(a.clone()).expect("pairs")]);
        golden.compare_values(&key("mean"), &[mean_similarity(a.clone(), b.clone()).expect("images")]);
        golden.compare_values(&key("nearest"), &nearest(a, b));
    }
    golden.finish();
}
