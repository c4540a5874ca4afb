//! Prompts, their weights, and the files of tokenizers.

use std::fs;
use std::path::Path;

use fabric::core::models::{TextOptions, WeightNormalisation};
use fabric::models::clip::{ClipText, ClipTextConfig};
use fabric::models::tokenizer::{ClipTokenizer, PadWith};
use serde_json::{Value, json};

use crate::case::{Case, Outcome, check, file, nothing, said, sparse_file};
use crate::models::{config_text, device, fixture, pipeline};

pub(crate) const COUNT: usize = 144;

/// Tokens of a small vocabulary, and their merges.
const VOCABULARY: &str = r#"{"h": 0, "i</w>": 1, "hi</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}"#;
const MERGES: &str = "#version: 0.2\nh i</w>\n";

fn weighted() -> TextOptions {
    TextOptions { weights: true, ..TextOptions::default() }
}

/// Encodes a prompt, and returns an error if the embedding has another shape or is not finite.
fn encode(prompt: &str, options: &TextOptions) -> Outcome {
    let made = pipeline().text_encoder().encode(&[prompt.to_owned()], options).map_err(|error| error.to_string())?;
    let dims = made.context.dims();
    let values: Vec<f32> = made.context.into_data().convert::<f32>().iter::<f32>().collect();
    check(dims[0] == 1 && dims[1].is_multiple_of(77) && dims[2] == 32, format!("an embedding of {dims:?}"))?;
    check(values.iter().all(|value| value.is_finite()), "an embedding that is not finite")
}

/// A prompt that is refused under these options.
fn refused(name: &str, prompt: String, options: TextOptions, words: &[&str]) -> Case {
    let encode = move |_: &Path| said(pipeline().text_encoder().encode(&[prompt], &options));
    Case::refused(name, words, nothing, encode)
}

/// Writes a tokenizer of two files and one more file, which may replace one of the two.
fn folder(more: impl FnOnce(&Path) + 'static) -> impl FnOnce(&Path) + 'static {
    move |place: &Path| {
        fs::write(place.join("vocab.json"), VOCABULARY).expect("a written file");
        fs::write(place.join("merges.txt"), MERGES).expect("a written file");
        more(place);
    }
}

/// A tokenizer that is refused because of one of its files.
fn tokenizer(name: &str, at: &'static str, text: impl Into<Vec<u8>>, words: &[&str]) -> Case {
    let words = [words, &[at]].concat();
    Case::refused(format!("{at}: {name}"), &words, folder(file(at, text.into())), |place| {
        said(ClipTokenizer::from_folder(place))
    })
}

/// A tokenizer that is accepted.
fn accepted(name: &str, at: &'static str, text: &str, to: &str, holds: fn(&ClipTokenizer) -> bool) -> Case {
    Case::falls_back(format!("{at}: {name}"), to, folder(file(at, text.as_bytes().to_vec())), move |place| {
        let tokenizer = ClipTokenizer::from_folder(place).map_err(|error| error.to_string())?;
        check(holds(&tokenizer), "another tokenizer")
    })
}

pub(crate) fn check_base() {
    assert_eq!(encode("a small red star", &TextOptions::default()), Ok(()));
    assert_eq!(encode("a (small:1.2) [red] star", &weighted()), Ok(()));
    let place = tempfile::tempdir().expect("a folder");
    folder(nothing)(place.path());
    assert_eq!(ClipTokenizer::from_folder(place.path()).expect("a tokenizer").encode("Hi").expect("ids"), [2]);
    ClipTokenizer::from_folder(fixture("tokenizer-json")).expect("a tokenizer in one file");
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(weights());
    cases.extend(texts());
    cases.extend(vocabularies());
    cases.extend(merges());
    cases.extend(single_files());
    cases.extend(small_files());
    cases.extend(ids());
    cases
}

/// Prompts that are too long.
fn lengths() -> Vec<Case> {
    let plain = TextOptions::default;
    let long = || TextOptions { long_prompts: true, ..TextOptions::default() };
    let most = "at most 65536 are read";
    let brackets = format!("({}) {}", "a".repeat(40_000), "b".repeat(40_000));
    vec![
        refused("a prompt of a byte too many", "a".repeat(65_537), plain(), &["the prompt has 65537 bytes", most]),
        refused("a prompt of 80 MB", "a ".repeat(40 << 20), plain(), &["the prompt has 83886080 bytes", most]),
        refused(
            "few letters of many bytes",
            "\u{1f31f}".repeat(16_385),
            plain(),
            &["the prompt has 65540 bytes", most],
        ),
        refused(
            "a long prompt for several windows",
            "star ".repeat(14_000),
            long(),
            &["the prompt has 70000 bytes", most],
        ),
        refused("a long prompt in two weights", brackets, weighted(), &["the prompt has 80001 bytes", most]),
        refused(
            "a fourth layer to skip of three",
            "a star".to_owned(),
            TextOptions { clip_skip: Some(4), ..TextOptions::default() },
            &["clip_skip 4", "3 layers"],
        ),
    ]
}

/// Weights of words.
fn weights() -> Vec<Case> {
    let mut cases = Vec::new();
    let long = format!("({}:11)", "star ".repeat(5000));
    for (name, prompt, got) in [
        ("not a number", "(star:nan)", "is NaN,"),
        ("infinite", "(star:inf)", "is inf,"),
        ("minus infinity", "(star:-Infinity)", "is -inf,"),
        ("above ten", "(star:11)", "is 11,"),
        ("far below zero", "(star:-1e9)", "is -1000000000,"),
        ("beyond f32", "(star:1e39)", "is inf,"),
        ("above ten in two pairs of brackets", "((star:4):4)", "is 16,"),
        ("above ten after a good one", "(a:1.2) (b:99)", "is 99,"),
        ("above ten of a long text", long.as_str(), "is 11,"),
    ] {
        let words = ["the weight of", got, "expected a number from -10 to 10"];
        cases.push(refused(&format!("a weight that is {name}"), prompt.to_owned(), weighted(), &words));
    }
    let round = format!("{}star{}", "(".repeat(40), ")".repeat(40));
    cases.push(refused("a star in 40 pairs of brackets", round, weighted(), &["the weight of", "-10 to 10"]));
    let commands = "(\u{1b}c\r\n\u{202e}:99)".to_owned();
    cases.push(refused("a weight of a text that clears the terminal", commands, weighted(), &["\\u{1b}c", "is 99,"]));
    for (name, prompt) in [
        ("a weight of zero", "(star:0)"),
        ("the smallest weight", "a (star:-10)"),
        ("a weight near zero", "(star:1e-45)"),
        ("a weight of minus zero", "(star:-0)"),
        ("a weight of no text", "(:1.2)"),
    ] {
        for (rule, weight_normalisation) in [
            ("no rule", WeightNormalisation::None),
            ("the rule of means", WeightNormalisation::Mean),
            ("the rule of ComfyUI", WeightNormalisation::Comfy),
        ] {
            let options = TextOptions { weight_normalisation, ..weighted() };
            let name = format!("{name} under {rule}");
            cases.push(Case::falls_back(name, "the embedding is finite", nothing, move |_| encode(prompt, &options)));
        }
    }
    for (name, prompt) in [
        ("a weight in words", "(star:two)"),
        ("a weight of nothing", "(star:)"),
        ("a weight in base 16", "(star:0x10)"),
        ("a weight in other digits", "(star:\u{661}\u{662})"),
        ("brackets without a text", "()[](())"),
        ("brackets that are never closed", "((([[[ star"),
        ("brackets that are never opened", "star )))]]]"),
        ("brackets that cross", "(a [b) c]"),
        ("an escape at the end", "star \\"),
    ] {
        let to = "what is no weight is text";
        cases.push(Case::falls_back(name, to, nothing, move |_| encode(prompt, &weighted())));
    }
    let many = format!("{}{}", "([".repeat(10_000), "a)".repeat(10_000));
    cases.push(refused("twenty thousand brackets", many, weighted(), &["the weight of"]));
    cases
}

/// Texts that nobody writes.
fn texts() -> Vec<Case> {
    let texts: [(&str, String); 24] = [
        ("no text", String::new()),
        ("white space", " \t\r\n\u{a0}\u{3000}".to_owned()),
        ("zero bytes", "\0\0\0".to_owned()),
        ("control characters", (1..32_u8).map(char::from).collect()),
        ("a command to a terminal", "\u{1b}]0;title\u{7}\u{1b}[2J".to_owned()),
        ("text from right to left", "\u{202e}star\u{202c} \u{2066}\u{2069}".to_owned()),
        ("characters without width", "\u{200b}\u{200d}\u{feff}\u{2060}".repeat(1000)),
        ("a letter with 10,000 accents", format!("a{}", "\u{301}".repeat(10_000))),
        ("a family of emoji", "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{1f3fd}".repeat(500)),
        ("the last code points", "\u{10ffff}\u{10fffe}\u{ffff}\u{fdd0}".to_owned()),
        ("private characters", "\u{e000}\u{f8ff}\u{f0000}".to_owned()),
        ("replacement characters", "\u{fffd}".repeat(10_000)),
        ("one word of 65,536 letters", "a".repeat(65_536)),
        ("65,536 digits", "7".repeat(65_536)),
        ("21,845 ideographs", "\u{661f}".repeat(21_845)),
        ("a ligature of 18 letters, 20,000 times", "\u{fdfa}".repeat(20_000)),
        ("letters that grow in lower case", "\u{130}".repeat(30_000)),
        ("entities of HTML", "&lt;&#0;&#x110000;&#99999999999;&amp;amp;amp;&nosuch;".repeat(500)),
        ("text read in the wrong encoding", "\u{c3}\u{a2}\u{e2}\u{201a}\u{ac}\u{e2}\u{201e}\u{a2}".repeat(2000)),
        ("tokens that begin and end prompts", "<|startoftext|><|endoftext|>".repeat(2000)),
        ("half of a token that ends prompts", "<|endoftext".repeat(5000)),
        ("quotes and backslashes", "\\\"'`${}\\u0000%s%n".repeat(1000)),
        ("apostrophes", "'s't're've'm'll'd".repeat(3000)),
        ("a path", "../../../etc/passwd\0.png".to_owned()),
    ];
    let cases = texts.map(|(name, text)| {
        let to = "every text is a prompt, and its embedding is finite";
        Case::falls_back(name, to, nothing, move |_| {
            encode(&text, &TextOptions { long_prompts: true, ..TextOptions::default() })
        })
    });
    cases.into()
}

/// `vocab.json`.
fn vocabularies() -> Vec<Case> {
    let name = "vocab.json";
    let object = "one JSON object of tokens and their ids";
    let one = "one token for each id";
    let long = format!("{{\"{}\": 1, \"{}\": 1}}", "x".repeat(1 << 20), "\\u001b".repeat(1 << 16));
    let many: Vec<String> = (0..300_000).map(|id| format!("\"t{id}\": {id}")).collect();
    let many = format!("{{{}, \"<|startoftext|>\": 300000, \"<|endoftext|>\": 300001}}", many.join(", "));
    let gap = r#"{"h": 1048575, "i</w>": 1, "hi</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}"#;
    vec![
        tokenizer("an empty file", name, "", &[object, "EOF"]),
        tokenizer("a list", name, "[\"a\"]", &[object, "expected a map"]),
        tokenizer("no tokens", name, "{}", &["got no tokens"]),
        tokenizer("an id of four billion", name, r#"{"a": 4000000000}"#, &["ids below 1048576", "got id 4000000000"]),
        tokenizer("an id beyond 32 bits", name, r#"{"a": 4294967296}"#, &[object, "4294967296"]),
        tokenizer("an id below zero", name, r#"{"a": -1}"#, &[object, "-1"]),
        tokenizer("a fraction", name, r#"{"a": 0.5}"#, &[object, "0.5"]),
        tokenizer("NaN", name, r#"{"a": NaN}"#, &[object, "NaN"]),
        tokenizer("a list of ids", name, r#"{"a": [1]}"#, &[object, "expected u32"]),
        tokenizer("two tokens with one id", name, r#"{"a": 1, "b": 1}"#, &[one, "for id 1"]),
        tokenizer("two long tokens with one id", name, long, &[one]),
        tokenizer("a token without letters", name, r#"{"": 1}"#, &[one]),
        tokenizer("a text in Latin-1", name, b"{\"\xe9\": 1}".to_vec(), &["text in UTF-8", "invalid utf-8"]),
        Case::refused(
            "vocab.json: no token that begins prompts",
            &["tokenizer_config.json", "bos_token needs the token \"<|startoftext|>\"", "from the same model"],
            folder(file(name, br#"{"h": 0, "i</w>": 1, "hi</w>": 2}"#.to_vec())),
            |place| said(ClipTokenizer::from_folder(place)),
        ),
        Case::refused(
            "vocab.json: more than 32 MB",
            &[name, "expected at most 33554432 bytes, got 33554433"],
            folder(sparse_file(name, b"{".to_vec(), (32 << 20) + 1)),
            |place| said(ClipTokenizer::from_folder(place)),
        ),
        Case::refused(
            "vocab.json: 300,000 tokens without the merged one",
            &["merges.txt", "line 2 needs the token \"h\""],
            folder(file(name, many.into())),
            |place| said(ClipTokenizer::from_folder(place)),
        ),
        accepted("ids with a gap of a million", name, gap, "ids without a token are never used", |tokenizer| {
            tokenizer.vocabulary_size() == 1 << 20
        }),
    ]
}

/// `merges.txt`.
fn merges() -> Vec<Case> {
    let name = "merges.txt";
    let two = "two tokens in each line";
    let first = "no first line that starts with `#`";
    vec![
        tokenizer("an empty file", name, "", &[first]),
        tokenizer("no first line", name, "h i</w>", &[first]),
        tokenizer("one token in a line", name, "#\nh", &[two, "\"h\" in line 2"]),
        tokenizer("three tokens in a line", name, "#\nh i</w>\nh i h", &[two, "in line 3"]),
        tokenizer("an empty line", name, "#\n\nh i</w>", &[two, "in line 2"]),
        tokenizer("a line of a megabyte", name, format!("#\n{}", "h".repeat(1 << 20)), &[two, "in line 2"]),
        tokenizer("an unknown token", name, "#\nh z", &["line 2 needs the token \"z\""]),
        tokenizer(
            "an unknown token of a megabyte",
            name,
            format!("#\nh {}", "z".repeat(1 << 20)),
            &["line 2 needs the token"],
        ),
        tokenizer("an unknown token that clears the terminal", name, "#\nh \u{1b}[2J", &["needs the token", "\\u{1b}"]),
        tokenizer("an unknown merged token", name, "#\nh h", &["line 2 needs the token \"hh\""]),
        tokenizer("no text", name, vec![0xff, 0xfe, b'#', 0], &["text in UTF-8"]),
        Case::refused(
            "merges.txt: a folder",
            &[name, "cannot be read", "it is not a file"],
            |place| {
                fs::write(place.join("vocab.json"), VOCABULARY).expect("a written file");
                fs::create_dir(place.join("merges.txt")).expect("a folder");
            },
            |place| said(ClipTokenizer::from_folder(place)),
        ),
        Case::refused(
            "merges.txt: missing",
            &[name, "cannot be read", "or `tokenizer.json`"],
            file("vocab.json", VOCABULARY.into()),
            |place| said(ClipTokenizer::from_folder(place)),
        ),
        accepted("line ends of Windows", name, "#version: 0.2\r\nh i</w>\r\n", "they are white space", |tokenizer| {
            tokenizer.encode("hi").is_ok_and(|ids| ids == [2])
        }),
        accepted("the same merge twice", name, "#\nh i</w>\nh i</w>", "the last one counts", |tokenizer| {
            tokenizer.encode("hi").is_ok_and(|ids| ids == [2])
        }),
    ]
}

/// `tokenizer.json`, the files in one.
fn single_files() -> Vec<Case> {
    let good = fs::read_to_string(fixture("tokenizer-json/tokenizer.json")).expect("a tokenizer");
    let good: Value = serde_json::from_str(&good).expect("a tokenizer");
    let text = |name: &str, text: String, words: &[&str]| {
        let words = [words, &["tokenizer.json"]].concat();
        Case::refused(format!("tokenizer.json: {name}"), &words, file("tokenizer.json", text.into()), |place| {
            said(ClipTokenizer::from_folder(place))
        })
    };
    let changed = |name: &str, at: &str, value: Value, words: &[&str]| {
        let mut object = good.clone();
        *object.pointer_mut(at).expect("a field") = value;
        text(name, object.to_string(), words)
    };
    let kind = "CLIP's kind";
    let library = "a tokenizer as the library tokenizers writes it";
    let nested = format!("{}{}", "{\"model\":".repeat(100_000), "}".repeat(100_000));
    vec![
        text("an empty file", String::new(), &[library, "EOF"]),
        text("a list", "[]".to_owned(), &[library]),
        text("an object without a model", "{}".to_owned(), &[library, "missing field `model`"]),
        text("models nested 100,000 times", nested, &[library]),
        changed("another kind of model", "/model/type", json!("Unigram"), &[kind, "a model of type \"Unigram\""]),
        changed(
            "another end of words",
            "/model/end_of_word_suffix",
            json!(""),
            &[kind, "end_of_word_suffix Some(\"\")"],
        ),
        changed("no end of words", "/model/end_of_word_suffix", Value::Null, &[kind, "end_of_word_suffix None"]),
        changed("no vocabulary", "/model/vocab", Value::Null, &[library, "expected a map"]),
        changed("an empty vocabulary", "/model/vocab", json!({}), &["got no tokens"]),
        changed("an id below zero", "/model/vocab", json!({"a": -1}), &[library, "-1"]),
        changed("merges that are numbers", "/model/merges", json!([1, 2]), &[library, "a list of pairs of tokens"]),
        changed("a merge of one token", "/model/merges", json!(["ab"]), &["the merge \"ab\"", "a space between"]),
        changed(
            "a merge of an unknown token",
            "/model/merges/3",
            json!(["a", "zzz"]),
            &["merge 3 needs the token \"zzz\""],
        ),
        changed("an added token with an id of a million", "/added_tokens/0/id", json!(1 << 20), &["ids below 1048576"]),
        changed(
            "an added token without a text",
            "/added_tokens/0/content",
            Value::Null,
            &[library, "expected a string"],
        ),
        changed(
            "an added token of 1025 bytes",
            "/added_tokens/0/content",
            json!("x".repeat(1025)),
            &["tokens of at most 1024 bytes"],
        ),
    ]
}

/// The small files beside a vocabulary.
fn small_files() -> Vec<Case> {
    let (config, map, added) = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json");
    let settings = "a JSON object of settings and special tokens";
    let least = "a `model_max_length` of at least 2";
    let many: Vec<String> = (0..131_073).map(|id| format!("\"t{id}\": {}", 10 + id)).collect();
    let many = format!("{{{}}}", many.join(","));
    let long = format!("{{\"{}\": 5}}", "x".repeat(1025));
    let decoder = |content: &str| format!(r#"{{"added_tokens_decoder": {{"5": {{"content": "{content}"}}}}}}"#);
    let is_usual = |tokenizer: &ClipTokenizer| tokenizer.window() == 77;
    let usual = "the window has 77 tokens";
    vec![
        tokenizer("an empty file", config, "", &[settings, "EOF"]),
        tokenizer("a number", config, "7", &[settings]),
        tokenizer("a window of one token", config, r#"{"model_max_length": 1}"#, &[least, "got 1;"]),
        tokenizer("a window below zero", config, r#"{"model_max_length": -5}"#, &[least, "got -5"]),
        tokenizer("a window of NaN", config, r#"{"model_max_length": NaN}"#, &[settings]),
        tokenizer("a window of minus infinity", config, r#"{"model_max_length": -Infinity}"#, &[settings]),
        tokenizer("a window in words", config, r#"{"model_max_length": "77"}"#, &[settings]),
        tokenizer("a token that is a number", config, r#"{"bos_token": 7}"#, &[settings]),
        tokenizer(
            "a token that is unknown",
            config,
            r#"{"eos_token": "</s>"}"#,
            &["eos_token needs the token \"</s>\""],
        ),
        tokenizer("an unknown padding", config, r#"{"pad_token": "!"}"#, &["pad_token needs the token \"!\""]),
        tokenizer(
            "an added token of 1025 bytes",
            config,
            decoder(&"x".repeat(1025)),
            &["tokens of at most 1024 bytes"],
        ),
        tokenizer("an added token without a number", config, r#"{"added_tokens_decoder": {"x": "a"}}"#, &[settings]),
        tokenizer(
            "an added token of four billion",
            config,
            r#"{"added_tokens_decoder": {"4000000000": "a"}}"#,
            &["got id 4000000000"],
        ),
        tokenizer("a list", map, "[]", &[settings]),
        tokenizer("a token that is a list", map, r#"{"unk_token": ["a"]}"#, &[settings]),
        tokenizer("a list", added, "[]", &["one JSON object of tokens and their ids"]),
        tokenizer("an id of a million", added, r#"{"<a>": 1048576}"#, &["ids below 1048576, got id 1048576"]),
        tokenizer("a token of 1025 bytes", added, long, &["tokens of at most 1024 bytes", "got a token of 1025"]),
        tokenizer("131,073 tokens", added, many, &["at most 131072", "got 131073 tokens"]),
        accepted("a window of 1e30 tokens", config, r#"{"model_max_length": 1e30}"#, usual, is_usual),
        accepted("a window without an end", config, r#"{"model_max_length": Infinity}"#, usual, is_usual),
        accepted("NaN in a field that is not read", config, r#"{"note": NaN}"#, usual, is_usual),
    ]
}

/// Ids of tokens and lengths of windows that callers give.
fn ids() -> Vec<Case> {
    let encoder = |name: &str, ids: Vec<Vec<u32>>, words: &[&str]| {
        let config = ClipTextConfig::from_json(&config_text("text_encoder")).expect("a configuration");
        let encoder: ClipText = config.init(&device()).expect("an encoder");
        Case::refused(name, words, nothing, move |_| said(encoder.forward(&ids)))
    };
    let window = |name: &str, window: usize, words: &[&str]| {
        Case::refused(name, words, nothing, move |_| {
            said(ClipTokenizer::openai().tokenize("a star", window, PadWith::Eos))
        })
    };
    let small = "2 to 65536";
    vec![
        encoder("a prompt of no tokens", vec![Vec::new()], &["no tokens to encode"]),
        encoder(
            "a token beyond the vocabulary",
            vec![vec![0, 49_408]],
            &["token 49408 of prompt 0", "vocabulary of 49408"],
        ),
        encoder("the last token of all", vec![vec![u32::MAX]], &["token 4294967295", "same model folder"]),
        window("a window of no tokens", 0, &["a window of 0 tokens", small]),
        window("a window of one token", 1, &["a window of 1 tokens", small]),
        window("a window of 65537 tokens", 65_537, &["a window of 65537 tokens", small]),
        window("a window of all tokens", usize::MAX, &["a window of 18446744073709551615 tokens", small]),
        Case::refused(
            "a text of an unknown token",
            &["token id 4000000000 is not in the vocabulary of 49408 tokens"],
            nothing,
            |_| said(ClipTokenizer::openai().decode(&[320, 4_000_000_000])),
        ),
    ]
}
