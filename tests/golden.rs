//! Compares every module with tensors from the authors' code, made with tiny random weights.
//!
//! `FABRIC_GOLDENS=DIR cargo test --release --test golden` reads another folder of golden files.

mod golden_tests;
