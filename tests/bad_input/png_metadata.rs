//! Metadata in PNG files: damaged chunks, bombs, and texts that no program writes.

use std::fs;

use fabric::core::image::{FoundMetadata, Image, ImageMetadata, MetadataSource};
use serde_json::{Value, json};

use crate::case::{Case, Outcome, check, nothing, said};
use crate::png_writer::{SIGNATURE, chunk, header, png, zlib, zlib_run};

pub(crate) const COUNT: usize = 112;

const WEB_UI: &str = "a red star\nSteps: 20, Seed: 7, CFG scale: 6";

/// Returns a PNG file with chunks in front of its pixels, which metadata do not need.
fn with_chunks(chunks: &[Vec<u8>]) -> Vec<u8> {
    let (head, pixels, end) = (chunk(b"IHDR", &header(8, 8, 8, 2)), chunk(b"IDAT", &[]), chunk(b"IEND", &[]));
    png(&[vec![head], chunks.to_vec(), vec![pixels, end]].concat())
}

/// Returns a chunk of text: keyword, and what is behind its zero byte.
fn text(kind: &[u8; 4], keyword: &str, data: &[u8]) -> Vec<u8> {
    chunk(kind, &[keyword.as_bytes(), &[0], data].concat())
}

/// Returns a file with one text.
fn with_text(keyword: &str, contents: &str) -> Vec<u8> {
    with_chunks(&[text(b"iTXt", keyword, &[b"\0\0\0\0".as_slice(), contents.as_bytes()].concat())])
}

/// The text that this library writes.
fn own() -> Value {
    json!({
        "format": "fabric-image",
        "version": 1,
        "image": {
            "software": "fabric", "prompt": "a small red star", "negative_prompt": null, "seeds": [7], "index": 0,
            "initial_noise": [], "width": 0, "height": 0, "settings": {"steps": 2}, "origin": [], "references": [],
            "image_conditions": [], "init_image": null, "not_restored": [],
        },
    })
}

/// The same with other settings, as they are written.
fn with_settings(settings: &str) -> String {
    own().to_string().replace("{\"steps\":2}", settings)
}

/// Hash of an image that no case has.
fn hash() -> String {
    "0".repeat(64)
}

fn read(bytes: &[u8]) -> Result<FoundMetadata, String> {
    ImageMetadata::from_png_bytes(bytes).map_err(|error| error.to_string())
}

fn request(bytes: &[u8]) -> Outcome {
    said(read(bytes)?.metadata.request())
}

fn refused(name: impl Into<String>, bytes: Vec<u8>, words: &[&str]) -> Case {
    Case::refused(name, words, nothing, move |_| request(&bytes))
}

/// A file with the text of this library, which was edited.
fn edited(name: impl Into<String>, words: &[&str], edit: impl FnOnce(&mut Value)) -> Case {
    let mut value = own();
    edit(&mut value);
    refused(name, with_text("fabric", &value.to_string()), words)
}

/// The same with one other value in the record of the image.
fn set(name: &str, at: &str, to: Value, words: &[&str]) -> Case {
    edited(name, words, |value| *value["image"].pointer_mut(at).unwrap_or_else(|| panic!("a value at {at}")) = to)
}

fn accepted(name: &str, bytes: Vec<u8>, to: &str, holds: fn(&FoundMetadata) -> bool) -> Case {
    Case::falls_back(name, to, nothing, move |_| {
        let found = read(&bytes)?;
        check(holds(&found), format!("{:.300}", format!("{found:?}")))
    })
}

/// Whether a note has these words.
fn notes(found: &FoundMetadata, words: &str) -> bool {
    found.unread.iter().any(|note| note.contains(words))
}

pub(crate) fn check_base() {
    assert_eq!(request(&with_text("fabric", &own().to_string())), Ok(()));
    assert_eq!(request(&with_text("parameters", WEB_UI)), Ok(()));
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = files();
    cases.extend(chunks());
    cases.extend(own_texts());
    cases.extend(own_values());
    cases.extend(other_texts());
    cases.extend(images());
    cases
}

/// Files that are no PNG, or none to its end.
fn files() -> Vec<Case> {
    let whole = with_text("parameters", WEB_UI);
    let mut checksum = whole.clone();
    checksum[30] ^= 1;
    let garbage = [&whole[..33], b"\0\0\0\0-no-chunk-"].concat();
    let long = [&whole[..33], b"\xff\xff\xff\xfftEXt"].concat();
    let many = with_chunks(&vec![chunk(b"tIME", &[]); (1 << 20) + 1]);
    let none = "none of the text chunks `fabric`, `parameters` and `prompt`";
    vec![
        refused("an empty file", Vec::new(), &["begins with []", "only PNG files keep metadata here"]),
        refused("a JPEG file", vec![0xff, 0xd8, 0xff, 0xe0], &["begins with [ff d8 ff e0]", "which is no PNG"]),
        refused("a signature alone", SIGNATURE.to_vec(), &["damaged PNG file", "it stops before its end"]),
        refused("another chunk in place of the header", png(&[chunk(b"IDAT", &[])]), &["its first chunk is no header"]),
        refused("a header with another checksum", checksum, &["the checksum of its header is wrong"]),
        refused("a file that ends with its header", whole[..33].to_vec(), &["it stops before its end"]),
        refused("a file that ends in its text", whole[..60].to_vec(), &["it stops before its end"]),
        refused(
            "a file with something else behind its header",
            garbage,
            &["something else stands where a chunk should begin"],
        ),
        refused("a chunk of four billion bytes", long, &["something else stands where a chunk should begin"]),
        refused("a million chunks", many, &["it has more than 1048576 chunks"]),
        refused("a file without texts", with_chunks(&[]), &[none, "name the original file"]),
        refused("a file with other texts", with_text("Comment", "a star"), &[none]),
        refused(
            "ComfyUI's workflow alone",
            with_text("workflow", "{}"),
            &["only ComfyUI's `workflow`", "save it again"],
        ),
        Case::refused("a missing file", &["missing.png", "cannot be read"], nothing, |place| {
            said(ImageMetadata::read(place.join("missing.png")))
        }),
        Case::refused(
            "a folder in place of a file",
            &["a.png", "is a directory, expected a file"],
            |place| fs::create_dir(place.join("a.png")).expect("a folder"),
            |place| said(ImageMetadata::read(place.join("a.png"))),
        ),
        accepted(
            "a file that ends behind its text",
            whole[..whole.len() - 20].to_vec(),
            "its text is read, with a note",
            |found| found.metadata.prompt == "a red star" && notes(found, "it stops before its end"),
        ),
    ]
}

/// Chunks of text that are damaged or too long.
fn chunks() -> Vec<Case> {
    let key = "parameters";
    let damaged = "text chunk `parameters` is damaged";
    let long = "text chunk `parameters` is too long, expected at most 2097152 bytes";
    let method = "its compression method is unknown";
    let stream = zlib(WEB_UI.as_bytes());
    let one = |name: &str, chunk: Vec<u8>, words: &[&str]| refused(name, with_chunks(&[chunk]), words);
    let mut checksum = text(b"tEXt", key, b"a red star");
    *checksum.last_mut().expect("a checksum") ^= 1;
    let compressed = |flags: &[u8], stream: &[u8]| [flags, stream].concat();
    let much = vec![b'a'; (2 << 20) + 2000];
    let plain = || text(b"tEXt", key, WEB_UI.as_bytes());
    vec![
        one("a text with another checksum", checksum, &[damaged, "its checksum is"]),
        one("a compressed text of nothing", text(b"zTXt", key, b""), &[damaged, method]),
        one("a text that is compressed by another method", text(b"zTXt", key, b"\x07abc"), &[damaged, method]),
        one(
            "a text that is said to be compressed",
            text(b"zTXt", key, b"\0no stream"),
            &[damaged, "its compressed text ends with"],
        ),
        one(
            "half of a compressed text",
            text(b"zTXt", key, &compressed(&[0], &stream[..20])),
            &[damaged, "its compressed text ends with"],
        ),
        one("an international text of nothing", text(b"iTXt", key, b""), &[damaged, "it is cut off"]),
        one(
            "an international text without a text",
            text(b"iTXt", key, b"\0\0en\0translated"),
            &[damaged, "it is cut off"],
        ),
        one(
            "an international text in Latin-1",
            text(b"iTXt", key, b"\0\0\0\0\xe9toile"),
            &[damaged, "it is not UTF-8"],
        ),
        one("an international text that is half compressed", text(b"iTXt", key, b"\x09\0\0\0a"), &[damaged, method]),
        one(
            "an international text of another method",
            text(b"iTXt", key, &compressed(b"\x01\x03\0\0", &stream)),
            &[damaged, method],
        ),
        one(
            "a compressed text that is no text",
            text(b"iTXt", key, &compressed(b"\x01\0\0\0", &zlib(&[0xff, 0xfe]))),
            &[damaged, "it is not UTF-8"],
        ),
        one("a text of more than 2 MB", text(b"tEXt", key, &much), &[long, "remove the chunk"]),
        one("a compressed text of 80 MB", text(b"zTXt", key, &compressed(&[0], &zlib_run(b'a', 80 << 20))), &[long]),
        one(
            "an international text of 80 MB",
            text(b"iTXt", key, &compressed(b"\x01\0\0\0", &zlib_run(b'a', 80 << 20))),
            &[long],
        ),
        refused(
            "two different texts",
            with_chunks(&[plain(), text(b"tEXt", key, b"another star")]),
            &["different texts in several chunks `parameters`", "remove the wrong ones"],
        ),
        accepted("one text twice", with_chunks(&[plain(), plain()]), "it counts once", |found| found.unread.is_empty()),
        accepted("one text 17 times", with_chunks(&vec![plain(); 17]), "it is read, with a note", |found| {
            found.metadata.seeds == [7] && notes(found, "more than 16 text chunks")
        }),
        accepted(
            "a long text of another program",
            with_chunks(&[text(b"tEXt", "Comment", &much), plain()]),
            "it is skipped",
            |found| found.unread.is_empty(),
        ),
        accepted(
            "a damaged text of this library beside another one",
            with_chunks(&[text(b"tEXt", "fabric", b"{"), plain()]),
            "the other one is read, with a note",
            |found| found.source == MetadataSource::WebUi && notes(found, "`fabric` cannot be read"),
        ),
    ]
}

/// Texts in place of the JSON of this library.
fn own_texts() -> Vec<Case> {
    let cannot = "text chunk `fabric` cannot be read";
    let one = |name: &str, contents: String, words: &[&str]| {
        refused(name, with_text("fabric", &contents), &[words, &[cannot]].concat())
    };
    let nested = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let mut cases = vec![
        one("no JSON of this library", String::new(), &["EOF"]),
        one("a list in place of the JSON", "[]".to_owned(), &["invalid length 0"]),
        one("half of the JSON", own().to_string()[..100].to_owned(), &["EOF"]),
        one("the JSON twice", own().to_string().repeat(2), &["trailing characters"]),
        one("lists nested 100,000 times", "[".repeat(100_000), &[]),
        one("settings nested 1000 times", with_settings(&nested), &["recursion limit"]),
        one("the JSON with Python's NaN", own().to_string().replace("[7]", "[NaN]"), &["expected value"]),
        edited("a later version", &["version 2, expected `fabric-image` version 1"], |value| {
            value["version"] = json!(2);
        }),
        edited("a format of another program", &["`other` version 1", "the program that wrote it"], |value| {
            value["format"] = json!("other");
        }),
        edited("a format that clears the terminal", &["expected `fabric-image` version 1"], |value| {
            value["format"] = json!(format!("\u{1b}[2J{}", "x".repeat(5000)));
        }),
        edited("no record of the image", &[cannot, "missing field `image`"], |value| {
            value.as_object_mut().expect("an object").remove("image");
        }),
        set("a record with a null prompt", "/prompt", Value::Null, &[cannot, "invalid type: null"]),
        edited("a record with an unknown field", &[cannot, "unknown field `more`"], |value| {
            value["image"]["more"] = json!(1);
        }),
    ];
    for field in [
        "software",
        "prompt",
        "seeds",
        "index",
        "initial_noise",
        "width",
        "height",
        "settings",
        "origin",
        "references",
        "image_conditions",
        "not_restored",
    ] {
        let word = format!("missing field `{field}`");
        cases.push(edited(format!("a record without `{field}`"), &[cannot, &word], |value| {
            value["image"].as_object_mut().expect("a record").remove(field);
        }));
    }
    cases
}

/// Values out of range in the JSON of this library.
fn own_values() -> Vec<Case> {
    let long = || json!("x".repeat((256 << 10) + 1));
    let settings = "settings of an image";
    let most = "bytes of memory, expected at most 16777216";
    let objects = with_settings(&format!("{{\"other\":[{}0]}}", "{\"\":0},".repeat(270_000)));
    vec![
        set("an index beyond the seeds", "/index", json!(1), &["index of an image", "one of the 1 seeds, got 1"]),
        set("an index below zero", "/index", json!(-1), &["invalid value: integer `-1`"]),
        set("a seed below zero", "/seeds", json!([-7]), &["invalid value: integer `-7`"]),
        set("a seed in words", "/seeds", json!(["seven"]), &["invalid type: string \"seven\""]),
        set("a width below zero", "/width", json!(-8), &["invalid value: integer `-8`"]),
        set("a long prompt", "/prompt", long(), &["prompt: expected at most 262144 bytes, got 262145 bytes"]),
        set("a long negative prompt", "/negative_prompt", long(), &["negative_prompt: expected at most 262144 bytes"]),
        set(
            "two noises for one seed",
            "/initial_noise",
            json!([{"seeds": [1], "weights": [1]}, {"seeds": [2], "weights": [1]}]),
            &["initial noises of an image", "expected 1, one per seed, or none, got 2"],
        ),
        set(
            "a noise without weight",
            "/initial_noise",
            json!([{"seeds": [1], "weights": [0]}]),
            &["weights of a noise mixture"],
        ),
        set(
            "a reference with a strength of two",
            "/references",
            json!([{"image": hash(), "strength": 2}]),
            &["strength of a reference"],
        ),
        set(
            "a reference that is a path",
            "/references",
            json!([{"image": "../x", "strength": 1}]),
            &["expected 64 lower-case hex digits"],
        ),
        set(
            "a reference with a weight below zero",
            "/references",
            json!([{
                "image": hash(),
                "strength": 1,
                "scope": {"weight": -1, "window": [0, 1], "blocks": {"down": [], "mid": 1, "up": []}},
            }]),
            &["scope of a reference.weight", "got -1"],
        ),
        set(
            "a condition with a scale below zero",
            "/image_conditions",
            json!([{"image": hash(), "aspect": null, "scale": -1, "window": [0, 1], "away": false}]),
            &["scale of an image condition", "got -1"],
        ),
        set(
            "a condition of no words",
            "/image_conditions",
            json!([{"image": hash(), "aspect": {"words": ""}, "scale": 1, "window": [0, 1], "away": false}]),
            &["aspect of an image", "got 0 bytes"],
        ),
        set(
            "a condition with a window that ends before it starts",
            "/image_conditions",
            json!([{"image": hash(), "aspect": null, "scale": 1, "window": [0.7, 0.2], "away": false}]),
            &["window", "got 0.7 to 0.2"],
        ),
        set(
            "an initial image with a strength of five",
            "/init_image",
            json!({"image": hash(), "strength": 5, "mask": null}),
            &["init_image.strength", "got 5"],
        ),
        set("settings that are a list", "/settings", json!([32, 32]), &[settings, "got no JSON object: [32,32]"]),
        set("settings that are a text", "/settings", json!("fast"), &[settings, "got no JSON object"]),
        set("a setting that is unknown", "/settings", json!({"stepz": 2}), &[settings, "unknown field `stepz`"]),
        set("no steps", "/settings", json!({"steps": 0}), &["steps: expected 1 to 10000, got 0"]),
        set("a guidance scale of 1e300", "/settings", json!({"guidance_scale": 1e300}), &["guidance_scale"]),
        set(
            "a guidance scale in words",
            "/settings",
            json!({"guidance_scale": "NaN"}),
            &[settings, "invalid type: string \"NaN\""],
        ),
        refused("270,000 objects in a setting", with_text("fabric", &objects), &["`fabric`", "would take", most]),
    ]
}

/// Texts of the web UI and of ComfyUI.
fn other_texts() -> Vec<Case> {
    let web_ui = |name: &str, contents: &str, to: &str, holds: fn(&FoundMetadata) -> bool| {
        accepted(name, with_text("parameters", contents), to, holds)
    };
    let comfy = |name: &str, contents: String, words: &[&str]| {
        refused(name, with_text("prompt", &contents), &[words, &["text chunk `prompt` cannot be read"]].concat())
    };
    let sampler = |positive: Value| {
        json!({
            "1": {"class_type": "KSampler", "inputs": {
                "seed": 7, "steps": 4, "cfg": 6, "sampler_name": "euler", "scheduler": "normal", "denoise": 1,
                "model": ["9", 0], "positive": positive, "negative": ["3", 0], "latent_image": ["4", 0],
            }},
            "2": {"class_type": "Combine", "inputs": {"conditioning_1": ["3", 0], "conditioning_2": ["2", 0]}},
            "3": {"class_type": "Combine", "inputs": {"conditioning_1": ["2", 0], "conditioning_2": ["3", 0]}},
            "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        })
    };
    let circle = sampler(json!(["2", 0])).to_string();
    let nowhere = sampler(json!(["99", 0])).to_string();
    let many: Vec<String> = (0..10_000).map(|at| format!("Field {at}: 1")).collect();
    let many = format!("a star\nSteps: 20, Seed: 7, {}", many.join(", "));
    let objects = format!("{{\"1\": [{}0]}}", "{\"\":0},".repeat(270_000));
    vec![
        refused(
            "no text of the web UI",
            with_text("parameters", " \n"),
            &["`parameters` cannot be read", "it is empty"],
        ),
        refused(
            "JSON in place of the web UI's text",
            with_text("parameters", "{\"sui_image_params\": {}}"),
            &["it is JSON of another program"],
        ),
        refused(
            "no steps in the web UI's text",
            with_text("parameters", "a star\nSteps: 0, Seed: 7, CFG scale: 6"),
            &["steps: expected 1 to 10000, got 0"],
        ),
        refused(
            "a scale of 1e300 in the web UI's text",
            with_text("parameters", "a star\nSteps: 2, Seed: 7, CFG scale: 1e300"),
            &["guidance_scale"],
        ),
        refused(
            "a width of 17,000 in the web UI's text",
            with_text("parameters", "a\nSteps: 2, Seed: 7, Size: 17000x64"),
            &["width: expected 1 to 16384 pixels"],
        ),
        web_ui(
            "a number of 20 digits in the web UI's text",
            "a\nSteps: 99999999999999999999, Seed: 7, CFG scale: 6",
            "it is noted",
            |found| notes(found, "has no usable number"),
        ),
        web_ui(
            "a scale of NaN in the web UI's text",
            "a\nSteps: 2, Seed: 7, CFG scale: NaN",
            "it is left out",
            |found| found.metadata.settings.get("guidance_scale").is_none(),
        ),
        web_ui("a size in words in the web UI's text", "a\nSteps: 2, Seed: 7, Size: axb", "it is noted", |found| {
            notes(found, "size `axb` is none")
        }),
        web_ui(
            "a seed below zero in the web UI's text",
            "a\nSteps: 2, Seed: -1, CFG scale: 6",
            "it is noted",
            |found| found.metadata.seeds.is_empty() && notes(found, "has no usable number"),
        ),
        web_ui(
            "an unknown sampler in the web UI's text",
            "a\nSteps: 2, Seed: 7, Sampler: Magic",
            "it is noted",
            |found| notes(found, "Magic"),
        ),
        web_ui(
            "a field that clears the terminal",
            "a\nSteps: 2, Seed: 7, Extra: \u{1b}[2J",
            "it is noted without control characters",
            |found| !found.unread.is_empty() && found.unread.iter().all(|note| !note.contains(char::is_control)),
        ),
        web_ui(
            "a text without settings in the web UI's text",
            "a star, of which nothing is known",
            "it is the prompt",
            |found| found.metadata.prompt == "a star, of which nothing is known" && notes(found, "has no seed"),
        ),
        accepted(
            "10,000 fields in the web UI's text",
            with_text("parameters", &many),
            "64 of them are noted",
            |found| found.unread.len() == 65 && notes(found, "more"),
        ),
        comfy("no graph of ComfyUI", String::new(), &["EOF"]),
        comfy("a list in place of a graph", "[]".to_owned(), &["expected a map"]),
        comfy("a graph without nodes", "{}".to_owned(), &["it has no node that samples"]),
        comfy("a graph of numbers", "{\"1\": 7, \"2\": null, \"3\": [1]}".to_owned(), &["it has no node that samples"]),
        comfy("a graph nested 100,000 times", format!("{{\"1\":{}", "[".repeat(100_000)), &["recursion limit"]),
        comfy("a graph of 270,000 objects", objects, &["would take", "bytes of memory, expected at most 8388608"]),
        accepted(
            "a graph whose links lead in a circle",
            with_text("prompt", &circle),
            "each node is read once",
            |found| found.metadata.seeds == [7] && found.metadata.prompt.is_empty() && !found.unread.is_empty(),
        ),
        accepted(
            "a graph whose links lead nowhere",
            with_text("prompt", &nowhere),
            "the prompt is empty, with a note",
            |found| found.metadata.prompt.is_empty() && notes(found, "the graph has no prompt that is written out"),
        ),
    ]
}

/// Images that a restored request needs, and writing.
fn images() -> Vec<Case> {
    let restored = |name: &str, count: usize, words: &[&str], find: fn() -> Option<Image>| {
        let mut value = own();
        let hashes = (0..count).map(|at| format!("{at:064x}"));
        value["image"]["references"] = hashes.map(|hash| json!({"image": hash, "strength": 1})).collect();
        let bytes = with_text("fabric", &value.to_string());
        Case::refused(name, words, nothing, move |_| said(read(&bytes)?.metadata.request_with_images(|_| find())))
    };
    let image = || Image::filled(8, 8, [1, 2, 3]).expect("an image");
    let written = |name: &str, words: &[&str], change: fn(&mut ImageMetadata)| {
        Case::refused(name, words, nothing, move |_| {
            let mut metadata = ImageMetadata::default();
            change(&mut metadata);
            said(image().to_png_bytes_with_metadata(&metadata))
        })
    };
    vec![
        restored("a reference that is missing", 1, &["1 images of the request are missing", "0000"], || None),
        restored("a thousand references that are missing", 1000, &["1000 images of the request are missing"], || None),
        restored(
            "another image in place of a reference",
            1,
            &["the image given for 0000", "Image::content_hash"],
            || Some(Image::filled(1, 1, [0; 3]).expect("an image")),
        ),
        Case::refused("metadata in a JPEG file", &["ends in `jpg`", "expected `.png`"], nothing, move |place| {
            said(image().save_with_metadata(place.join("a.jpg"), &ImageMetadata::default()))
        }),
        written("a long prompt to be written", &["prompt: expected at most 262144 bytes"], |metadata| {
            metadata.prompt = "x".repeat((256 << 10) + 1);
        }),
        written("3 MB of settings to be written", &["metadata of an image", "at most 2097152 bytes"], |metadata| {
            metadata.settings = json!({ "text": "x".repeat(3 << 20) });
        }),
        written(
            "settings nested 1000 times to be written",
            &["metadata of an image", "that can be read back"],
            |metadata| {
                metadata.settings = (0..1000).fold(json!(0), |value, _| json!([value]));
            },
        ),
        written("an index beyond the seeds to be written", &["index of an image"], |metadata| {
            metadata.seeds = vec![1];
            metadata.index = 5;
        }),
    ]
}
