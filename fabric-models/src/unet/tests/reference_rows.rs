//! Tests of reference rows, and of passes that only record keys and values.

use std::collections::HashMap;

use fabric_core::attention::{DecoupledTokens, JointTokens};
use fabric_core::models::{RecordedTokens, Residuals, TextKvCache};

use super::*;

/// Processor that adds reference keys and values to the first `rows` rows at attn1, those of the remaining rows or
/// recorded ones, and decoupled image tokens to all rows at attn2.
#[derive(Debug)]
struct Offer {
    rows: usize,
    recorded: Option<HashMap<AttnSite, RecordedTokens>>,
    image: HashMap<usize, Tensor<3>>,
    all: usize,
}

impl AttnProcessor for Offer {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let channels = call.key.dims()[2];
        let mut extras = AttnExtras::default();
        if is_self(&call.site) {
            let (key, value) = match &self.recorded {
                Some(recorded) => (recorded[&call.site].key.clone(), recorded[&call.site].value.clone()),
                None => {
                    let references = call.key.dims()[0] - self.rows;
                    assert_eq!(references, self.all - self.rows, "{}: reference rows are still there", call.site);
                    let tokens_of = |x: &Tensor<3>| x.clone().narrow(0, self.rows, references);
                    (tokens_of(call.key), tokens_of(call.value))
                }
            };
            for lender in 0..key.dims()[0] {
                let of = |x: &Tensor<3>| x.clone().narrow(0, lender, 1);
                let (key, value) = (of(&key), of(&value));
                extras.joint.push(JointTokens {
                    rows: 0..self.rows,
                    key,
                    value,
                    weight: 0.5 + lender as f32,
                    merged_counts: Vec::new(),
                    away: None,
                    source: lender,
                });
            }
        } else {
            let tokens = self.image[&channels].clone();
            extras.decoupled.push(DecoupledTokens {
                rows: 0..self.all,
                key: tokens.clone().narrow(0, 0, self.all),
                value: tokens.narrow(0, 0, self.all),
                scale: 0.7,
                mask: None,
                weights: Vec::new(),
                shares_softmax: false,
            });
        }
        extras
    }
}

fn image_tokens(rows: usize) -> HashMap<usize, Tensor<3>> {
    [12, 16].map(|channels| (channels, random([rows, 3, channels]))).into()
}

fn recorded(bench: &Bench) -> Vec<RecordedTokens> {
    let output = bench.unet.forward(UNetInput { record: Record::SelfAttentionOnly, ..bench.input() });
    assert!(output.sample.is_none());
    output.recorded
}

/// Returns networks whose last self-attention is in an up block, in the middle block, and in a down block.
fn networks() -> [UNetConfig; 3] {
    let up_blocks = vec![UpBlockType::UpBlock2D; 2];
    let middle = UNetConfig { up_block_types: up_blocks, ..tiny() };
    let down = UNetConfig { mid_block_type: None, ..middle.clone() };
    let deep = UNetConfig { transformer_layers_per_block: Depths::Same(2), use_linear_projection: true, ..tiny() };
    [deep, middle, down]
}

#[test]
fn reference_rows_equal_recorded_tokens() {
    for config in networks() {
        let bench = Bench::new(&config, 4);
        let (kept, references) = (bench.rows(0, 2), bench.rows(2, 2));
        let image = image_tokens(4);
        let in_batch = Offer { rows: 2, recorded: None, image: image.clone(), all: 4 };
        let interleaved = bench.unet.forward(UNetInput { processor: &in_batch, reference_rows: 2, ..bench.input() });
        let interleaved = interleaved.sample.unwrap();
        assert_eq!(interleaved.dims(), [2, 4, 7, 6]);

        // The reference rows attend to image tokens too, so their recording pass must do the same.
        let theirs = Offer {
            rows: 0,
            recorded: Some(HashMap::new()),
            image: image.iter().map(|(&c, x)| (c, x.clone().narrow(0, 2, 2))).collect(),
            all: 2,
        };
        let recording =
            UNetInput { processor: &ImageOnly(theirs), record: Record::SelfAttentionOnly, ..references.input() };
        let tokens = bench.unet.forward(recording).recorded;
        let table = tokens.into_iter().map(|tokens| (tokens.site, tokens)).collect();
        let offered = Offer { rows: 2, recorded: Some(table), image, all: 2 };
        let two_passes = kept.predict(UNetInput { processor: &offered, ..kept.input() });
        assert!(difference(interleaved.clone(), two_passes) < 1e-5);

        let unsteered = kept.predict(kept.input());
        assert!(difference(interleaved, unsteered) > 1e-3, "tokens that change nothing prove nothing");
    }
}

/// Processor that applies the wrapped one at attn2 only.
#[derive(Debug)]
struct ImageOnly(Offer);

impl AttnProcessor for ImageOnly {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        if is_self(&call.site) { AttnExtras::default() } else { self.0.extras(call) }
    }
}

#[test]
fn rows_that_lend_to_nobody_change_nothing() {
    for config in networks() {
        let bench = Bench::new(&config, 3);
        let with = bench.predict(UNetInput { reference_rows: 1, ..bench.input() });
        let kept = bench.rows(0, 2);
        assert!(difference(with, kept.predict(kept.input())) < 1e-5);
    }
}

#[test]
fn kept_text_keys_change_nothing_and_are_used() {
    for config in networks() {
        let bench = Bench::new(&config, 3);
        let text_kv_cache = TextKvCache::default();
        for _ in 0..2 {
            let kept = bench.predict(UNetInput { text_kv_cache: Some(&text_kv_cache), ..bench.input() });
            assert_eq!(kept.into_data(), bench.predict(bench.input()).into_data());
        }
        // With another text, the cached keys and values are still used.
        let other =
            UNetInput { context: random([3, 5, CONTEXT]), text_kv_cache: Some(&text_kv_cache), ..bench.input() };
        assert_eq!(bench.predict(other).into_data(), bench.predict(bench.input()).into_data());
        // With reference rows, which are dropped before the last cross-attentions.
        let text_kv_cache = TextKvCache::default();
        let pass = || UNetInput { reference_rows: 1, text_kv_cache: Some(&text_kv_cache), ..bench.input() };
        let expected = bench.predict(UNetInput { reference_rows: 1, ..bench.input() }).into_data();
        assert_eq!(
            [bench.predict(pass()).into_data(), bench.predict(pass()).into_data()],
            [expected.clone(), expected]
        );
    }
}

#[test]
fn reference_rows_may_be_left_out_of_residuals() {
    for config in networks() {
        let bench = Bench::new(&config, 3);
        let kept = bench.rows(0, 1);
        let shapes = [[1, 12, 7, 6], [1, 12, 7, 6], [1, 12, 4, 3], [1, 16, 4, 3]];
        let residuals = Residuals {
            down: shapes.map(random).to_vec(),
            mid: Some(random(shapes[3])),
            levels: [shapes[0], shapes[3], shapes[3]].map(random).to_vec(),
        };
        let with = bench.predict(UNetInput { reference_rows: 2, residuals: Some(&residuals), ..bench.input() });
        let expected = kept.predict(UNetInput { residuals: Some(&residuals), ..kept.input() });
        assert!(difference(with.clone(), expected) < 1e-5);
        // Residuals for all rows; those of the reference rows have no effect.
        let wide = |x: &Tensor<4>| Tensor::cat(vec![x.clone(), x.clone(), x.clone()], 0);
        let all = Residuals {
            down: residuals.down.iter().map(wide).collect(),
            mid: residuals.mid.as_ref().map(wide),
            levels: residuals.levels.iter().map(wide).collect(),
        };
        let got = bench.predict(UNetInput { reference_rows: 2, residuals: Some(&all), ..bench.input() });
        assert!(difference(got, with) < 1e-5);
    }
}

#[test]
fn recording_equals_what_a_processor_sees() {
    for config in networks() {
        let bench = Bench::new(&config, 2);
        let spy = Spy::default();
        bench.predict(UNetInput { processor: &spy, ..bench.input() });
        let seen: Vec<_> = spy.calls().into_iter().filter(|call| is_self(&call.0)).collect();
        let recorded = recorded(&bench);
        assert_eq!(recorded.len(), seen.len());
        for (tokens, (site, key, value, _)) in recorded.into_iter().zip(seen) {
            assert_eq!(tokens.site, site);
            assert_eq!(difference(tokens.key, key), 0.0);
            assert_eq!(difference(tokens.value, value), 0.0);
        }
    }
}

#[test]
fn recording_ends_with_the_last_key_and_value() {
    let bench = Bench::new(&tiny(), 1);
    let spy = Spy::default();
    let input = UNetInput { processor: &spy, record: Record::SelfAttentionOnly, ..bench.input() };
    let mut parts = Vec::new();
    bench.unet.forward_traced(input, &mut |name, _| parts.push(name.to_owned()));
    let asked: Vec<AttnSite> = spy.calls().into_iter().map(|call| call.0).collect();
    let sites = bench.unet.attention_sites();
    // The last attn1, the attn2 after it and all later layers are not computed.
    assert_eq!(asked, sites[..sites.len() - 2]);
    assert_eq!(parts.last().unwrap(), "up_blocks.0");
}

#[test]
fn without_self_attention_there_is_nothing_to_record_or_lend() {
    let config = UNetConfig {
        down_block_types: vec![DownBlockType::DownBlock2D; 2],
        up_block_types: vec![UpBlockType::UpBlock2D; 2],
        mid_block_type: None,
        ..tiny()
    };
    let bench = Bench::new(&config, 3);
    assert!(bench.unet.attention_sites().is_empty());
    assert!(recorded(&bench).is_empty());
    let kept = bench.rows(0, 2);
    let with = bench.predict(UNetInput { reference_rows: 1, ..bench.input() });
    assert!(difference(with, kept.predict(kept.input())) < 1e-5);
}

#[test]
#[should_panic(expected = "2 of 2 rows are references")]
fn some_row_must_be_predicted() {
    let bench = Bench::new(&tiny(), 2);
    bench.predict(UNetInput { reference_rows: 2, ..bench.input() });
}
