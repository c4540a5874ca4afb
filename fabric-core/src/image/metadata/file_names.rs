//! Removal of folders from texts, so that an image does not tell where files lie on the machine that made it.

/// Returns the text without the folders of an absolute path in it.
///
/// Paths may contain spaces, so it cannot be told where one ends. Everything from the beginning of the first path to
/// the last separator of the text is therefore left out: of two paths in one text, the first one goes as a whole.
pub(crate) fn without_folders(text: &str) -> String {
    let Some(start) = path_start(text) else { return text.to_owned() };
    let (before, path) = text.split_at(start);
    format!("{before}{}", file_name(path))
}

/// Returns the last part of a path of any operating system.
pub(super) fn file_name(path: &str) -> &str {
    path.trim_end_matches(is_separator).rsplit(is_separator).next().unwrap_or_default()
}

fn is_separator(letter: char) -> bool {
    letter == '/' || letter == '\\'
}

/// Returns the position at which an absolute path begins.
fn path_start(text: &str) -> Option<usize> {
    let mut previous = ' ';
    for (at, letter) in text.char_indices() {
        let is_inside = previous.is_alphanumeric() || "._-~/\\".contains(previous);
        if !is_inside && begins_path(&text[at..], previous) {
            return Some(at);
        }
        previous = letter;
    }
    None
}

/// Whether a text begins with an absolute path. `previous` is the character before it.
fn begins_path(text: &str, previous: char) -> bool {
    let mut letters = text.chars();
    let (Some(first), rest) = (letters.next(), letters.as_str()) else { return false };
    // Before `//`, a colon ends the scheme of an address.
    let is_address = previous == ':' && text.starts_with("//");
    match first {
        '/' | '\\' => !is_address && rest.starts_with(|next: char| !next.is_whitespace()),
        '~' => {
            let behind_user = rest.trim_start_matches(|next: char| next.is_alphanumeric() || "._-".contains(next));
            behind_user.starts_with(is_separator)
        }
        _ => {
            let is_drive = first.is_ascii_alphabetic() && (rest.starts_with(":\\") || rest.starts_with(":/"));
            is_drive || text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file://"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_of_every_system_lose_their_folders() {
        let cases = [
            ("/home/me/models/sd15.safetensors", "sd15.safetensors"),
            ("Stable Diffusion 1 /home/me/sd15", "Stable Diffusion 1 sd15"),
            ("LoRA /home/john doe/loras/fine.safetensors at 0.8", "LoRA fine.safetensors at 0.8"),
            (r"LoRA C:\Users\Me\loras\fine.safetensors at 0.8", "LoRA fine.safetensors at 0.8"),
            ("c:/users/me/fine.pt", "fine.pt"),
            (r"\\server\share\fine.pt", "fine.pt"),
            (r"\Users\me\fine.pt", "fine.pt"),
            ("~/models/fine.pt", "fine.pt"),
            ("~me/models/fine.pt", "fine.pt"),
            ("adapter (file:///home/me/fine.pt)", "adapter (fine.pt)"),
            ("FILE://server/fine.pt", "fine.pt"),
            ("adapter:/srv/fine.pt", "adapter:fine.pt"),
            ("model=`/srv/models`", "model=`models`"),
            ("/srv/models/", "models"),
            ("/a/one.pt and /b/two.pt", "two.pt"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_folders(text), expected, "{text}");
            assert_eq!(without_folders(expected), expected, "a second time");
        }
    }

    #[test]
    fn texts_without_an_absolute_path_stay() {
        let texts = [
            "Stable Diffusion 1 sd15.safetensors",
            "runwayml/stable-diffusion-v1-5",
            "https://example.org/models/fine.pt",
            "./fine.pt and ../fine.pt",
            "IP-Adapter at 1/2, `use the style` / 2",
            "and/or",
            "",
            "/",
            "日本/語",
        ];
        for text in texts {
            assert_eq!(without_folders(text), text);
        }
    }
}
