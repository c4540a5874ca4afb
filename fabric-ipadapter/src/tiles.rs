//! Tiling of wide and tall images into squares with masks, so that the image encoder gets all of the image.

use fabric_core::image::{Filter, Fit, Image, ImageError};

use crate::Mask;

/// Square tile of an image with its mask.
#[derive(Debug, Clone)]
pub struct Tile {
    /// Input of the image encoder.
    pub image: Image,
    /// 1 where only this tile acts, less where tiles overlap; the masks of all tiles add up to 1.
    pub mask: Mask,
}

/// Side of a tile in pixels, slightly above the input size of most image encoders.
const SIDE: usize = 256;
/// Largest number of tiles along the longer side.
const MOST: usize = 4;

/// Cuts an image into square tiles, as `ComfyUI_IPAdapter_plus` does.
///
/// An image whose sides differ by at most a third gives two by two tiles. Other images give a row or column of
/// up to four tiles, which overlap as needed. An image longer than four to one is squashed to that ratio.
///
/// Encode the tiles in this order for one [`ImagePrompt`](crate::ImagePrompt), and pass the masks to
/// [`with_masks`](crate::ImagePrompt::with_masks).
///
/// # Errors
///
/// Returns an error if the image cannot be resized.
pub fn tiles(image: &Image) -> Result<Vec<Tile>, ImageError> {
    let (width, height) = (image.width(), image.height());
    if 3 * width <= 4 * height && 3 * height <= 4 * width {
        let whole = image.fit(2 * SIDE, 2 * SIDE, Fit::SquashLanczos)?;
        let quarter = |at: usize| {
            let mut mask = vec![0.0; 4];
            mask[at] = 1.0;
            let image = whole.cropped(at % 2 * SIDE, at / 2 * SIDE, SIDE, SIDE)?;
            Ok(Tile { image, mask: mask_of(2, 2, mask) })
        };
        return (0..4).map(quarter).collect();
    }
    let wide = width > height;
    let (short, long) = if wide { (height, width) } else { (width, height) };
    let long = (long as u64 * SIDE as u64 / short as u64) as usize;
    // Four tiles would leave gaps in a longer image, so it is squashed.
    let long = long.min(MOST * SIDE);
    let whole =
        if wide { image.resize(long, SIDE, Filter::Lanczos)? } else { image.resize(SIDE, long, Filter::Lanczos)? };
    let count = long.div_ceil(SIDE);
    let start = |tile: usize| tile * (long - SIDE) / (count - 1).max(1);
    let seen = |tile: usize, at: usize| (start(tile)..start(tile) + SIDE).contains(&at);
    let tile = |tile: usize| {
        let share = |at: usize| {
            let all = (0..count).filter(|&other| seen(other, at)).count();
            if seen(tile, at) { 1.0 / all as f32 } else { 0.0 }
        };
        let mask: Vec<f32> = (0..long).map(share).collect();
        let (left, top) = if wide { (start(tile), 0) } else { (0, start(tile)) };
        let mask = if wide { mask_of(long, 1, mask) } else { mask_of(1, long, mask) };
        Ok(Tile { image: whole.cropped(left, top, SIDE, SIDE)?, mask })
    };
    (0..count).map(tile).collect()
}

fn mask_of(width: usize, height: usize, values: Vec<f32>) -> Mask {
    Mask::new(width, height, values).unwrap_or_else(|error| unreachable!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_show_the_whole_image_and_their_masks_add_up_to_one() {
        for (width, height, count) in [(100, 100, 4), (130, 100, 4), (100, 140, 2), (300, 100, 3), (90, 900, 4)] {
            let rgb = (0..width * height * 3).map(|at| (at % 251) as u8).collect();
            let tiles = tiles(&Image::from_rgb(width, height, rgb).expect("an image")).expect("tiles");
            assert_eq!(tiles.len(), count, "{width}x{height}");
            assert!(tiles.iter().all(|tile| tile.image.width() == SIDE && tile.image.height() == SIDE));
            let grids: Vec<Vec<f32>> = tiles.iter().map(|tile| tile.mask.resampled([16, 16])).collect();
            for at in 0..16 * 16 {
                let sum: f32 = grids.iter().map(|grid| grid[at]).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{width}x{height}: {sum} at {at}");
            }
        }
        let black = Image::filled(600, 200, [0; 3]).expect("an image");
        let marked = |from: usize, to: usize| {
            let rgb = (0..600 * 200).flat_map(|at| [u8::from((from..to).contains(&(at % 600))) * 255; 3]).collect();
            tiles(&Image::from_rgb(600, 200, rgb).expect("an image")).expect("tiles")
        };
        // Only the first tile covers the first third.
        let seen: Vec<bool> =
            marked(0, 190).iter().map(|tile| tile.image.rgb().iter().any(|&byte| byte > 128)).collect();
        assert_eq!(seen, [true, false, false]);
        assert_eq!(tiles(&black).expect("tiles").len(), 3);
    }
}
