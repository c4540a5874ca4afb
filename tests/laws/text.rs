//! Long, weighted and shortened prompts.

use super::*;

#[test]
fn a_long_prompt_is_cut_with_a_word_about_it_or_read_in_windows() {
    let mut request = request(everywhere());
    request.prompt = "a very long prompt about nothing at all ".repeat(20);
    let cut = make(&request);
    assert!(!cut.report.truncated.is_empty());
    request.settings.text.long_prompts = true;
    let whole = make(&request);
    assert!(whole.report.truncated.is_empty());
    assert_differ(&cut, &whole);
}

#[test]
fn prompt_weights_are_read_only_when_asked_for() {
    let prompt = |text: &str, weights| {
        let mut request = request(everywhere());
        request.prompt = text.to_owned();
        request.settings.text.weights = weights;
        make(&request)
    };
    assert_same(&prompt("a cat", false), &prompt("a cat", true));
    assert_differ(&prompt("a (cat:1.5)", false), &prompt("a (cat:1.5)", true));
    assert_differ(&prompt("a cat", true), &prompt("a (cat:1.5)", true));
}

fn dropping_out(seeds: std::ops::Range<u64>) -> Request {
    let mut request = request(everywhere()).with_seeds(seeds);
    request.prompt = vec!["cat"; 108].join(" ");
    request.settings.prompt_dropout = 0.3;
    request
}

#[test]
fn an_image_of_a_long_prompt_with_dropout_does_not_depend_on_its_batch() {
    let mut request = dropping_out(0..6);
    let cut_off = |seed| !make(&Request { seeds: vec![seed], ..request.clone() }).report.truncated.is_empty();
    let two_windows: Vec<bool> = (0..6).map(cut_off).collect();
    assert!(two_windows.contains(&true) && two_windows.contains(&false), "else this proves nothing: {two_windows:?}");
    request.settings.text.long_prompts = true;
    let together = make(&request);
    for seed in 0..6 {
        let of_batch = together.latents.clone().slice_dim(0, seed..seed + 1);
        let alone = make(&Request { seeds: vec![seed as u64], ..request.clone() });
        assert_same(&Generation { latents: of_batch, ..together.clone() }, &alone);
    }
}

#[test]
fn a_report_says_what_each_batch_lost() {
    let mut request = dropping_out(0..6);
    let of_each = |seed| make(&Request { seeds: vec![seed], ..request.clone() }).report.truncated;
    let mut expected: Vec<String> = (0..6).flat_map(of_each).collect();
    request.settings.batch = Some(1);
    let mut got = make(&request).report.truncated;
    [&mut expected, &mut got].into_iter().for_each(|texts| texts.sort());
    expected.dedup();
    assert!(expected.len() > 1, "else this proves nothing: {expected:?}");
    assert_eq!(got, expected);
}
