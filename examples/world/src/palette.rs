//! sRGB values of the colours.

use super::{BackgroundColour, Colour, Skin};

/// An 8-bit sRGB colour.
pub type Rgb = [u8; 3];

/// The two shades of a surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tones {
    /// The main shade; the only one of a plain surface.
    pub main: Rgb,
    /// The shade of stripes, dots, checks or outline.
    pub second: Rgb,
}

impl Colour {
    /// Returns the sRGB shades of a thing of this colour.
    ///
    /// The second one is lighter or darker, whichever is farther from all other colours.
    pub fn tones(self) -> Tones {
        let (main, second) = match self {
            Self::Red => ([215, 35, 35], [146, 6, 22]),
            Self::Orange => ([244, 130, 18], [255, 202, 138]),
            Self::Yellow => ([250, 214, 40], [176, 144, 8]),
            Self::Green => ([38, 158, 68], [140, 222, 140]),
            Self::Blue => ([40, 88, 220], [134, 178, 255]),
            Self::Purple => ([130, 42, 172], [70, 10, 100]),
            Self::Pink => ([248, 148, 194], [224, 76, 150]),
            Self::White => ([242, 242, 242], [186, 186, 190]),
            Self::Black => ([20, 20, 22], [82, 82, 86]),
        };
        Tones { main, second }
    }
}

impl BackgroundColour {
    /// Returns the sRGB shades of a background of this colour, closer to each other than those of a thing.
    pub fn tones(self) -> Tones {
        let Tones { main, second } = match self {
            Self::Red => Colour::Red.tones(),
            Self::Yellow => Colour::Yellow.tones(),
            Self::Green => Colour::Green.tones(),
            Self::Blue => Colour::Blue.tones(),
            Self::Pink => Colour::Pink.tones(),
            Self::White => Colour::White.tones(),
            Self::Black => Colour::Black.tones(),
            Self::Gray => Tones { main: [128, 128, 128], second: [186, 186, 186] },
        };
        Tones { main, second: mix(main, second, 0.45) }
    }
}

impl Skin {
    /// Returns the sRGB colour of the skin.
    pub fn rgb(self) -> Rgb {
        match self {
            Self::Light => [252, 221, 192],
            Self::Brown => [205, 148, 100],
            Self::Dark => [134, 86, 56],
        }
    }
}

/// Interpolates between two colours: `share` 0 is `from`, 1 is `to`.
fn mix(from: Rgb, to: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|i| (f32::from(from[i]) + share * (f32::from(to[i]) - f32::from(from[i]))).round() as u8)
}

/// Brightens a colour by a share of full brightness.
pub(super) fn shaded(rgb: Rgb, shade: f32) -> Rgb {
    rgb.map(|value| (f32::from(value) + 255.0 * shade).round() as u8)
}

/// Returns the Euclidean distance in sRGB, from 0 to 442.
#[cfg(test)]
pub(super) fn distance(a: Rgb, b: Rgb) -> f32 {
    (0..3).map(|i| (f32::from(a[i]) - f32::from(b[i])).powi(2)).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shade_of_a_colour_lies_apart_from_every_shade_of_another() {
        for (i, a) in Colour::ALL.iter().enumerate() {
            for b in &Colour::ALL[..i] {
                let (a_tones, b_tones) = (a.tones(), b.tones());
                let mains = distance(a_tones.main, b_tones.main);
                assert!(mains > 80.0, "{a} and {b}: {mains}");
                for (x, y) in [(a_tones.main, b_tones.second), (a_tones.second, b_tones.main)] {
                    assert!(distance(x, y) > 60.0, "{a} and {b}: {}", distance(x, y));
                }
            }
        }
        for (i, a) in BackgroundColour::ALL.iter().enumerate() {
            for b in &BackgroundColour::ALL[..i] {
                let apart = distance(a.tones().main, b.tones().main);
                assert!(apart > 80.0, "{a} and {b}: {apart}");
            }
        }
    }
}
