//! Golden file `vision`.
