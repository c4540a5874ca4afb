//! Golden file `lora`.
