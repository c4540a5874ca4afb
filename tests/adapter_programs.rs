//! The example programs that take images: adapters from the model's folder, votes with reasons, and masks.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use fabric::core::image::Image;

#[path = "../examples/image_prompt.rs"]
#[allow(dead_code, reason = "their `main` is not called here")]
mod image_prompt;
#[path = "../examples/inpaint.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "their `main` is not called here; all have the common part of the examples"
)]
mod inpaint;
#[path = "../examples/instruct.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "their `main` is not called here; all have the common part of the examples"
)]
mod instruct;
#[path = "../examples/vote_with_reasons.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "their `main` is not called here; all have the common part of the examples"
)]
mod vote_with_reasons;

/// Tiny networks with random weights and their adapters, for images of 128x128 pixels.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/models");

/// Parses the arguments of a program and runs it.
fn call<A: Parser>(program: fn(&A) -> Result<(), Box<dyn Error>>, words: &[&str]) -> Result<(), String> {
    let words = ["program"].iter().chain(words);
    let arguments = A::try_parse_from(words).map_err(|error| error.to_string())?;
    program(&arguments).map_err(|error| error.to_string())
}

/// A temporary folder with a red image of 64x64 pixels.
struct Place {
    folder: tempfile::TempDir,
    image: String,
    out: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [image, out] = ["red.png", "out"].map(|name| folder.path().join(name).display().to_string());
        Image::filled(64, 64, [200, 0, 0]).expect("an image").save(&image).expect("a file");
        Self { folder, image, out }
    }

    /// Path of an output file.
    fn made(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }
}

#[test]
fn the_adapter_in_the_models_folder_is_the_default() {
    let place = Place::new();
    let words = ["a heart", "--model", MODEL, "--steps", "2", "--image", &place.image, "--out", &place.out];
    call(image_prompt::run, &words).expect("an image");
    let default = fs::read(place.made("seed-0.png")).expect("a file");
    let adapter = format!("{MODEL}/ip_adapter/plus.safetensors");
    call(image_prompt::run, &[&words[..], &["--adapter", &adapter]].concat()).expect("an image");
    assert_eq!(fs::read(place.made("seed-0.png")).expect("a file"), default);
    let several = ["--image", &place.image, "--use", "the style"];
    call(instruct::run, &[&words[..], &several].concat()).expect("an image");
    assert!(place.made("row-2-seed-0.png").exists());
}

#[test]
fn a_model_without_the_adapter_is_refused_with_the_file_that_it_lacks() {
    let place = Place::new();
    let model = place.folder.path().display().to_string();
    let words = ["a heart", "--model", &model, "--out", &place.out];
    let with_image = [&words[..], &["--image", &place.image]].concat();
    for (said, file) in [
        (call(image_prompt::run, &with_image), "plus.safetensors"),
        (call(instruct::run, &with_image), "instruct.safetensors"),
        (call(vote_with_reasons::run, &words), "instruct.safetensors"),
    ] {
        let said = said.expect_err("no adapter");
        assert!(said.starts_with("--adapter: expected") && said.contains(file), "{said}");
    }
}

#[test]
fn the_sheet_shows_the_first_round_and_the_next_one_with_plain_votes_and_with_reasons() {
    let place = Place::new();
    let words = ["a star", "--model", MODEL, "--steps", "2", "--out", &place.out];
    let sheet = |votes: &[&str]| {
        call(vote_with_reasons::run, &[&words[..], votes].concat()).expect("a sheet");
        Image::open(place.made("reasons.png")).expect("an image")
    };
    let (unvoted, voted) = (sheet(&[]), sheet(&["--like", "2:colour", "--like", "4", "--dislike", "1:background"]));
    // Images of 128 pixels with gaps of 8 between them, below a label of 8 and two gaps.
    assert_eq!(voted.height() - unvoted.height(), 2 * 136);
    let row = |sheet: &Image, index: usize| {
        sheet.cropped(sheet.width() - 4 * 136, 24 + index * 136, 4 * 136 - 8, 128).expect("four images")
    };
    let [first, plain, reasons] = [0, 1, 2].map(|index| row(&voted, index));
    assert!(row(&unvoted, 0) == first, "the first round depends on the seed alone");
    assert!(first != plain && first != reasons && plain != reasons);
}

#[test]
fn votes_on_no_image_of_the_round_and_reasons_without_words_are_refused() {
    let place = Place::new();
    for (vote, expected) in [
        ("0:style", "expected an image from 1 to 4"),
        ("5", "expected an image from 1 to 4"),
        ("colour", "expected an image from 1 to 4"),
        ("2:", "aspect of an image: expected words"),
    ] {
        for option in ["--like", "--dislike"] {
            let said = call(vote_with_reasons::run, &["a star", option, vote, "--out", &place.out]);
            let said = said.expect_err("no such vote");
            assert!(said.contains(option) && said.contains(expected), "{said}");
        }
    }
    assert!(!place.made("reasons.png").exists());
}

#[test]
fn the_middle_is_repainted_without_a_mask() {
    let place = Place::new();
    call(inpaint::run, &["a star", "--image", &place.image, "--steps", "2", "--out", &place.out]).expect("an image");
    let sheet = Image::open(place.made("sheet.png")).expect("an image");
    // The mask is the second image of 64 pixels, after two gaps of 8.
    let mask = sheet.cropped(80, 8, 64, 64).expect("the mask");
    assert_eq!([(16, 16), (47, 47), (15, 32), (32, 48)].map(|(x, y)| mask.pixel(x, y)[0]), [255, 255, 0, 0]);
}
