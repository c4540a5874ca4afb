//! Every module against tensors from the authors' own code, made with tiny random weights.
//!
//! `FABRIC_GOLDENS=DIR cargo test --release --test golden` reads another set.

mod golden_tests;
