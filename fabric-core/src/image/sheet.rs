//! Contact sheets: many images in one.

use super::fit::paste;
use super::{Image, ImageError, check_size};

/// Frame around an image of a contact sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mark {
    /// No frame.
    #[default]
    None,
    /// A green frame.
    Liked,
    /// A red frame.
    Disliked,
}

impl Mark {
    fn colour(self) -> [u8; 3] {
        match self {
            Self::None => PAPER,
            Self::Liked => [46, 160, 67],
            Self::Disliked => [207, 34, 46],
        }
    }
}

/// Background of sheets.
pub(super) const PAPER: [u8; 3] = [246, 246, 246];

/// Draws rows of images on a light background, each in a cell of the size of the largest image, with `gap` pixels
/// between and around the cells.
///
/// Images keep their size and are centred in their cells. Frames lie in the gap and are half as thick (at least
/// one pixel), so that they cover no pixels; without a gap there are no frames.
///
/// # Errors
///
/// Returns [`ImageError::Size`] if there are no images or the sheet would be too large.
///
/// ```
/// use fabric_core::image::{Mark, Image, contact_sheet};
///
/// let image = Image::filled(30, 20, [0, 0, 255])?;
/// let sheet = contact_sheet(&[vec![(&image, Mark::Liked), (&image, Mark::None)]], 4)?;
/// assert_eq!((sheet.width(), sheet.height()), (4 + 30 + 4 + 30 + 4, 4 + 20 + 4));
/// # Ok::<(), fabric_core::image::ImageError>(())
/// ```
pub fn contact_sheet(rows: &[Vec<(&Image, Mark)>], gap: usize) -> Result<Image, ImageError> {
    let images = || rows.iter().flatten().map(|(image, _)| image);
    let cell_width = images().map(|image| image.width()).max().unwrap_or(0);
    let cell_height = images().map(|image| image.height()).max().unwrap_or(0);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let side = |cells: usize, cell: usize| {
        if cell == 0 { 0 } else { cell.saturating_add(gap).saturating_mul(cells).saturating_add(gap) }
    };
    let (width, height) = (side(columns, cell_width), side(rows.len(), cell_height));
    check_size("the contact sheet", width, height)?;

    let mut rgb = PAPER.repeat(width * height);
    let thickness = (gap / 2).max(gap.min(1));
    for (row, cells) in rows.iter().enumerate() {
        for (column, &(image, mark)) in cells.iter().enumerate() {
            let left = gap + column * (cell_width + gap) + (cell_width - image.width()) / 2;
            let top = gap + row * (cell_height + gap) + (cell_height - image.height()) / 2;
            let framed = image.width() + 2 * thickness;
            let frame = if mark == Mark::None { 0..0 } else { top - thickness..top + image.height() + thickness };
            for y in frame {
                let at = (y * width + left - thickness) * 3;
                rgb[at..at + framed * 3].copy_from_slice(&mark.colour().repeat(framed));
            }
            paste(&mut rgb, width, image, left, top);
        }
    }
    Ok(Image::new(width, height, rgb))
}
