//! Metadata of generated images: a record of the request and the model, which PNG files keep.
//!
//! | input | output | functions |
//! |---|---|---|
//! | result of a run | metadata | [`Generation::metadata`](crate::pipeline::Generation::metadata) |
//! | image and metadata | PNG file or its bytes | `Image::save_with_metadata`, `Image::to_png_bytes_with_metadata` |
//! | PNG file or its bytes | metadata | [`ImageMetadata::read`], [`ImageMetadata::from_png_bytes`] |
//! | metadata | request | [`ImageMetadata::request`], [`ImageMetadata::request_with_images`] |
//!
//! A file has two text chunks. `fabric` is JSON from which everything is restored exactly. `parameters` is the text
//! that AUTOMATIC1111's web UI writes, which many programs show. Files of the web UI and of ComfyUI are read too, as
//! far as they can be. `Image::save` writes no metadata.
//!
//! Metadata has the prompts as they are, so a shared file shows them. Names of models and adapters have no absolute
//! paths of the machine; relative paths keep their folders. Images are named by their content hash.

mod chunks;
mod comfy;
mod error;
mod file_names;
mod json;
mod parameters;
mod prompt_syntax;
mod samplers;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ContentHash, ImageError};
use crate::fabric::{ReferenceScope, check_images};
use crate::image_condition::validate_scale;
use crate::init_image::validate_strength;
use crate::noise::NoiseMixture;
use crate::window::Window;
use crate::{Aspect, InvalidValue};

pub use error::MetadataError;
pub(crate) use file_names::without_folders;

/// Largest length of a prompt in bytes. Text encoders read some hundred bytes.
pub(crate) const MAX_PROMPT: usize = 256 << 10;

/// Largest number of entries of [`FoundMetadata::unread`].
const MAX_UNREAD: usize = 64;

/// Record of the request and the model that made an image. Images are named by their content hash.
///
/// ```
/// use fabric_core::image::{Image, ImageMetadata};
///
/// let mut metadata = ImageMetadata::default();
/// metadata.prompt = "a small red star".to_owned();
/// metadata.seeds = vec![7];
/// let file = Image::filled(8, 8, [200, 0, 0])?.to_png_bytes_with_metadata(&metadata)?;
///
/// let found = ImageMetadata::from_png_bytes(&file)?;
/// assert_eq!((found.metadata.seed(), found.unread.len()), (Some(7), 0));
/// assert_eq!(found.metadata.request()?.prompt, "a small red star");
/// # Ok::<(), fabric_core::image::MetadataError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ImageMetadata {
    /// The program that made the image, and its version.
    pub software: String,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt.
    pub negative_prompt: Option<String>,
    /// The seeds of the request. Empty if another program did not write the seed.
    pub seeds: Vec<u64>,
    /// Index of the image into the seeds.
    pub index: usize,
    /// Initial noise of each image as a mixture of the noises of several seeds; empty if it is that of the seeds.
    pub initial_noise: Vec<NoiseMixture>,
    /// Width of the image in pixels; 0 if it is not known.
    pub width: usize,
    /// Height of the image in pixels; 0 if it is not known.
    pub height: usize,
    /// The generation settings ([`Settings`](crate::pipeline::Settings)) as a JSON object. Settings that are not there,
    /// or all of them if this is `null`, are the defaults.
    pub settings: Value,
    /// The model, its LoRAs and the adapters, by the names of their files.
    pub origin: Vec<String>,
    /// Liked and disliked images, oldest first.
    pub references: Vec<ReferenceRecord>,
    /// Images that the pipeline's own adapter used.
    pub image_conditions: Vec<ImageConditionRecord>,
    /// The image that the run started from.
    pub init_image: Option<InitImageRecord>,
    /// Parts of the request that metadata cannot describe, such as a conditioning made by the caller. A restored
    /// request lacks them.
    pub not_restored: Vec<String>,
}

/// A liked or disliked image by its content hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceRecord {
    /// Content hash of the image.
    pub image: ContentHash,
    /// From -1 (disliked) to 1 (liked).
    pub strength: f64,
    /// The part of the run and of the U-Net in which it acted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope: ReferenceScope,
    /// Indices of the images of the request that it acted on; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<usize>>,
}

fn is_default(scope: &ReferenceScope) -> bool {
    *scope == ReferenceScope::default()
}

/// An [`ImageCondition`](crate::ImageCondition) with its image by content hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConditionRecord {
    /// Content hash of the image.
    pub image: ContentHash,
    /// Aspect of the image that was used; `None` is a plain image prompt.
    pub aspect: Option<Aspect>,
    /// Scale; 1 is as trained.
    pub scale: f64,
    /// Part of the run in which it acted.
    pub window: Window,
    /// Whether it led away from the image.
    pub away: bool,
}

/// An [`InitImage`](crate::InitImage) with its images by content hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitImageRecord {
    /// Content hash of the image.
    pub image: ContentHash,
    /// Denoising strength, from 0 to 1.
    pub strength: f64,
    /// Content hash of the inpainting mask.
    pub mask: Option<ContentHash>,
}

/// Metadata that was read from a file, and a report on what could not be read.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FoundMetadata {
    /// The metadata.
    pub metadata: ImageMetadata,
    /// The program whose text was read.
    pub source: MetadataSource,
    /// Notes on what could not be read or has no counterpart in a request: damaged chunks, unknown samplers, further
    /// passes. Empty for an undamaged file of this library; see also [`ImageMetadata::not_restored`].
    pub unread: Vec<String>,
}

/// Program whose text about an image was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MetadataSource {
    /// This library.
    Fabric,
    /// AUTOMATIC1111's web UI, or a program that writes its `parameters` text.
    WebUi,
    /// ComfyUI.
    ComfyUi,
}

impl fmt::Display for MetadataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fabric => "fabric",
            Self::WebUi => "AUTOMATIC1111's web UI",
            Self::ComfyUi => "ComfyUI",
        })
    }
}

/// Metadata as one of the readers returns it.
#[derive(Debug, Default)]
struct Parsed {
    metadata: ImageMetadata,
    unread: Vec<String>,
}

/// Reader of the text of a chunk, in the file or bytes of the given name.
type Reader = fn(&str, &str) -> Result<Parsed, MetadataError>;

/// The readers by keyword, the most exact one first.
const READERS: [(&str, MetadataSource, Reader); 3] = [
    (chunks::FABRIC, MetadataSource::Fabric, json::read),
    (chunks::PARAMETERS, MetadataSource::WebUi, parameters::read),
    (chunks::PROMPT, MetadataSource::ComfyUi, comfy::read),
];

impl ImageMetadata {
    /// Reads the metadata of a PNG file: that of this library, or else that of AUTOMATIC1111's web UI, or else that of
    /// ComfyUI.
    ///
    /// Pixels are neither read nor checked. Texts of more than 2 MiB, as stored or after decompression, are refused.
    /// Decompression ends at that limit.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is no PNG, says nothing about how it was made, or if no text that
    /// it has can be read. If only a part of it is damaged, that is in [`FoundMetadata::unread`].
    pub fn read(path: impl AsRef<Path>) -> Result<FoundMetadata, MetadataError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let read_error = |source| ImageError::Read { place: place.clone(), source };
        // Opening a pipe would block until its other end is opened.
        let kind = std::fs::metadata(path).map_err(read_error)?;
        if !kind.is_file() {
            let got = if kind.is_dir() { "a directory" } else { "a device or a pipe" };
            return Err(ImageError::NotAFile { place, got }.into());
        }
        let file = File::open(path).map_err(read_error)?;
        find(&format!("`{place}`"), &mut BufReader::new(file))
    }

    /// Reads the metadata of a PNG file's bytes, like [`Self::read`].
    ///
    /// # Errors
    ///
    /// Returns an error like [`Self::read`].
    pub fn from_png_bytes(bytes: &[u8]) -> Result<FoundMetadata, MetadataError> {
        find("in memory", &mut Cursor::new(bytes))
    }

    /// Returns the seed of the image, if it is known.
    pub fn seed(&self) -> Option<u64> {
        self.seeds.get(self.index).copied()
    }

    /// Returns the metadata of a request for this image alone, with its own seed, initial noise and references.
    ///
    /// The request makes the same image, except for rounding, as [`Request::alone`](crate::pipeline::Request::alone)
    /// says.
    #[must_use]
    pub fn alone(&self) -> Self {
        let seeds = self.seed().into_iter().collect();
        let initial_noise = self.initial_noise.get(self.index).cloned().into_iter().collect();
        let mut references = self.references.clone();
        references.retain(|one| one.images.as_ref().is_none_or(|images| images.contains(&self.index)));
        // They remain references of single images, which are not distributed.
        references.iter_mut().filter(|one| one.images.is_some()).for_each(|one| one.images = Some(vec![0]));
        let mut settings = self.settings.clone();
        if let Some(per_image) = settings.pointer_mut("/fabric/liked_per_image").and_then(Value::as_object_mut) {
            let first = per_image.get("first").and_then(Value::as_u64).unwrap_or(0);
            per_image.insert("first".to_owned(), first.wrapping_add(self.index as u64).into());
        }
        Self { seeds, initial_noise, references, settings, index: 0, ..self.clone() }
    }

    /// Returns the content hashes of all images that the request had: references, image conditions, init image and
    /// mask. A hash comes as often as its image was used.
    pub fn images(&self) -> impl Iterator<Item = ContentHash> {
        let references = self.references.iter().map(|one| one.image);
        let conditions = self.image_conditions.iter().map(|one| one.image);
        let init_images = self.init_image.iter().flat_map(|one| [Some(one.image), one.mask]).flatten();
        references.chain(conditions).chain(init_images)
    }

    /// Checks that the values can be used and that the texts are not too long.
    fn validate(&self) -> Result<(), InvalidValue> {
        for (name, text) in [("prompt", Some(&self.prompt)), ("negative_prompt", self.negative_prompt.as_ref())] {
            if let Some(text) = text.filter(|text| text.len() > MAX_PROMPT) {
                let (got, expected) = (format!("{} bytes", text.len()), format!("at most {MAX_PROMPT} bytes"));
                return Err(InvalidValue::new(name, got, expected, "shorten it, or save the image without metadata"));
            }
        }
        if !self.seeds.is_empty() && self.seed().is_none() {
            let expected = format!("one of the {} seeds", self.seeds.len());
            return Err(InvalidValue::new("index of an image", self.index, expected, "count from 0"));
        }
        if !self.initial_noise.is_empty() && self.initial_noise.len() != self.seeds.len() {
            let (got, expected) = (self.initial_noise.len(), format!("{}, one per seed, or none", self.seeds.len()));
            return Err(InvalidValue::new("initial noises of an image", got, expected, "give each seed its mixture"));
        }
        for one in &self.references {
            if !(-1.0..=1.0).contains(&one.strength) {
                let expected = "a number from -1 (disliked) to 1 (liked)";
                return Err(InvalidValue::new("strength of a reference", one.strength, expected, "choose one"));
            }
            one.scope.validate("scope of a reference")?;
            // Without seeds, the number of images is not known.
            if let Some(images) = one.images.as_ref().filter(|_| !self.seeds.is_empty()) {
                check_images("images of a reference", images, self.seeds.len())?;
            }
        }
        for one in &self.image_conditions {
            validate_scale(one.scale)?;
            one.aspect.as_ref().map_or(Ok(()), Aspect::validate)?;
        }
        self.init_image.as_ref().map_or(Ok(()), |one| validate_strength(one.strength))
    }
}

/// Finds the first text that can be read.
fn find(place: &str, file: &mut (impl Read + Seek)) -> Result<FoundMetadata, MetadataError> {
    let mut texts = chunks::read(place, file)?;
    let mut problems = std::mem::take(&mut texts.problems);
    for (keyword, source, read) in READERS {
        let parsed = match texts.of(place, keyword) {
            Ok(None) => continue,
            Ok(Some(text)) => read(place, text),
            Err(problem) => Err(problem),
        };
        match parsed {
            Ok(Parsed { mut metadata, unread }) => {
                let mut unread: Vec<String> = problems.iter().map(MetadataError::to_string).chain(unread).collect();
                let size = [metadata.width, metadata.height];
                if size == [0, 0] {
                    (metadata.width, metadata.height) = (texts.width, texts.height);
                } else if size != [texts.width, texts.height] {
                    let (width, height) = (texts.width, texts.height);
                    unread.push(format!("the image was made as {}x{} and is {width}x{height} now", size[0], size[1]));
                }
                let rest = unread.len().saturating_sub(MAX_UNREAD);
                if rest > 0 {
                    unread.truncate(MAX_UNREAD);
                    unread.push(format!("and {rest} more"));
                }
                return Ok(FoundMetadata { metadata, source, unread });
            }
            Err(problem) => problems.push(problem),
        }
    }
    let place = place.to_owned();
    let nothing =
        if texts.has_workflow { MetadataError::OnlyWorkflow { place } } else { MetadataError::Absent { place } };
    Err(problems.into_iter().next().unwrap_or(nothing))
}

/// Returns the beginning of a text from a file without control characters, to quote it in a report.
fn shown(text: &str) -> String {
    text.chars().take(80).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
