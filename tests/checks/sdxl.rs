//! Golden file `sdxl`.
