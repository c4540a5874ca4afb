//! Golden file `tokenizer`.
