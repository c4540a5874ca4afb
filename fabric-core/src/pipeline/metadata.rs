//! Metadata of the images of a run, and requests from metadata.

use std::collections::BTreeMap;

use serde_json::Value;

use super::callback::described;
use super::{FeedbackImage, Generation, Request, Settings};
use crate::image::{
    ContentHash, Image, ImageConditionRecord, ImageMetadata, InitImageRecord, MetadataError, ReferenceRecord,
    without_folders,
};
use crate::{Error, ImageCondition, InitImage, InvalidValue};

impl Generation {
    /// Returns how one of the images was made, to save it with
    /// [`Image::save_with_metadata`](crate::image::Image::save_with_metadata).
    ///
    /// It has all of the request except conditioning and a sampler that the caller made; these are named in
    /// [`ImageMetadata::not_restored`]. Models and adapters are named by their files, without
    /// absolute paths.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no image `index`, or `request` is not the one that made it.
    pub fn metadata(&self, request: &Request, index: usize) -> Result<ImageMetadata, Error> {
        let made = self.images.get(index).zip(self.seeds.get(index));
        let Some((image, _)) = made.filter(|(_, seed)| request.seeds.get(index) == Some(*seed)) else {
            let expected = format!("one of the {} images, and the request that made them", self.images.len());
            return Err(Error::settings("index of an image", index, expected, "count from 0"));
        };
        let init_image = request.init_image.as_ref().map(|start| InitImageRecord {
            image: start.image.content_hash(),
            strength: start.strength,
            mask: start.mask.as_ref().map(Image::content_hash),
        });
        Ok(ImageMetadata {
            software: concat!("fabric ", env!("CARGO_PKG_VERSION")).to_owned(),
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            seeds: request.seeds.clone(),
            index,
            initial_noise: request.initial_noise.clone(),
            width: image.width(),
            height: image.height(),
            settings: serde_json::to_value(&request.settings).expect("settings are plain data"),
            origin: self.report.origin.iter().map(|name| without_folders(name)).collect(),
            references: references(request),
            image_conditions: image_conditions(request),
            init_image,
            not_restored: not_restored(request),
        })
    }
}

fn references(request: &Request) -> Vec<ReferenceRecord> {
    let record = |one: &FeedbackImage| ReferenceRecord {
        image: one.image.content_hash(),
        strength: one.strength,
        scope: one.scope.clone(),
        images: one.images.clone(),
    };
    request.feedback.iter().map(record).collect()
}

fn image_conditions(request: &Request) -> Vec<ImageConditionRecord> {
    let record = |one: &ImageCondition| ImageConditionRecord {
        image: one.image.content_hash(),
        aspect: one.aspect.clone(),
        scale: one.scale,
        window: one.window,
        away: one.away,
    };
    request.image_conditions.iter().map(record).collect()
}

/// Describes the parts of a request that are no data.
fn not_restored(request: &Request) -> Vec<String> {
    let conditioning = request.conditioning.iter().map(|one| {
        let description = without_folders(&described(&*one.conditioning));
        match &one.images {
            Some(images) => format!("{description}, for images {} to {}", images.start, images.end.saturating_sub(1)),
            None => description,
        }
    });
    let sampler = request.sampler.as_ref().map(|_| "a sampler of the caller's own".to_owned());
    conditioning.chain(sampler).collect()
}

/// Restoring requests.
impl ImageMetadata {
    /// Returns a request with the prompts, seeds and settings, without images.
    ///
    /// It makes all images of the original request; [`Self::alone`] leaves out the others. For metadata of other
    /// programs, it has the seed 0 if no seed is known.
    ///
    /// # Errors
    ///
    /// Returns an error if the settings are not those of this version or invalid.
    pub fn request(&self) -> Result<Request, MetadataError> {
        let mut request = Request::new(self.prompt.clone()).with_settings(self.request_settings()?);
        request.negative_prompt.clone_from(&self.negative_prompt);
        if !self.seeds.is_empty() {
            request.seeds.clone_from(&self.seeds);
        }
        request.initial_noise.clone_from(&self.initial_noise);
        Ok(request)
    }

    /// Returns a request like [`Self::request`], with references, image conditions and init image. `find` returns the
    /// image with a content hash, for instance from a session or a folder.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::request`], [`MetadataError::MissingImages`] with all images that `find` does not
    /// have, and [`MetadataError::WrongImage`] if it returns another image.
    pub fn request_with_images(
        &self,
        mut find: impl FnMut(ContentHash) -> Option<Image>,
    ) -> Result<Request, MetadataError> {
        let mut request = self.request()?;
        let mut images = BTreeMap::new();
        let mut missing = Vec::new();
        for expected in self.images() {
            if images.contains_key(&expected) || missing.contains(&expected) {
                continue;
            }
            match find(expected) {
                Some(image) if image.content_hash() == expected => {
                    images.insert(expected, image);
                }
                Some(image) => return Err(MetadataError::WrongImage { expected, got: image.content_hash() }),
                None => missing.push(expected),
            }
        }
        if !missing.is_empty() {
            return Err(MetadataError::MissingImages { missing });
        }
        // `images` has all of them now.
        for one in &self.references {
            let restored = FeedbackImage::new(images[&one.image].clone(), one.strength);
            let (scope, images) = (one.scope.clone(), one.images.clone());
            request.feedback.push(FeedbackImage { scope, images, ..restored });
        }
        for one in &self.image_conditions {
            let condition = ImageCondition::new(images[&one.image].clone()).with_scale(one.scale);
            let condition = ImageCondition { aspect: one.aspect.clone(), window: one.window, ..condition };
            request = request.with_image_condition(if one.away { condition.away() } else { condition });
        }
        request.init_image = self.init_image.as_ref().map(|start| {
            let restored = InitImage::new(images[&start.image].clone(), start.strength);
            match start.mask {
                Some(mask) => restored.with_mask(images[&mask].clone()),
                None => restored,
            }
        });
        Ok(request)
    }

    fn request_settings(&self) -> Result<Settings, InvalidValue> {
        let refused = |got: String| {
            InvalidValue::new("settings of an image", got, "settings of this version", "set them by hand")
        };
        let settings: Settings = match &self.settings {
            Value::Null => Settings::default(),
            // serde would accept an array as the fields in order.
            Value::Object(_) => {
                serde_json::from_value(self.settings.clone()).map_err(|error| refused(error.to_string()))?
            }
            other => return Err(refused(format!("no JSON object: {:.40}", other.to_string()))),
        };
        match settings.validate() {
            Ok(()) => Ok(settings),
            Err(Error::Settings(error)) => Err(error),
            Err(error) => Err(refused(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::Aspect;
    use crate::fabric::{FabricSettings, LikedPerImage, ReferenceScope};
    use crate::image::MetadataSource;
    use crate::noise::NoiseMixture;
    use crate::pipeline::{Conditioning, PreparedConditioning, Report, RunContext, Window};
    use crate::schedule::{SamplerKind, SigmaCurve};

    /// An image of one colour.
    fn image(red: u8) -> Image {
        Image::filled(8, 4, [red, 0, 0]).unwrap()
    }

    /// A request that uses everything that metadata can describe.
    fn full() -> Request {
        let settings = Settings {
            steps: 7,
            sampler: Some(SamplerKind::DpmPlusPlus2M(SigmaCurve::Karras)),
            guidance_scale: 0.1 + 0.2,
            guidance_window: Window::new(0.1, 0.75).unwrap(),
            fabric: FabricSettings { liked_per_image: Some(LikedPerImage::new(1)), ..FabricSettings::web_ui() },
            memory_limit: Some(u64::MAX),
            ..Settings::default()
        };
        let scope = ReferenceScope { weight: 0.5, ..ReferenceScope::default() };
        let mixture = NoiseMixture::new([3, u64::MAX], [1.0, 0.3]).unwrap();
        let request = Request::new("a \"red\"\nstar, 日本\0")
            .with_negative_prompt("")
            .with_seeds([3, u64::MAX])
            .with_initial_noise([mixture, NoiseMixture::of_seed(9)])
            .with_settings(settings)
            .with_feedback(image(1), 0.25)
            .with_scoped_feedback(image(2), -1.0, scope)
            .with_image_condition(ImageCondition::new(image(3)).using(Aspect::Style).with_scale(0.8).away())
            .with_image_condition(ImageCondition::new(image(1)).with_window(Window::new(0.0, 0.5).unwrap()));
        let mut request = request.with_inpainting(image(4), image(5), 0.6);
        request.feedback.push(FeedbackImage::new(image(3), 0.5).only_for([0]));
        request.feedback.push(FeedbackImage::new(image(4), 0.5).only_for([1]));
        request
    }

    fn made(request: &Request, origin: &[&str]) -> Generation {
        let images = request.seeds.iter().map(|seed| image(*seed as u8)).collect();
        let report = Report { origin: origin.iter().map(|name| (*name).to_owned()).collect(), ..Report::default() };
        let device = fabric_backends::default_device().unwrap();
        Generation { images, seeds: request.seeds.clone(), latents: Tensor::zeros([2, 4, 1, 1], &device), report }
    }

    /// Returns the parts of a request that can be compared, as text.
    fn parts(request: &Request) -> String {
        format!("{request:?} {:?} {:?}", hashes(request), request.settings)
    }

    fn hashes(request: &Request) -> Vec<ContentHash> {
        let references = request.feedback.iter().map(|one| &one.image);
        let conditions = request.image_conditions.iter().map(|one| &one.image);
        let start = request.init_image.iter().flat_map(|one| [Some(&one.image), one.mask.as_ref()]).flatten();
        references.chain(conditions).chain(start).map(Image::content_hash).collect()
    }

    #[test]
    fn a_request_comes_back_from_the_file_of_its_image() {
        let request = full();
        let made = made(&request, &["Stable Diffusion 1 sd15", "LoRA fine.safetensors at 0.8"]);
        let metadata = made.metadata(&request, 1).unwrap();
        let file = made.images[1].to_png_bytes_with_metadata(&metadata).unwrap();
        assert_eq!(Image::from_bytes(&file).unwrap(), made.images[1]);

        let found = ImageMetadata::from_png_bytes(&file).unwrap();
        assert_eq!((&found.metadata, found.source), (&metadata, MetadataSource::Fabric));
        assert!(found.unread.is_empty(), "{:?}", found.unread);
        assert_eq!(found.metadata.seed(), Some(u64::MAX));
        let given: Vec<Image> = (1..=5).map(image).collect();
        let find = |hash: ContentHash| given.iter().find(|image| image.content_hash() == hash).cloned();
        let restored = found.metadata.request_with_images(find).unwrap();
        assert_eq!(parts(&restored), parts(&request));

        let alone = found.metadata.alone();
        let images: Vec<Option<Vec<usize>>> = alone.references.iter().map(|one| one.images.clone()).collect();
        assert_eq!(images, [None, None, Some(vec![0])], "those of image 1");
        assert_eq!(alone.references[2].image, image(4).content_hash());
        let per_image = alone.request().unwrap().settings.fabric.liked_per_image;
        assert_eq!(per_image, Some(LikedPerImage { most: 1, first: 1 }));
        let alone = alone.request().unwrap();
        assert_eq!((alone.seeds, alone.initial_noise), (vec![u64::MAX], vec![NoiseMixture::of_seed(9)]));

        let without_images = found.metadata.request().unwrap();
        assert_eq!((without_images.settings, without_images.seeds), (request.settings, request.seeds));
        assert!(without_images.feedback.is_empty() && without_images.init_image.is_none());
    }

    #[test]
    fn missing_and_wrong_images_are_named() {
        let request = full();
        let metadata = made(&request, &[]).metadata(&request, 0).unwrap();
        let has = |red: u8| move |hash: ContentHash| Some(image(red)).filter(|image| image.content_hash() == hash);
        let error = metadata.request_with_images(has(3)).unwrap_err();
        let expected: Vec<ContentHash> = [1, 2, 4, 5].map(|red| image(red).content_hash()).to_vec();
        assert!(expected.iter().all(|hash| error.to_string().contains(&hash.to_string())), "{error}");
        assert!(matches!(error, MetadataError::MissingImages { missing } if missing == expected));
        let error = metadata.request_with_images(|_| Some(image(9))).unwrap_err();
        assert!(matches!(error, MetadataError::WrongImage { got, .. } if got == image(9).content_hash()), "{error}");
    }

    #[test]
    fn an_image_of_another_request_has_no_metadata() {
        let request = full();
        let made = made(&request, &[]);
        assert!(made.metadata(&request, 2).is_err());
        let other = request.with_seeds([3, 4]);
        assert!(made.metadata(&other, 0).is_ok());
        assert!(made.metadata(&other, 1).unwrap_err().to_string().contains("the request that made them"));
    }

    /// Conditioning whose description has a folder.
    #[derive(Debug)]
    struct Described;

    impl Conditioning for Described {
        fn prepare(&self, _: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
            Err(Error::settings("conditioning", "a run", "none", "it is not run here"))
        }

        fn describe(&self) -> String {
            r"adapter C:\Users\Me\fine.safetensors".to_owned()
        }
    }

    #[test]
    fn what_is_no_data_is_named_without_folders() {
        let request = full().with(Described).with_for(0..1, Described);
        let made = made(&request, &["model /home/me/sd15", "~me/loras/fine.pt"]);
        let metadata = made.metadata(&request, 0).unwrap();
        assert_eq!(metadata.origin, ["model sd15", "fine.pt"]);
        let described = ["adapter fine.safetensors", "adapter fine.safetensors, for images 0 to 0"];
        assert_eq!(metadata.not_restored, described);
    }

    #[test]
    fn settings_of_another_version_are_refused() {
        let mut metadata = ImageMetadata::default();
        assert_eq!(metadata.request().unwrap().settings, Settings::default());
        for settings in [r#"{"stepz": 7}"#, r#"{"steps": 0}"#, "[]", "7"] {
            metadata.settings = serde_json::from_str(settings).unwrap();
            assert!(matches!(metadata.request(), Err(MetadataError::Value(_))), "{settings}");
        }
    }
}
