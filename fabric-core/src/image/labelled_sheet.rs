//! Sheets of images with labels, for sweeps of a setting.

use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};

use super::fit::paste;
use super::sheet::PAPER;
use super::{Image, ImageError, Mark, check_size, contact_sheet};

const INK: [u8; 3] = [36, 41, 47];

/// Width and height of a letter in dots, with the space beside it.
const LETTER: usize = 8;

/// Largest number of letters of a row's label.
const MAX_LETTERS: usize = 32;

/// Draws rows of images like [`contact_sheet`], with a label above each column and to the left of each row.
///
/// Labels have the letters of Latin-1; others are drawn as a question mark. A column's label is cut off
/// where the next column begins, that of a row after 32 letters.
///
/// # Errors
///
/// Returns [`ImageError::Size`] if there are no images or the sheet would be too large.
///
/// ```
/// use fabric_core::image::{Image, labelled_sheet};
///
/// let [weak, strong] = [60, 200].map(|red| Image::filled(64, 64, [red, 0, 0]));
/// let columns = ["0.3", "1"].map(str::to_owned);
/// let sheet = labelled_sheet(&columns, &[("seed 7".to_owned(), vec![weak?, strong?])], 8)?;
/// assert!(sheet.width() > 2 * 64 && sheet.height() > 64);
/// # Ok::<(), fabric_core::image::ImageError>(())
/// ```
pub fn labelled_sheet(columns: &[String], rows: &[(String, Vec<Image>)], gap: usize) -> Result<Image, ImageError> {
    let marked: Vec<Vec<(&Image, Mark)>> =
        rows.iter().map(|(_, images)| images.iter().map(|image| (image, Mark::None)).collect()).collect();
    let grid = contact_sheet(&marked, gap)?;
    let images = || rows.iter().flat_map(|(_, images)| images);
    let cell_width = images().map(Image::width).max().unwrap_or(0);
    let cell_height = images().map(Image::height).max().unwrap_or(0);

    // About sixteen letters fit above an image of a usual size.
    let scale = (cell_width / 128).max(1);
    let side = LETTER * scale;
    let longest = rows.iter().map(|(label, _)| label.chars().count().min(MAX_LETTERS)).max().unwrap_or(0);
    let left = if longest == 0 { 0 } else { gap + longest * side };
    let top = if columns.iter().all(String::is_empty) { 0 } else { gap + side };
    let (width, height) = (left + grid.width(), top + grid.height());
    check_size("the labelled sheet", width, height)?;

    let mut rgb = PAPER.repeat(width * height);
    paste(&mut rgb, width, &grid, left, top);
    let mut sheet = Sheet { rgb, width, height, scale };
    for (column, label) in columns.iter().enumerate() {
        let most = (cell_width + gap) / side;
        sheet.write(label, most, left + gap + column * (cell_width + gap), gap);
    }
    for (row, (label, _)) in rows.iter().enumerate() {
        let middle = cell_height.saturating_sub(side) / 2;
        sheet.write(label, MAX_LETTERS, gap, top + gap + row * (cell_height + gap) + middle);
    }
    Ok(Image::new(width, height, sheet.rgb))
}

/// Pixels that text is drawn on.
struct Sheet {
    rgb: Vec<u8>,
    width: usize,
    height: usize,
    /// Side of a letter's dot in pixels.
    scale: usize,
}

impl Sheet {
    /// Draws the first `most` letters of a text; what lies beyond the edge is left out.
    fn write(&mut self, text: &str, most: usize, left: usize, top: usize) {
        for (index, letter) in text.chars().take(most).enumerate() {
            let left = left + index * LETTER * self.scale;
            for (row, dots) in dots_of(letter).into_iter().enumerate() {
                // The lowest bit is on the left.
                for column in (0..LETTER).filter(|column| (dots >> column) & 1 == 1) {
                    self.dot(left + column * self.scale, top + row * self.scale);
                }
            }
        }
    }

    fn dot(&mut self, left: usize, top: usize) {
        for y in top..(top + self.scale).min(self.height) {
            for x in left..(left + self.scale).min(self.width) {
                let at = (y * self.width + x) * 3;
                self.rgb[at..at + 3].copy_from_slice(&INK);
            }
        }
    }
}

/// Returns the rows of dots of a letter, from the top.
fn dots_of(letter: char) -> [u8; LETTER] {
    let known = |letter| BASIC_FONTS.get(letter).or_else(|| LATIN_FONTS.get(letter));
    known(letter).or_else(|| known('?')).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<const N: usize>(labels: [&str; N]) -> [String; N] {
        labels.map(str::to_owned)
    }

    fn ink(sheet: &Image, x: std::ops::Range<usize>, y: std::ops::Range<usize>) -> usize {
        y.flat_map(|y| x.clone().map(move |x| (x, y))).filter(|&(x, y)| sheet.pixel(x, y) == INK).count()
    }

    #[test]
    fn labels_stand_beside_the_images_and_cover_none() {
        let [red, blue] = [[200, 0, 0], [0, 0, 200]].map(|colour| Image::filled(40, 30, colour).unwrap());
        let rows = [("A".to_owned(), vec![red.clone(), blue.clone()]), ("BC".to_owned(), vec![blue, red])];
        let sheet = labelled_sheet(&labels(["1", "2"]), &rows, 4).unwrap();
        // Two letters of 8 dots, one line of 8 dots, and a gap before each.
        let (left, top) = (4 + 2 * 8, 4 + 8);
        assert_eq!((sheet.width(), sheet.height()), (left + 4 + 2 * 44, top + 4 + 2 * 34));
        for (column, row, colour) in [(0, 0, [200, 0, 0]), (1, 0, [0, 0, 200]), (0, 1, [0, 0, 200])] {
            let (x, y) = (left + 4 + column * 44, top + 4 + row * 34);
            assert_eq!([sheet.pixel(x, y), sheet.pixel(x + 39, y + 29)], [colour; 2]);
        }
        let dots = |text: &str| text.chars().flat_map(dots_of).map(u8::count_ones).sum::<u32>() as usize;
        assert!(dots("1") > 0 && dots("1") != dots("A"));
        assert_eq!(ink(&sheet, left + 4..left + 48, 0..top), dots("1"));
        assert_eq!(ink(&sheet, 0..left, top..top + 34), dots("A"));
    }

    #[test]
    fn long_and_unknown_labels_stay_within_the_sheet() {
        let small = Image::filled(1, 1, [0; 3]).unwrap();
        let long = "x".repeat(10_000);
        for gap in [0, 1, 9] {
            let rows = [(long.clone(), vec![small.clone(); 3]), (String::new(), Vec::new())];
            let columns = labels([long.as_str(), "\u{65e5}\0", "", "more than columns"]);
            let sheet = labelled_sheet(&columns, &rows, gap).unwrap();
            assert!(sheet.width() < 400, "{}", sheet.width());
            assert_eq!(dots_of('\u{65e5}'), dots_of('?'));
        }
        assert!(labelled_sheet(&[], &[], 4).is_err());
        assert!(labelled_sheet(&[], &[(String::new(), vec![small])], usize::MAX).is_err());
    }

    #[test]
    fn a_sheet_without_labels_is_a_contact_sheet() {
        let image = Image::filled(9, 5, [1, 2, 3]).unwrap();
        let expected = contact_sheet(&[vec![(&image, Mark::None); 2]], 3).unwrap();
        assert_eq!(labelled_sheet(&[], &[(String::new(), vec![image.clone(); 2])], 3).unwrap(), expected);
    }
}
