//! Golden file `schedulers`.
