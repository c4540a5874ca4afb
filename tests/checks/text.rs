//! Golden file `text`.
