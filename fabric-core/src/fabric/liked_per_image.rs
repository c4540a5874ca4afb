//! Distribution of liked images over the images of a request.

use serde::{Deserialize, Serialize};

use crate::InvalidValue;

/// Selects the liked references that each image of a request attends to.
///
/// The first image attends to the newest references, each further image to those from the next older one on. After the
/// oldest follows the newest again. References with images of their own
/// ([`FeedbackImage::images`](crate::pipeline::FeedbackImage)) are neither counted nor distributed.
///
/// ```
/// use fabric_core::fabric::{FabricSettings, LikedPerImage};
/// // Of the images of a round, each resembles another liked image.
/// let settings = FabricSettings { liked_per_image: Some(LikedPerImage::new(1)), ..FabricSettings::official_demo() };
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LikedPerImage {
    /// Number of liked references for each image, at least 1. An image that was liked for two reasons can be two.
    pub most: usize,
    /// Position of the request's first image in the distribution. An image made again alone has its index in the
    /// request that made it.
    #[serde(default)]
    pub first: usize,
}

impl LikedPerImage {
    /// Distributes the liked images from the first image on, `most` for each.
    pub const fn new(most: usize) -> Self {
        Self { most, first: 0 }
    }

    /// Whether an image of the request attends to one of `count` liked images, given by its age: the newest has age 0.
    pub(crate) fn attends(self, image: usize, age: usize, count: usize) -> bool {
        // Each term is below `count`, so that no sum overflows.
        let first = (self.first % count + image % count) % count;
        (age % count + count - first) % count < self.most
    }

    /// Whether any of the first `images` images of the request attends to a liked reference of this age.
    pub(crate) fn attends_any(self, images: usize, age: usize, count: usize) -> bool {
        // The selection repeats after `count` images. The first image attends to `most` references from its own first one
        // on, and each further image shifts that by one.
        let from_first = (age % count + count - self.first % count) % count;
        images > 0 && (images >= count || self.most >= count || from_first < self.most + images - 1)
    }

    pub(super) fn validate(self) -> Result<(), InvalidValue> {
        if self.most > 0 {
            return Ok(());
        }
        let expected = "at least 1, or no fabric.liked_per_image for all of them";
        Err(InvalidValue::new("fabric.liked_per_image.most", 0, expected, "set max_weight to 0 to switch feedback off"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_attends_to_its_number_and_neighbours_to_others() {
        for (count, most, first) in [(1, 1, 0), (3, 1, 0), (3, 2, 1), (5, 2, 4), (4, 3, usize::MAX), (2, usize::MAX, 0)]
        {
            let per_image = LikedPerImage { most, first };
            let of = |image| -> Vec<usize> { (0..count).filter(|&age| per_image.attends(image, age, count)).collect() };
            for image in 0..2 * count {
                assert_eq!(of(image).len(), most.min(count), "{per_image:?} of {count}, image {image}");
                assert_eq!(of(image), of(image + count));
                assert!(most >= count || of(image) != of(image + 1));
            }
        }
        for (count, most, first) in [(5, 2, 0), (5, 2, 4), (7, 3, 5), (4, 1, 2), (3, 9, 0)] {
            let per_image = LikedPerImage { most, first };
            for (images, age) in (0..2 * count).flat_map(|images| (0..count).map(move |age| (images, age))) {
                let any = (0..images).any(|image| per_image.attends(image, age, count));
                assert_eq!(per_image.attends_any(images, age, count), any, "{per_image:?} of {count}, {images}, {age}");
            }
        }
        let newest = |image| (0..3).filter(|&age| LikedPerImage::new(1).attends(image, age, 3)).collect::<Vec<_>>();
        assert_eq!([newest(0), newest(1), newest(2), newest(3)], [[0], [1], [2], [0]]);
    }
}
