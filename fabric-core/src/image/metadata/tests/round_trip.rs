use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::super::{ImageConditionRecord, InitImageRecord, MetadataSource, ReferenceRecord};
use super::*;
use crate::Aspect;
use crate::fabric::ReferenceScope;
use crate::image::ContentHash;
use crate::noise::NoiseMixture;
use crate::pipeline::{Settings, Window};

/// Random metadata, with texts that are awkward in PNG chunks, JSON and the web UI's format.
struct Random(ChaCha8Rng);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        (self.0.next_u64() % count as u64) as usize
    }

    fn share(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn text(&mut self) -> String {
        let short = ["a star", ", ", "\n", "\"", "\\", ": ", "é", "日本", "\u{1f600}", "\0", "\u{85}", "{", " "];
        let long = ["<lora:x:1>", "Steps: 20", "\nNegative prompt: "];
        let parts = [&short[..], &long[..]].concat();
        (0..self.below(9)).map(|_| parts[self.below(parts.len())]).collect()
    }

    fn hash(&mut self) -> ContentHash {
        let colour = [self.below(256) as u8, self.below(256) as u8, self.below(256) as u8];
        Image::filled(1, 1, colour).unwrap().content_hash()
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| one(self)).collect()
    }

    fn window(&mut self) -> Window {
        let (a, b) = (self.share(), self.share());
        Window::new(a.min(b), a.max(b)).unwrap()
    }

    fn aspect(&mut self) -> Option<Aspect> {
        match self.below(4) {
            0 => None,
            1 => Some(Aspect::Style),
            2 => Some(Aspect::Object("lamp, 日本".to_owned())),
            _ => Some(Aspect::Words("its \"light\"".to_owned())),
        }
    }

    fn settings(&mut self) -> Value {
        if self.below(4) == 0 {
            return Value::Null;
        }
        let scale = self.share() * 20.0;
        let settings = Settings { steps: 1 + self.below(50), guidance_scale: scale, ..Settings::default() };
        serde_json::to_value(settings).unwrap()
    }

    fn metadata(&mut self, image: &Image) -> ImageMetadata {
        let seeds: Vec<u64> = (0..1 + self.below(4)).map(|_| self.0.next_u64()).collect();
        let count = seeds.len();
        let initial_noise = match self.below(2) {
            0 => Vec::new(),
            _ => seeds.iter().map(|seed| NoiseMixture::new([*seed, 7], [1.0, self.share()]).unwrap()).collect(),
        };
        let scope = ReferenceScope { weight: self.share(), window: self.window(), ..ReferenceScope::default() };
        ImageMetadata {
            software: "fabric 0.1.0".to_owned(),
            prompt: self.text(),
            negative_prompt: (self.below(3) > 0).then(|| self.text()),
            index: self.below(seeds.len()),
            seeds,
            initial_noise,
            width: image.width(),
            height: image.height(),
            settings: self.settings(),
            origin: self.list(|_| "LoRA fine, é.safetensors at 0.8".to_owned()),
            references: self.list(|random| {
                let scope = if random.below(2) == 0 { scope.clone() } else { ReferenceScope::default() };
                let images = (random.below(3) == 0).then(|| vec![random.below(count)]);
                ReferenceRecord { image: random.hash(), strength: 2.0 * random.share() - 1.0, scope, images }
            }),
            image_conditions: self.list(|random| ImageConditionRecord {
                image: random.hash(),
                aspect: random.aspect(),
                scale: random.share() * 3.0,
                window: random.window(),
                away: random.below(2) == 0,
            }),
            init_image: (self.below(2) == 0).then(|| InitImageRecord {
                image: self.hash(),
                strength: self.share(),
                mask: (self.below(2) == 0).then(|| self.hash()),
            }),
            not_restored: self.list(|_| "a control image, \"é\"".to_owned()),
        }
    }
}

#[test]
fn any_metadata_comes_back_equal_and_the_pixels_too() {
    let mut random = Random(ChaCha8Rng::seed_from_u64(1));
    let (mut latin1, mut unicode) = (0, 0);
    for _ in 0..300 {
        let image = Image::filled(1 + random.below(9), 1 + random.below(9), [9, 8, 7]).unwrap();
        let metadata = random.metadata(&image);
        let bytes = image.to_png_bytes_with_metadata(&metadata).unwrap();
        let found = ImageMetadata::from_png_bytes(&bytes).unwrap();
        assert_eq!(found.metadata, metadata);
        assert_eq!((found.source, found.unread), (MetadataSource::Fabric, Vec::new()));
        assert_eq!(Image::from_bytes(&bytes).unwrap(), image);
        let has = |kind: &[u8]| bytes.windows(kind.len()).any(|part| part == kind);
        latin1 += usize::from(has(b"tEXtfabric\0") && has(b"tEXtparameters\0"));
        unicode += usize::from(has(b"iTXtfabric\0"));
    }
    assert!(latin1 > 10 && unicode > 10, "{latin1} files in Latin-1, {unicode} with Unicode");
}

#[test]
fn a_file_keeps_its_metadata_and_a_plain_one_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let image = Image::filled(5, 3, [10, 20, 30]).unwrap();
    let metadata = Random(ChaCha8Rng::seed_from_u64(2)).metadata(&image);
    let path = folder.path().join("a.PNG");
    image.save_with_metadata(&path, &metadata).unwrap();
    assert_eq!(ImageMetadata::read(&path).unwrap().metadata, metadata);
    assert_eq!(Image::open(&path).unwrap(), image);

    image.save(&path).unwrap();
    assert!(matches!(ImageMetadata::read(&path), Err(MetadataError::Absent { .. })));
    let jpeg = folder.path().join("a.jpg");
    assert!(matches!(image.save_with_metadata(&jpeg, &metadata), Err(MetadataError::Extension { .. })));
    assert!(!jpeg.exists());
}

#[test]
fn a_resized_image_says_which_size_it_was_made_in() {
    let image = Image::filled(8, 8, [0; 3]).unwrap();
    let metadata = ImageMetadata { width: 16, height: 8, ..ImageMetadata::default() };
    let found = ImageMetadata::from_png_bytes(&image.to_png_bytes_with_metadata(&metadata).unwrap()).unwrap();
    assert_eq!(found.metadata, metadata);
    assert_eq!(found.unread, ["the image was made as 16x8 and is 8x8 now"]);
}

#[test]
fn no_absolute_path_is_written() {
    let image = Image::filled(2, 2, [0; 3]).unwrap();
    let paths = [
        "/home/secret/models/sd15.safetensors",
        "LoRA /home/john secret/loras/fine.safetensors at 0.8",
        r"C:\Users\secret\models\sd15.safetensors",
        r"model D:/secret/sd15.safetensors",
        r"\\secret\share\sd15.safetensors",
        "~/secret/sd15.safetensors",
        "~secret/sd15.safetensors",
        "file:///srv/secret/sd15.safetensors",
    ];
    for path in paths {
        let names = vec![path.to_owned()];
        let metadata = ImageMetadata { origin: names.clone(), not_restored: names, ..ImageMetadata::default() };
        let bytes = image.to_png_bytes_with_metadata(&metadata).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("secret"), "{path}");
        assert!(text.contains(".safetensors"), "{path}");
    }
}

#[test]
fn the_text_for_other_programs_says_what_it_can() {
    let image = Image::filled(64, 48, [0; 3]).unwrap();
    let reference = |strength| {
        let (image, scope) = (image.content_hash(), ReferenceScope::default());
        ReferenceRecord { image, strength, scope, images: None }
    };
    let metadata = ImageMetadata {
        software: "fabric 0.1.0".to_owned(),
        prompt: "a red star,\non blue".to_owned(),
        negative_prompt: Some("blurry".to_owned()),
        seeds: vec![7, 8],
        index: 1,
        width: 64,
        height: 48,
        settings: json!({"steps": 20, "sampler": "dpmpp_2m_karras", "guidance_scale": 7.0, "text": {"clip_skip": 1}}),
        origin: vec!["Stable Diffusion 1, pruned: sd15".to_owned(), "LoRA fine".to_owned()],
        references: vec![reference(1.0), reference(-1.0), reference(0.5)],
        ..ImageMetadata::default()
    };
    let expected = "a red star,\non blue\nNegative prompt: blurry\n\
                    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 8, Size: 64x48, \
                    Model: \"Stable Diffusion 1, pruned: sd15\", Clip skip: 2, FABRIC liked: 2, FABRIC disliked: 1, \
                    Version: fabric 0.1.0";
    let text = super::super::parameters::write(&metadata);
    assert_eq!(text, expected);
    // It is also what is left if a program drops our own text.
    let found = read(&[("parameters", &text)]).unwrap();
    let ImageMetadata { prompt, negative_prompt, software, origin, .. } = &found.metadata;
    assert_eq!((prompt, negative_prompt, software), (&metadata.prompt, &metadata.negative_prompt, &metadata.software));
    assert_eq!((origin.as_slice(), found.metadata.seed()), (&metadata.origin[..1], Some(8)));
    let settings = found.metadata.request().unwrap().settings;
    assert_eq!((settings.steps, settings.width, settings.height), (20, Some(64), Some(48)));
    assert_eq!((settings.sampler, settings.text.clip_skip), (Some("dpmpp_2m_karras".parse().unwrap()), Some(1)));
}

#[test]
fn what_cannot_be_read_back_is_refused_by_name_before_writing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let image = Image::filled(2, 2, [0; 3]).unwrap();
    let long = || "a".repeat(10 << 20);
    let reference = |strength| {
        let (image, scope) = (image.content_hash(), ReferenceScope::default());
        ReferenceRecord { image, strength, scope, images: None }
    };
    let deep = (0..200).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    let base = ImageMetadata::default;
    let bad = [
        ("prompt", ImageMetadata { prompt: long(), ..base() }),
        ("negative_prompt", ImageMetadata { negative_prompt: Some(long()), ..base() }),
        ("metadata of an image", ImageMetadata { origin: vec![long()], ..base() }),
        ("metadata of an image", ImageMetadata { settings: json!({ "deep": deep }), ..base() }),
        ("index of an image", ImageMetadata { seeds: vec![1], index: 1, ..base() }),
        ("strength of a reference", ImageMetadata { references: vec![reference(f64::NAN)], ..base() }),
        (
            "images of a reference",
            ImageMetadata {
                seeds: vec![1],
                references: vec![ReferenceRecord { images: Some(vec![1]), ..reference(1.0) }],
                ..base()
            },
        ),
        (
            "initial noises of an image",
            ImageMetadata { seeds: vec![1, 2], initial_noise: vec![NoiseMixture::of_seed(1)], ..base() },
        ),
    ];
    for (name, metadata) in bad {
        let error = image.save_with_metadata(&path, &metadata).unwrap_err();
        assert!(matches!(error, MetadataError::Value(_)), "{error}");
        let message = error.to_string();
        assert!(message.starts_with(name) && message.contains("expected") && message.len() < 1000, "{message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
}
