//! Rendering of scenes.

use tiny_skia::{Path, Transform};

use super::canvas::Canvas;
use super::palette::{Rgb, Tones, shaded};
use super::shapes::{circles, ellipse, outline};
use super::{Kind, Scene, Texture, Variation, WorldError, face, patterns};

impl Scene {
    /// Renders an image of `side` by `side` pixels: 8-bit sRGB, three bytes per pixel, row by row from the top
    /// left.
    ///
    /// On one machine, the same scene, variation and side give the same bytes. Across machines, the sines of
    /// their maths libraries may differ in the last digit.
    ///
    /// # Errors
    ///
    /// Returns [`WorldError::Side`] if `side` is not from 16 to 1024.
    pub fn render(&self, variation: &Variation, side: u32) -> Result<Vec<u8>, WorldError> {
        let mut canvas = self.backdrop(variation, side)?;
        canvas.through(self.place(variation));
        let tones = shaded_tones(self.colour.tones(), variation.shade);
        if self.is_face() {
            face::draw(&mut canvas, &self.identity, tones.main, variation.shade);
        } else {
            self.draw_thing(&mut canvas, tones);
        }
        Ok(canvas.into_rgb())
    }

    /// Renders the image without the thing, in the same layout.
    ///
    /// # Errors
    ///
    /// Returns [`WorldError::Side`] if `side` is not from 16 to 1024.
    pub fn render_background(&self, variation: &Variation, side: u32) -> Result<Vec<u8>, WorldError> {
        Ok(self.backdrop(variation, side)?.into_rgb())
    }

    /// Renders the coverage of each pixel by the thing, from 0 to 255: one byte per pixel, row by row from the
    /// top left.
    ///
    /// # Errors
    ///
    /// Returns [`WorldError::Side`] if `side` is not from 16 to 1024.
    pub fn mask(&self, variation: &Variation, side: u32) -> Result<Vec<u8>, WorldError> {
        const WHITE: Rgb = [255; 3];
        let mut canvas = Canvas::new(side, [0; 3])?;
        canvas.through(self.place(variation));
        if self.is_face() {
            face::draw_silhouette(&mut canvas, &self.identity, WHITE);
        } else {
            canvas.fill(outline(self.kind), WHITE, None);
        }
        Ok(canvas.into_rgb().into_iter().step_by(3).collect())
    }

    fn backdrop(&self, variation: &Variation, side: u32) -> Result<Canvas, WorldError> {
        let tones = shaded_tones(self.background.colour.tones(), variation.background_shade);
        let mut canvas = Canvas::new(side, tones.main)?;
        if let Some(pattern) = patterns::of_background(self.background.pattern) {
            canvas.fill(&pattern, tones.second, None);
        }
        Ok(canvas)
    }

    /// Returns the transform from a thing of radius 1 at the origin to its place, in pixels of a 64-pixel
    /// image.
    fn place(&self, variation: &Variation) -> Transform {
        let [x, y] = self.center();
        let radius = self.size.radius() * (1.0 + variation.growth);
        Transform::from_scale(radius, radius)
            .post_rotate(variation.turn)
            .post_translate(x + variation.shift[0], y + variation.shift[1])
    }

    fn draw_thing(&self, canvas: &mut Canvas, tones: Tones) {
        let outline = outline(self.kind);
        canvas.fill(outline, tones.main, None);
        self.draw_texture(canvas, outline, tones.second);
        match self.kind {
            Kind::Flower => canvas.fill(&circles(&[0.27]), tones.second, None),
            Kind::Fish => {
                canvas.fill(&ellipse([-0.55, -0.12], [0.15, 0.15]), [250; 3], None);
                canvas.fill(&ellipse([-0.57, -0.11], [0.075, 0.075]), [16; 3], None);
            }
            _ => {}
        }
    }

    fn draw_texture(&self, canvas: &mut Canvas, outline: &Path, second: Rgb) {
        if self.texture == Texture::Outlined {
            // Drawn twice as wide, because the outer half of the line is clipped.
            let clip = canvas.clip(outline);
            canvas.stroke(outline, 2.0 * patterns::outline_width(self.size), second, Some(&clip));
        } else if let Some(pattern) = patterns::of_texture(self.texture, self.size) {
            let clip = canvas.clip(outline);
            canvas.fill(&pattern, second, Some(&clip));
        }
    }
}

fn shaded_tones(Tones { main, second }: Tones, shade: f32) -> Tones {
    Tones { main: shaded(main, shade), second: shaded(second, shade) }
}
