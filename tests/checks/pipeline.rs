//! Golden file `pipeline`.
