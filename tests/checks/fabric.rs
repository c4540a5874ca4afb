//! Golden file `fabric`.
