//! Golden file `preprocess`.
