//! The demo model: its files are complete, and its images show what captions say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fabric::core::fabric::FabricSettings;
use fabric::core::image::Image;
use fabric::models::{demo_folder, recommended_settings};
use fabric::prelude::*;
use fabric_world::{Attribute, Judge, Named, SIDE, Sample, Split, Tally, full_caption, sample};
use sha2::{Digest, Sha256};

const NAMES: &str = "SHA256SUMS";

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn samples(count: u64, split: Split) -> Vec<Sample> {
    (0..count).map(|index| sample(990_007, index, split)).collect()
}

#[test]
fn every_file_is_the_one_that_was_shipped() {
    let folder = demo_folder().expect("the model ships");
    let sums = fs::read_to_string(folder.join(NAMES)).expect("checksums");
    let mut named = BTreeSet::from([folder.join(NAMES)]);
    for line in sums.lines() {
        let (expected, name) = line.split_once("  ").expect("a checksum and a name");
        let got: String =
            Sha256::digest(fs::read(folder.join(name)).expect(name)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(got, expected, "{name}");
        named.insert(folder.join(name));
    }
    assert_eq!(named, BTreeSet::from_iter(files(&folder)), "every file has its checksum");
    let bytes: u64 = named.iter().map(|path| fs::metadata(path).expect("a file").len()).sum();
    assert!(bytes <= 25_000_000, "{bytes} bytes are too many for a newcomer");
}

#[test]
fn the_recommended_settings_are_those_of_the_model_card() {
    let settings = recommended_settings(demo_folder().expect("the model ships")).expect("settings");
    assert_eq!((settings.steps, settings.guidance_scale), (10, 3.0));
    assert_eq!(settings.fabric, FabricSettings::official_demo());
}

#[test]
fn readers_see_what_was_drawn() {
    let device = fabric::default_device().expect("a device");
    let judge = Judge::load(demo_folder().expect("the model ships"), &device).expect("readers");
    let samples = samples(128, Split::HeldOut);
    let draw = |sample: &Sample| {
        let rgb = sample.scene.render(&sample.variation, SIDE).expect("an image");
        Image::from_rgb(SIDE as usize, SIDE as usize, rgb).expect("an image")
    };
    let mut tally = Tally::default();
    for (sample, seen) in samples.iter().zip(judge.read(&samples.iter().map(draw).collect::<Vec<_>>()).expect("eyes")) {
        tally.add(&Named::of(&sample.scene), &seen);
    }
    for attribute in [Attribute::Kind, Attribute::Colour, Attribute::Size, Attribute::Position] {
        assert!(tally.share(attribute).expect("asked for") >= 0.85, "{tally}");
    }
}

#[test]
fn images_show_what_their_captions_say() {
    let device = fabric::default_device().expect("a device");
    let judge = Judge::load(demo_folder().expect("the model ships"), &device).expect("readers");
    let pipeline = Pipeline::demo(&device).expect("the model ships");
    let settings = Settings { steps: 10, guidance_scale: 3.0, ..Settings::default() };
    let mut tally = Tally::default();
    for (number, sample) in (0..).zip(samples(24, Split::HeldOut)) {
        let request = Request::new(full_caption(&sample.scene)).with_seeds([number]).with_settings(settings.clone());
        let made = pipeline.generate(&request).expect("an image");
        tally.add(&Named::of(&sample.scene), &judge.read(&made.images).expect("eyes")[0]);
    }
    // A random guess is correct in 1 of 12 (kinds), 9 (colours, positions) or 8 (backgrounds) cases.
    for attribute in [Attribute::Kind, Attribute::Colour, Attribute::Position, Attribute::BackgroundColour] {
        assert!(tally.share(attribute).expect("asked for") >= 0.6, "{tally}");
    }
}
