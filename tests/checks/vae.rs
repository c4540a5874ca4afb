//! Golden file `vae`.
