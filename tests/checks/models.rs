//! Golden file `models`.
