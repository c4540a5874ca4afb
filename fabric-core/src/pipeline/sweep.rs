//! Comparisons of requests that differ in one thing, as labelled sheets.

use super::{Generation, Pipeline, Request};
use crate::image::{Image, labelled_sheet};
use crate::{Aspect, Error, ImageCondition};

/// Gap between the images of a sheet in pixels.
const GAP: usize = 8;

/// Requests to compare, each with its label.
impl Request {
    /// Returns this request with the strengths of all references multiplied by each of these factors, which are from 0
    /// (no feedback) to 1.
    ///
    /// ```
    /// # use fabric_core::{image::Image, pipeline::Request};
    /// let liked = Image::filled(64, 64, [200, 0, 0])?;
    /// let sweep = Request::new("a star").with_liked(liked).strength_sweep(&[0.0, 0.5]);
    /// assert_eq!((sweep[1].0.as_str(), sweep[1].1.feedback[0].strength), ("strength 0.5", 0.5));
    /// # Ok::<(), fabric_core::Error>(())
    /// ```
    pub fn strength_sweep(&self, factors: &[f64]) -> Vec<(String, Self)> {
        let variant = |factor: &f64| {
            let mut request = self.clone();
            request.feedback.iter_mut().for_each(|one| one.strength *= factor);
            (format!("strength {factor}"), request)
        };
        factors.iter().map(variant).collect()
    }

    /// Returns this request without references, with the liked ones only, with the disliked ones only, and with both.
    pub fn ablation(&self) -> Vec<(String, Self)> {
        let variant = |label: &str, is_kept: fn(f64) -> bool| {
            let mut request = self.clone();
            request.feedback.retain(|one| is_kept(one.strength));
            (label.to_owned(), request)
        };
        vec![
            variant("none", |_| false),
            variant("liked", |strength| strength > 0.0),
            variant("disliked", |strength| strength < 0.0),
            variant("both", |_| true),
        ]
    }

    /// Returns a row of requests for each aspect, in which an image condition of that aspect has each of these scales.
    pub fn aspect_grid(&self, image: &Image, aspects: &[Aspect], scales: &[f64]) -> Vec<(String, Vec<(String, Self)>)> {
        let row = |aspect: &Aspect| {
            let cell = |scale: &f64| {
                let condition = ImageCondition::new(image.clone()).using(aspect.clone()).with_scale(*scale);
                (format!("scale {scale}"), self.clone().with_image_condition(condition))
            };
            (aspect.to_string(), scales.iter().map(cell).collect())
        };
        aspects.iter().map(row).collect()
    }
}

/// Comparing requests.
impl Pipeline {
    /// Generates the images of several requests, for instance of [`Request::strength_sweep`] or [`Request::ablation`],
    /// and returns a sheet with a column for each request and a row for each seed of the first one.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate`], and an error if the requests differ in their seeds, there are none, or
    /// the sheet would be too large.
    pub fn compare(&self, requests: &[(String, Request)]) -> Result<Image, Error> {
        check_seeds(requests)?;
        let made = requests.iter().map(|(_, request)| self.generate(request)).collect::<Result<Vec<_>, _>>()?;
        let labels: Vec<String> = requests.iter().map(|(label, _)| label.clone()).collect();
        Ok(labelled_sheet(&labels, &rows_of_seeds(&made), GAP)?)
    }

    /// Generates the first image of each request of a grid, for instance of [`Request::aspect_grid`], and returns a
    /// sheet with its rows and columns.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate`], and an error if there are no requests or the sheet would be too large.
    pub fn compare_grid(&self, rows: &[(String, Vec<(String, Request)>)]) -> Result<Image, Error> {
        let mut drawn = Vec::with_capacity(rows.len());
        for (label, requests) in rows {
            let mut images = Vec::with_capacity(requests.len());
            for (_, request) in requests {
                images.extend(self.generate(&request.alone(0))?.images);
            }
            drawn.push((label.clone(), images));
        }
        let labels = rows.first().into_iter().flat_map(|(_, requests)| requests).map(|(label, _)| label.clone());
        Ok(labelled_sheet(&labels.collect::<Vec<_>>(), &drawn, GAP)?)
    }
}

/// Checks that all requests have the seeds of the first one, so that a row of the sheet has one seed.
fn check_seeds(requests: &[(String, Request)]) -> Result<(), Error> {
    let Some((_, first)) = requests.first() else { return Ok(()) };
    match requests.iter().find(|(_, request)| request.seeds != first.seeds) {
        None => Ok(()),
        Some((label, request)) => Err(Error::settings(
            format!("seeds of the request `{label}`"),
            format!("{:?}", request.seeds),
            format!("those of the first request, {:?}", first.seeds),
            "give all requests the same seeds",
        )),
    }
}

/// Returns the images of each seed, over all generations.
fn rows_of_seeds(made: &[Generation]) -> Vec<(String, Vec<Image>)> {
    let seeds = made.first().map(|first| first.seeds.as_slice()).unwrap_or_default();
    let row = |(index, seed): (usize, &u64)| {
        (format!("seed {seed}"), made.iter().filter_map(|one| one.images.get(index).cloned()).collect())
    };
    seeds.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::pipeline::Report;

    fn image(red: u8) -> Image {
        Image::filled(8, 4, [red, 0, 0]).unwrap()
    }

    fn request() -> Request {
        Request::new("a star").with_seeds([3, 4]).with_feedback(image(1), 0.5).with_disliked(image(2))
    }

    fn strengths(request: &Request) -> Vec<f64> {
        request.feedback.iter().map(|one| one.strength).collect()
    }

    #[test]
    fn a_sweep_multiplies_every_strength_and_keeps_the_rest() {
        let sweep = request().strength_sweep(&[0.0, 0.5, 1.0]);
        let labels: Vec<&str> = sweep.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(labels, ["strength 0", "strength 0.5", "strength 1"]);
        let all: Vec<Vec<f64>> = sweep.iter().map(|(_, request)| strengths(request)).collect();
        assert_eq!(all, [[0.0, 0.0], [0.25, -0.5], [0.5, -1.0]]);
        assert!(sweep.iter().all(|(_, one)| one.seeds == [3, 4] && one.prompt == "a star" && one.validate().is_ok()));
        assert!(request().strength_sweep(&[2.0])[0].1.validate().is_err(), "beyond the range of a strength");
    }

    #[test]
    fn an_ablation_has_each_side_alone() {
        let all: Vec<(String, Vec<f64>)> =
            request().ablation().into_iter().map(|(label, request)| (label, strengths(&request))).collect();
        let expected = [("none", vec![]), ("liked", vec![0.5]), ("disliked", vec![-1.0]), ("both", vec![0.5, -1.0])];
        assert_eq!(all, expected.map(|(label, strengths)| (label.to_owned(), strengths)));
    }

    #[test]
    fn a_grid_has_a_row_for_each_aspect_and_a_column_for_each_scale() {
        let grid = request().aspect_grid(&image(7), &[Aspect::Style, Aspect::Colour], &[0.5, 1.0, 2.0]);
        let labels: Vec<&str> = grid.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(labels, ["use the style", "use the colour"]);
        let (label, last) = &grid[1].1[2];
        let condition = &last.image_conditions[0];
        assert_eq!((label.as_str(), condition.scale, &condition.aspect), ("scale 2", 2.0, &Some(Aspect::Colour)));
        assert_eq!((&condition.image, grid[0].1.len(), last.feedback.len()), (&image(7), 3, 2));
        assert_eq!(last.alone(0).seeds, [3]);
    }

    #[test]
    fn a_row_has_the_images_of_one_seed() {
        let device = fabric_backends::default_device().unwrap();
        let made = [10, 20].map(|red| Generation {
            images: vec![image(red), image(red + 1)],
            seeds: vec![3, 4],
            latents: Tensor::zeros([2, 4, 1, 1], &device),
            report: Report::default(),
        });
        let rows = rows_of_seeds(&made);
        let expected = [("seed 3", vec![image(10), image(20)]), ("seed 4", vec![image(11), image(21)])];
        assert_eq!(rows, expected.map(|(label, images)| (label.to_owned(), images)));
        assert!(rows_of_seeds(&[]).is_empty());
    }

    #[test]
    fn requests_with_other_seeds_are_no_rows() {
        let mut all = request().ablation();
        assert!(check_seeds(&all).is_ok() && check_seeds(&[]).is_ok());
        all[2].1.seeds.pop();
        let message = check_seeds(&all).unwrap_err().to_string();
        assert!(message.starts_with("seeds of the request `disliked`: expected those of the first"), "{message}");
    }

    #[test]
    fn the_first_image_has_the_conditioning_that_is_for_it() {
        #[derive(Debug)]
        struct Nothing;
        impl crate::pipeline::Conditioning for Nothing {
            fn prepare(
                &self,
                _: &crate::pipeline::RunContext<'_>,
            ) -> Result<Box<dyn crate::pipeline::PreparedConditioning>, Error> {
                unreachable!("nothing runs")
            }
        }
        let request = request().with_for(0..2, Nothing).with_for(1..2, Nothing).with(Nothing);
        let first = request.alone(0);
        assert!(first.validate().is_ok());
        assert_eq!(first.conditioning.len(), 2);
        assert_eq!(request.alone(1).conditioning.len(), 3);
        assert!(request.alone(2).validate().is_err(), "there is no such image");
    }
}
