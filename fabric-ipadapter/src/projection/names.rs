//! Conversion of parameter paths to the names in published files, which number the layers of PyTorch's
//! `Sequential`.

/// Returns the published name of a parameter, for a path that begins with the projection's variant.
pub(crate) fn published(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let named = parts.windows(2).filter_map(|pair| {
        Some(match (pair[0], pair[1]) {
            // These modules exist only in this library: in the files, their parts are one level higher.
            (_, "body" | "identity") => return None,
            (_, "reader") => "perceiver_resampler",
            (_, "hidden") => "proj.0",
            (_, "out") => "proj.2",
            ("Tokens", "norm") => "proj.3",
            (_, "proj_prompt") => "proj_prompt_input",
            (_, "proj_instruction") => "proj_new_input",
            (_, "instruction_layers") => "new_input_layers",
            (_, "attention") => "0",
            (_, "feed_forward") => "1",
            ("feed_forward", "norm") => "0",
            ("feed_forward", "expand") => "1",
            ("feed_forward", "contract") => "3",
            (_, other) => other,
        })
    });
    named.collect::<Vec<_>>().join(".")
}
