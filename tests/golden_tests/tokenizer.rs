//! Golden file `tokenizer`.

use fabric::models::tokenizer::{Cleaning, ClipTokenizer, PadWith};

use super::harness::{Golden, json};

/// Compares each row of token ids and reports the texts that differ.
#[track_caller]
fn compare(golden: &serde_json::Value, list: &str, cleaning: Cleaning) {
    let tokenizer = ClipTokenizer::openai().with_cleaning(cleaning);
    let texts = golden["texts"].as_array().expect("texts");
    let expected = golden[list].as_array().unwrap_or_else(|| panic!("no list {list}"));
    assert_eq!(texts.len(), expected.len(), "{list}");
    let mut wrong = Vec::new();
    for (text, expected) in texts.iter().zip(expected) {
        let text = text.as_str().expect("a text");
        let expected: Vec<u32> = serde_json::from_value(expected.clone()).expect("ids");
        // The window is as long as the golden row: no padding, and truncated at the same token.
        let got = tokenizer.tokenize(text, expected.len(), PadWith::Eos).expect("ids");
        let fits = got.length == expected.len() || (got.length > 77 && expected.len() == 77);
        if got.ids != expected || !fits {
            wrong.push(format!("{text:?}: expected {expected:?}, got {:?}", got.ids));
        }
    }
    assert!(
        wrong.is_empty(),
        "{list}: {} of {} differ: {:#?}",
        wrong.len(),
        texts.len(),
        &wrong[..wrong.len().min(20)]
    );
}

#[test]
fn ids_equal_those_of_the_slow_tokenizer_with_ftfy() {
    compare(&json("tokenizer.json"), "ids_hf", Cleaning::Ftfy);
}

#[test]
fn ids_equal_those_of_the_slow_tokenizer_without_ftfy() {
    compare(&json("tokenizer.json"), "ids_hf_no_ftfy", Cleaning::Basic);
}

#[test]
fn ids_equal_those_of_the_fast_tokenizer() {
    compare(&json("tokenizer.json"), "ids_hf_fast", Cleaning::Fast);
}

#[test]
fn ids_equal_those_of_openclip() {
    compare(&json("tokenizer.json"), "ids_openclip", Cleaning::OpenClip);
}

#[test]
fn untruncated_lengths_are_reported() {
    let golden = json("tokenizer.json");
    let tokenizer = ClipTokenizer::openai();
    let lengths = golden["untruncated_hf_len"].as_array().expect("lengths");
    for (text, expected) in golden["texts"].as_array().expect("texts").iter().zip(lengths) {
        let got = tokenizer.tokenize(text.as_str().expect("a text"), 77, PadWith::Eos).expect("ids");
        assert_eq!(Some(got.length as u64), expected.as_u64(), "{text}");
        assert_eq!(got.truncated.is_some(), got.length > 77, "{text}");
    }
}

#[test]
fn padded_rows_are_equal() {
    let texts = json("tokenizer.json")["texts"].clone();
    let texts = texts.as_array().expect("texts");
    let golden = Golden::open("tokenizer");
    for (key, cleaning, pad) in
        [("padded_hf", Cleaning::Ftfy, PadWith::Eos), ("padded_openclip", Cleaning::OpenClip, PadWith::Id(0))]
    {
        let tokenizer = ClipTokenizer::openai().with_cleaning(cleaning);
        let window = golden.shape(key)[1];
        assert_eq!(golden.shape(key)[0], texts.len(), "{key}");
        let rows = texts
            .iter()
            .flat_map(|text| tokenizer.tokenize(text.as_str().expect("a text"), window, pad).expect("ids").ids);
        let got: Vec<f64> = rows.map(f64::from).collect();
        // Ids must be equal, without a tolerance.
        assert_eq!(got, golden.values(key), "{key}");
        golden.compare_values(key, &got);
    }
    golden.finish();
}
