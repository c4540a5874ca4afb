//! Golden file `unet`.
