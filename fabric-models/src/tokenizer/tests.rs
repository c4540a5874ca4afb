//! Tests of bad input, and of properties that hold for every text.

use std::fs;

use super::*;

fn tokenizer() -> ClipTokenizer {
    ClipTokenizer::openai()
}

/// A custom vocabulary: the bytes, two merges, special tokens with other names and ids.
fn small() -> (String, String, TokenizerConfig) {
    let mut tokens: Vec<String> = vec!["[start]".into(), "[pad]".into()];
    for end in ["", "</w>"] {
        tokens.extend(alphabet::CHARACTERS.iter().map(|c| format!("{c}{end}")));
    }
    tokens.extend(["re".into(), "red</w>".into(), "[end]".into()]);
    let vocab: std::collections::BTreeMap<String, usize> = tokens.into_iter().zip(0..).collect();
    let config = TokenizerConfig {
        bos_token: "[start]".into(),
        eos_token: "[end]".into(),
        pad_token: Some("[pad]".into()),
        model_max_length: 8,
        ..TokenizerConfig::default()
    };
    (serde_json::to_string(&vocab).unwrap(), "#version: 0.2\nr e\nre d</w>\n".into(), config)
}

/// Returns random text of sequences that some rule treats specially, ASCII, the first 0x2100 code points, and any
/// others.
fn random_text(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u32 % below
    };
    let spices =
        ["Ã©", "â€œ", "&amp;", "&#x1F600;", "ﬁ", "Ａ", "\r\n", "<|endoftext|>", "'S", "\u{345}", "e\u{301}", "(a:1.2)"];
    (0..next(60))
        .map(|_| match next(4) {
            0 => spices[next(spices.len() as u32) as usize].to_owned(),
            1 => char::from(next(128) as u8).to_string(),
            2 => char::from_u32(next(0x2100)).unwrap_or(' ').to_string(),
            _ => char::from_u32(next(0x11_0000)).unwrap_or('\u{fffd}').to_string(),
        })
        .collect()
}

#[test]
fn every_text_gives_known_ids_in_every_mode() {
    for cleaning in [Cleaning::Ftfy, Cleaning::Basic, Cleaning::Fast, Cleaning::OpenClip] {
        let tokenizer = tokenizer().with_cleaning(cleaning);
        for seed in 0..500 {
            let text = random_text(seed);
            let ids = tokenizer.encode(&text).unwrap();
            assert!(ids.iter().all(|&id| id < 49_408), "{text:?}");
            tokenizer.decode(&ids).unwrap();
        }
    }
}

#[test]
fn decoded_text_encodes_to_the_same_ids() {
    let tokenizer = tokenizer();
    for text in ["a small red star on blue", "don't STOP, café 日本 😀 №5!", "１２３ ﬁ Ã©tÃ©", "&lt;b&gt; 'quoted'"]
    {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.encode(&tokenizer.decode(&ids).unwrap()).unwrap(), ids, "{text}");
    }
    assert_eq!(tokenizer.decode(&tokenizer.encode("It's 10 dogs").unwrap()).unwrap(), "it 's 1 0 dogs");
}

#[test]
fn prompts_made_to_be_slow_are_not_and_longer_ones_are_refused() {
    let tokenizer = tokenizer();
    let start = std::time::Instant::now();
    for piece in ["a", "日", "Ã©", "(", "\u{83}", "¤Š"] {
        let text = piece.repeat(MAX_PROMPT_BYTES / piece.len());
        tokenizer.encode(&text).unwrap();
        WeightedPrompt::parse(&text).unwrap();
    }
    // Texts from which each round removes only one layer.
    for text in [
        format!("&{}é", "amp;".repeat(16_000)),
        format!("Ã{}", "ƒ".repeat(32_000)),
        format!("日Ã{}", "ƒ".repeat(32_000)),
    ] {
        tokenizer.encode(&text).unwrap();
    }
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());

    let error = tokenizer.encode(&"a".repeat(1_000_000)).unwrap_err();
    assert_eq!(error.to_string(), "the prompt has 1000000 bytes, at most 65536 are read; shorten it");
    let prompt = WeightedPrompt { runs: vec![weights::WeightedRun { text: "a ".repeat(20_000), weight: 1.0 }; 2] };
    let error = tokenizer.chunks(&prompt, 77, PadWith::Eos, 1).unwrap_err();
    assert!(matches!(error, TokenizerError::PromptTooLong { got: 80_000, .. }), "{error}");
}

#[test]
fn a_vocabulary_of_our_own_works() {
    let (vocab, merges, config) = small();
    let tokenizer = ClipTokenizer::from_parts(&vocab, &merges, &config).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.padding()), (0, 516, PadWith::Id(1)));
    assert_eq!(tokenizer.vocabulary_size(), 517);
    let prompt = tokenizer.tokenize("Red [pad]", tokenizer.window(), tokenizer.padding()).unwrap();
    assert_eq!(prompt.ids, [0, 515, 1, 516, 1, 1, 1, 1]);
    assert_eq!(tokenizer.decode(&[0, 514, 515, 516]).unwrap(), "rered");
    // The references recognise two special tokens by fixed names, which are not in this vocabulary.
    assert_eq!(tokenizer.encode("<|StartOfText|>").unwrap(), [516]);
    assert!(matches!(tokenizer.decode(&[517]), Err(TokenizerError::UnknownId { got: 517, size: 517 })));
}

#[test]
fn a_saved_tokenizer_comes_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (vocab, merges, mut config) = small();
    config.added_tokens = vec![("<my-cat>".into(), 520)];
    config.do_lower_case = false;
    let own = ClipTokenizer::from_parts(&vocab, &merges, &config).unwrap();
    for (tokenizer, text) in [(own, "Red <my-cat> é"), (tokenizer(), "a Red star!")] {
        tokenizer.save(folder.path()).unwrap();
        let again = ClipTokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert_eq!(
            again.tokenize(text, 8, again.padding()).unwrap(),
            tokenizer.tokenize(text, 8, tokenizer.padding()).unwrap()
        );
        assert_eq!((again.window(), again.vocabulary_size()), (tokenizer.window(), tokenizer.vocabulary_size()));
        fs::remove_file(folder.path().join("added_tokens.json")).ok();
    }
}

#[test]
fn case_is_kept_where_the_configuration_says_so() {
    let (vocab, merges, config) = small();
    let ids = |lower_case, text| {
        let config = TokenizerConfig { do_lower_case: lower_case, ..config.clone() };
        ClipTokenizer::from_parts(&vocab, &merges, &config).unwrap().encode(text).unwrap()
    };
    assert_eq!(ids(true, "RED"), ids(true, "red"));
    assert_ne!(ids(false, "RED"), ids(false, "red"));
    assert_eq!(ids(false, "red"), ids(true, "red"));
}

#[test]
fn a_pad_token_in_the_prompt_is_the_pad_token() {
    // SD 2 pads with `!`, so the reference treats every `!` of a prompt as padding.
    let folder = tempfile::tempdir().unwrap();
    tokenizer().save(folder.path()).unwrap();
    let map = r#"{"bos_token": {"content": "<|startoftext|>", "lstrip": false}, "eos_token": "<|endoftext|>",
        "pad_token": "!", "unk_token": {"content": "<|endoftext|>"}}"#;
    fs::write(folder.path().join("special_tokens_map.json"), map).unwrap();
    let sd2 = ClipTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(sd2.padding(), PadWith::Id(0));
    assert_eq!(sd2.encode("wow! yes!!! a!b").unwrap(), [2781, 0, 1958, 0, 0, 0, 320, 0, 321]);
    assert_eq!(tokenizer().encode("wow! yes!!! a!b").unwrap(), [2781, 256, 1958, 995, 320, 256, 321]);
}

#[test]
fn settings_are_read_as_transformers_reads_them() {
    let main = r#"{"pad_token": "a", "model_max_length": 1000000000000000019884624838656, "do_lower_case": true}"#;
    let map = r#"{"pad_token": {"content": "b"}}"#;
    let config = TokenizerConfig::from_json(Some(main), Some(map)).unwrap();
    assert_eq!((config.pad_token.as_deref(), config.model_max_length), (Some("b"), 77));
    let main = r#"{"pad_token": "a", "added_tokens_decoder": {"7": {"content": "<x>", "special": true}}}"#;
    let config = TokenizerConfig::from_json(Some(main), Some(map)).unwrap();
    assert_eq!(config.pad_token.as_deref(), Some("a"));
    assert_eq!(config.added_tokens, [("<x>".to_owned(), 7)]);
    assert_eq!(TokenizerConfig::from_json(None, None).unwrap(), TokenizerConfig::default());
}

fn fixture() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizer-json")
}

#[test]
fn a_tokenizer_in_one_file_is_that_of_the_two() {
    // The same tokenizer as saved by transformers 5.
    let one = ClipTokenizer::from_folder(fixture()).unwrap();
    let two = ClipTokenizer::from_folder(fixture().join("../tokenizer-files")).unwrap();
    assert_eq!((one.window(), one.padding(), one.bos()), (two.window(), two.padding(), two.bos()));
    assert_eq!(one.vocabulary_size(), two.vocabulary_size());
    for seed in 0..300 {
        let text = random_text(seed);
        assert_eq!(one.encode(&text).unwrap(), two.encode(&text).unwrap(), "{text:?}");
    }
    let text = "a large red star above two striped circles <|endoftext|>";
    assert_eq!(one.encode(text).unwrap(), two.encode(text).unwrap());
}

#[test]
fn a_tokenizer_in_one_file_is_read_by_its_path_and_saved_as_the_two() {
    let folder = tempfile::tempdir().unwrap();
    // The vocabulary beside it is another one.
    tokenizer().save(folder.path()).unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::copy(fixture().join("tokenizer.json"), &path).unwrap();
    let one = ClipTokenizer::from_tokenizer_json(&path).unwrap();
    assert_eq!(ClipTokenizer::from_folder(folder.path()).unwrap().vocabulary_size(), 49_408);
    let two = tempfile::tempdir().unwrap();
    one.save(two.path()).unwrap();
    for (name, text) in one.to_files() {
        assert_eq!(fs::read_to_string(two.path().join(name)).unwrap(), text, "{name}");
    }
    let again = ClipTokenizer::from_folder(two.path()).unwrap();
    for text in ["a large red star above two striped circles", "Ã©tÃ© <|endoftext|>!"] {
        assert_eq!(again.encode(text).unwrap(), one.encode(text).unwrap());
    }
    let missing = ClipTokenizer::from_tokenizer_json(folder.path().join("none.json")).unwrap_err();
    assert!(matches!(missing, TokenizerError::Io { .. }), "{missing}");
}

#[test]
fn a_padding_token_is_saved_and_recognised_in_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let padded = tokenizer().with_padding(PadWith::Id(0));
    padded.save(folder.path()).unwrap();
    let again = ClipTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!((padded.padding(), again.padding()), (PadWith::Id(0), PadWith::Id(0)));
    for text in ["a star", "a star!", "! !"] {
        assert_eq!(again.encode(text).unwrap(), padded.encode(text).unwrap(), "{text}");
    }
    assert_eq!(padded.encode("!").unwrap(), [0]);
    assert_eq!(padded.with_padding(PadWith::Eos).padding(), PadWith::Eos);
}

/// Loads the fixture's `tokenizer.json` after applying `change`.
fn one_file(change: impl FnOnce(&mut serde_json::Value)) -> Result<ClipTokenizer, TokenizerError> {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(fixture().join("tokenizer.json")).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    change(&mut value);
    fs::write(folder.path().join("tokenizer.json"), value.to_string()).unwrap();
    ClipTokenizer::from_folder(folder.path())
}

#[test]
fn a_tokenizer_in_one_file_of_any_version_is_read() {
    let now = one_file(|_| ()).unwrap();
    assert_eq!(now.window(), 77, "without the small files, CLIP's own settings");
    let before = one_file(|file| {
        for merge in file["model"]["merges"].as_array_mut().unwrap() {
            *merge = format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()).into();
        }
    });
    let text = "a striped circle above a star";
    assert_eq!(before.unwrap().encode(text).unwrap(), now.encode(text).unwrap());
    let inverted = one_file(|file| {
        let cat = serde_json::json!({"id": 713, "content": "<my-cat>", "special": false});
        file["added_tokens"].as_array_mut().unwrap().push(cat);
    });
    assert_eq!(inverted.unwrap().encode("<my-cat>").unwrap(), [713]);
}

#[test]
fn tokenizers_in_one_file_that_are_not_clips_are_refused_with_the_reason() {
    let refused = |change: &dyn Fn(&mut serde_json::Value), said: &str| {
        let error = one_file(change).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains(said), "{error}");
    };
    refused(&|file| file["model"]["type"] = "Unigram".into(), "Unigram");
    refused(&|file| file["model"] = serde_json::json!({"type": "WordPiece", "vocab": {}}), "WordPiece");
    refused(&|file| file["model"]["end_of_word_suffix"] = "".into(), "end_of_word_suffix");
    refused(&|file| file["model"]["merges"][3] = "a b c".into(), "list of pairs");
    refused(&|file| file["model"]["merges"] = serde_json::json!(["a"]), "the merge \"a\"");
    refused(&|file| file["model"]["merges"][3] = serde_json::json!(["a", "zzz"]), "merge 3 needs the token \"zzz\"");
    refused(&|file| file["model"]["vocab"] = serde_json::json!({}), "no tokens");
    refused(&|file| *file = serde_json::json!([]), "the library tokenizers");
}

#[test]
fn small_files_are_read_as_python_writes_them() {
    let main = "\u{feff}{\"model_max_length\": Infinity, \"note\": NaN}";
    assert_eq!(TokenizerConfig::from_json(Some(main), None).unwrap(), TokenizerConfig::default());
    assert!(TokenizerConfig::from_json(Some("{\"model_max_length\": -Infinity}"), None).is_err());
    let (vocab, merges, config) = small();
    let marked = |text: &str| format!("\u{feff}{text}");
    let tokenizer = ClipTokenizer::from_parts(&marked(&vocab), &marked(&merges), &config).unwrap();
    assert_eq!(tokenizer.encode("red").unwrap(), [515]);
}

#[track_caller]
fn refused(vocab: &str, merges: &str, expected: &str) {
    let error = ClipTokenizer::from_parts(vocab, merges, &TokenizerConfig::default()).unwrap_err().to_string();
    assert!(expected.split(" .. ").all(|part| error.contains(part)), "{error}");
}

#[test]
fn files_that_do_not_fit_are_refused_with_the_reason() {
    let specials = r#""<|startoftext|>": 3, "<|endoftext|>": 4}"#;
    let good = format!(r#"{{"a": 0, "b</w>": 1, {specials}"#);
    refused("", "#", "vocab.json: expected .. got EOF");
    refused("[]", "#", "expected one JSON object");
    refused("{}", "#", "no tokens");
    refused(r#"{"a": -1}"#, "#", "vocab.json");
    refused(r#"{"a": 4000000000}"#, "#", "expected ids below 1048576, got id 4000000000");
    refused(r#"{"a": 1, "b": 1}"#, "#", "one token for each id");
    refused(r#"{"": 1}"#, "#", "one token for each id");
    refused(r#"{"a": 1}"#, "#", "bos_token needs the token \"<|startoftext|>\"");
    refused(&good, "", "no first line that starts with `#`");
    refused(&good, "a b</w>", "no first line that starts with `#`");
    refused(&good, "#\na b</w>", "line 2 needs the token \"ab</w>\"");
    refused(&good, "#\na", "expected two tokens in each line, got \"a\" in line 2");
    refused(&good, "#\na\u{0} b c", "expected two tokens in each line");
    for small_file in ["", "7", "[]", "{\"pad_token\": 7}", "{\"model_max_length\": 1}", "{\"model_max_length\": -5}"] {
        assert!(TokenizerConfig::from_json(Some(small_file), None).is_err(), "{small_file}");
    }
}

#[test]
fn added_tokens_that_no_model_has_are_refused_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    tokenizer().save(folder.path()).unwrap();
    let refused = |file: &str, text: &str, expected: &str| {
        fs::write(folder.path().join(file), text).unwrap();
        let error = ClipTokenizer::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(expected), "{error}");
        fs::remove_file(folder.path().join(file)).unwrap();
    };
    refused("added_tokens.json", r#"{"<a>": 1048576}"#, "expected ids below 1048576, got id 1048576");
    let long = "a".repeat(1025);
    refused("added_tokens.json", &format!(r#"{{"{long}": 5}}"#), "expected tokens of at most 1024 bytes, got a token");
    let decoder = r#"{"added_tokens_decoder": {"4000000000": {"content": "<a>"}}}"#;
    refused("tokenizer_config.json", decoder, "got id 4000000000");
    let error = one_file(|file| file["added_tokens"][0]["id"] = 1_048_576.into()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("got id 1048576"), "{error}");

    let (vocab, merges, config) = small();
    let built = |added_tokens: Vec<(String, u32)>| {
        ClipTokenizer::from_parts(&vocab, &merges, &TokenizerConfig { added_tokens, ..config.clone() })
    };
    let numbered = |count: u32| (0..count).map(|i| (format!("<tok{i}>"), 600 + i)).collect::<Vec<_>>();
    let many = built(numbered(100_000)).unwrap();
    let ids = many.encode(&format!("{}<tok99999>", "a <to ".repeat(3500))).unwrap();
    assert_eq!(ids.last(), Some(&100_599));
    assert_eq!(many.decode(&[100_599; 1000]).unwrap().len(), 11 * 1000 - 1);
    let error = built(numbered(1 << 17)).unwrap_err().to_string();
    assert!(error.contains("special tokens: expected at most 131072, got 131075 tokens"), "{error}");
}

#[test]
fn missing_and_foreign_files_are_refused_with_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str| {
        let error = ClipTokenizer::from_folder(folder.path()).unwrap_err().to_string();
        assert!(name.split(" .. ").all(|part| error.contains(part)), "{error}");
    };
    error("vocab.json: cannot be read");
    fs::create_dir(folder.path().join("vocab.json")).unwrap();
    error("it is not a file");
    fs::remove_dir(folder.path().join("vocab.json")).unwrap();
    tokenizer().save(folder.path()).unwrap();
    fs::write(folder.path().join("merges.txt"), b"#\n\xff\xfe").unwrap();
    error("merges.txt: expected .. got invalid utf-8");
    fs::File::create(folder.path().join("merges.txt")).unwrap().set_len(1 << 30).unwrap();
    error("merges.txt: expected at most .. got 1073741824");
    assert!(matches!(tokenizer().save(folder.path().join("nowhere")), Err(TokenizerError::Write { .. })));
}

#[test]
fn windows_too_short_or_too_long_are_refused() {
    for window in [0, 1, usize::MAX] {
        assert!(matches!(tokenizer().tokenize("a", window, PadWith::Eos), Err(TokenizerError::Window { .. })));
        let prompt = WeightedPrompt::plain("a");
        assert!(matches!(tokenizer().chunks(&prompt, window, PadWith::Eos, 1), Err(TokenizerError::Window { .. })));
    }
    assert_eq!(tokenizer().tokenize("a", 2, PadWith::Id(0)).unwrap().ids, [49_406, 49_407]);
}

#[test]
fn windows_hold_the_whole_prompt_in_order() {
    let tokenizer = tokenizer();
    let text = "one two three four five six seven eight nine ten ".repeat(20);
    let ids = tokenizer.encode(&text).unwrap();
    let prompt = WeightedPrompt::plain(text.as_str());
    let mut chunks = tokenizer.chunks(&prompt, 77, PadWith::Id(0), 8).unwrap();
    assert_eq!((chunks.windows.len(), chunks.truncated.as_deref(), chunks.is_weighted()), (3, None, false));
    let inner: Vec<u32> = chunks.windows.iter().flat_map(|window| window[1..76].to_vec()).collect();
    assert_eq!(inner[..ids.len()], ids);
    assert_eq!(chunks.windows[2][51..54], [49_407, 0, 0]);
    chunks.lengthen(4);
    assert_eq!((chunks.windows[3][..3].to_vec(), chunks.weights[3].len()), (vec![49_406, 49_407, 0], 77));

    let one = tokenizer.chunks(&prompt, 77, PadWith::Id(0), 1).unwrap();
    let cut = tokenizer.tokenize(&text, 77, PadWith::Id(0)).unwrap();
    assert_eq!((&one.windows[0], &one.truncated), (&cut.ids, &cut.truncated));
    assert_eq!((one.windows.len(), cut.length), (1, 202));
    assert!(cut.truncated.unwrap().starts_with("six seven"));
    assert_eq!(tokenizer.chunks(&WeightedPrompt::plain(""), 77, PadWith::Eos, 3).unwrap().windows.len(), 1);
}

#[test]
fn brackets_weigh_words_in_every_window() {
    let prompt = WeightedPrompt::parse(r"a (red:1.5) star \(small\)").unwrap();
    let runs: Vec<_> = prompt.runs.iter().map(|run| (run.text.as_str(), run.weight)).collect();
    assert_eq!(runs, [("a ", 1.0), ("red", 1.5), (" star (small)", 1.0)]);
    let prompt = WeightedPrompt::parse("a (cat:1.5) and a dog").unwrap();
    let chunks = ClipTokenizer::openai().chunks(&prompt, 5, PadWith::Eos, 8).unwrap();
    assert_eq!(chunks.windows, [[49406, 320, 2368, 537, 49407], [49406, 320, 1929, 49407, 49407]]);
    assert_eq!(chunks.weights[0], [1.0, 1.0, 1.5, 1.0, 1.0]);
    let mut words = [true, false, true, true].into_iter();
    let prompt = WeightedPrompt::parse("a (small red:1.5) star").unwrap();
    assert_eq!(prompt.without_words(|| words.next().unwrap()).to_text(), "a (red:1.5) star");
}
