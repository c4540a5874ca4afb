//! Golden file `metrics`.
