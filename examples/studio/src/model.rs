//! The model of the studio, and its adapter for image prompts.

use std::path::{Path, PathBuf};

use fabric::core::pipeline::{ImageAdapter, Pipeline, Request, Settings};
use fabric::core::{Aspect, AspectKind};
use fabric::ipadapter::IpAdapter;
use fabric::models::clip::ClipVision;
use serde::Serialize;

use crate::StudioError;
use crate::error::{ApiError, ErrorCode};
use crate::settings::{Preset, presets};

/// Largest number of images of a round.
pub(crate) const MOST_IMAGES: usize = 8;

/// A pipeline with its name, and optionally an adapter for image prompts and reasons. Cloning copies handles.
#[derive(Debug, Clone)]
pub struct Model {
    name: String,
    pub(crate) pipeline: Pipeline,
    adapter: Option<IpAdapter>,
}

/// A model as the interface shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ModelView {
    name: String,
    version: &'static str,
    width: usize,
    height: usize,
    aspects: Vec<AspectKind>,
    has_image_prompt: bool,
    settings: Settings,
    presets: Vec<Preset>,
    max_images: usize,
    queue_limit: usize,
}

impl Model {
    /// Creates a model without an adapter. The page shows its name.
    pub fn new(name: impl Into<String>, pipeline: Pipeline) -> Self {
        Self { name: name.into(), pipeline, adapter: None }
    }

    /// Opens an adapter file with the image encoder in a folder, for image prompts and the reasons of votes.
    ///
    /// # Errors
    ///
    /// Returns an error if the adapter or the encoder cannot be read.
    pub fn with_adapter(self, file: impl AsRef<Path>, encoder: impl AsRef<Path>) -> Result<Self, StudioError> {
        let device = self.pipeline.device();
        let adapter = IpAdapter::open(file, &device)?.with_encoder(ClipVision::open(encoder, &device)?);
        Ok(Self { pipeline: self.pipeline.with_adapter(adapter.clone()), adapter: Some(adapter), name: self.name })
    }

    /// Returns the Instruct adapter of a model folder, `ip_adapter/instruct.safetensors`, if it has one.
    pub fn own_adapter(folder: &Path) -> Option<PathBuf> {
        Some(folder.join("ip_adapter").join("instruct.safetensors")).filter(|file| file.is_file())
    }

    /// Checks that the adapter can use the images of a request.
    pub(crate) fn check(&self, request: &Request) -> Result<(), ApiError> {
        for condition in &request.image_conditions {
            let aspect = condition.aspect.as_ref();
            if !self.supports(aspect) {
                let got = aspect.map_or("an image prompt".to_owned(), |aspect| format!("`{aspect}`"));
                let next = "take back the vote or image prompt, or start the studio with --adapter and its file";
                let (message, expected) = ("the model cannot use a reason or an image prompt", self.usable());
                return Err(ApiError::new(ErrorCode::NoAdapter, message, expected, got, next));
            }
        }
        Ok(())
    }

    pub(crate) fn view(&self, queue_limit: usize) -> ModelView {
        let settings = self.pipeline.recommended_settings().clone();
        let side = self.pipeline.native_size();
        ModelView {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            width: settings.width.unwrap_or(side),
            height: settings.height.unwrap_or(side),
            aspects: self.aspects(),
            has_image_prompt: self.supports(None),
            presets: presets(&settings),
            settings,
            max_images: MOST_IMAGES,
            queue_limit,
        }
    }

    /// Kinds of aspects that the adapter can use.
    fn aspects(&self) -> Vec<AspectKind> {
        let [object, words] = [Aspect::Object, Aspect::Words].map(|kind| kind("thing".to_owned()));
        let named = [
            Aspect::Everything,
            Aspect::Style,
            Aspect::Colour,
            Aspect::Pose,
            Aspect::Composition,
            Aspect::Face,
            Aspect::Foreground,
            Aspect::Background,
        ];
        let all = named.into_iter().chain([object, words]);
        all.filter(|aspect| self.supports(Some(aspect))).map(|aspect| aspect.kind()).collect()
    }

    /// Whether the adapter can use this aspect of an image, or without one, an image.
    fn supports(&self, aspect: Option<&Aspect>) -> bool {
        let layers = self.pipeline.cross_attentions();
        let can_use = |adapter: &IpAdapter| aspect.is_none_or(|aspect| adapter.supports(aspect, &layers));
        self.adapter.as_ref().is_some_and(can_use)
    }

    /// Says what the adapter can use.
    fn usable(&self) -> String {
        let aspects: Vec<String> = self.aspects().iter().map(ToString::to_string).collect();
        match &self.adapter {
            None => "votes without a reason and no image prompts, as there is no adapter".to_owned(),
            Some(_) if aspects.is_empty() => "image prompts without an aspect".to_owned(),
            Some(_) => format!("one of {}", aspects.join(", ")),
        }
    }
}
