//! Many pictures on one sheet, to be looked at together.

use super::fit::paste;
use super::{Picture, PictureError, check_size};

/// What a frame around a picture says.
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

const PAPER: [u8; 3] = [246, 246, 246];

/// Rows of pictures on light paper, each in a cell as large as the largest picture, with `gap` pixels between
/// and around them.
///
/// Pictures keep their size, in the middle of their cells. Frames lie in the gap, half as thick (at least one
/// pixel), so that they cover nothing; without a gap there are none.
///
/// # Errors
///
/// [`PictureError::Size`] if there is no picture at all, or the sheet would be too large.
///
/// ```
/// use fabric_core::picture::{Mark, Picture, contact_sheet};
///
/// let picture = Picture::filled(30, 20, [0, 0, 255])?;
/// let sheet = contact_sheet(&[vec![(&picture, Mark::Liked), (&picture, Mark::None)]], 4)?;
/// assert_eq!((sheet.width(), sheet.height()), (4 + 30 + 4 + 30 + 4, 4 + 20 + 4));
/// # Ok::<(), fabric_core::picture::PictureError>(())
/// ```
pub fn contact_sheet(rows: &[Vec<(&Picture, Mark)>], gap: usize) -> Result<Picture, PictureError> {
    let pictures = || rows.iter().flatten().map(|(picture, _)| picture);
    let cell_width = pictures().map(|picture| picture.width()).max().unwrap_or(0);
    let cell_height = pictures().map(|picture| picture.height()).max().unwrap_or(0);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let side = |cells: usize, cell: usize| {
        if cell == 0 { 0 } else { cell.saturating_add(gap).saturating_mul(cells).saturating_add(gap) }
    };
    let (width, height) = (side(columns, cell_width), side(rows.len(), cell_height));
    check_size("the contact sheet", width, height)?;

    let mut rgb = PAPER.repeat(width * height);
    let thickness = gap.div_ceil(2);
    for (row, cells) in rows.iter().enumerate() {
        for (column, &(picture, mark)) in cells.iter().enumerate() {
            let left = gap + column * (cell_width + gap) + (cell_width - picture.width()) / 2;
            let top = gap + row * (cell_height + gap) + (cell_height - picture.height()) / 2;
            let framed = picture.width() + 2 * thickness;
            for y in top - thickness..top + picture.height() + thickness {
                let at = (y * width + left - thickness) * 3;
                rgb[at..at + framed * 3].copy_from_slice(&mark.colour().repeat(framed));
            }
            paste(&mut rgb, width, picture, left, top);
        }
    }
    Ok(Picture::new(width, height, rgb))
}
