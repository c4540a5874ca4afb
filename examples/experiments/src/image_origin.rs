//! Origin of an image, in experiments whose arms do not make all images in the same way.

use std::fmt;

use fabric::core::pipeline::Candidate;
use serde::{Deserialize, Serialize};

/// Origin of an image: the settings that a search proposed for it, or its file in a corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageOrigin {
    /// Generated with settings that a search proposed.
    Searched(Candidate),
    /// Drawing of the corpus, by the name of its file.
    Corpus(String),
}

impl fmt::Display for ImageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Searched(candidate) => write!(f, "{candidate}"),
            Self::Corpus(file) => write!(f, "drawing {file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_survive_json_and_are_shown_in_words() {
        let values = [("fabric.max_weight".to_owned(), 0.1 + 0.2), ("fabric.end".to_owned(), 0.75)].into();
        let searched = ImageOrigin::Searched(Candidate { values, noise: None });
        let drawing = ImageOrigin::Corpus("0017.png".to_owned());
        for (origin, shown, json) in [
            (searched, "fabric.end = 0.7500, fabric.max_weight = 0.3000", r#"{"searched":{"values":{"fabric.end""#),
            (drawing, "drawing 0017.png", r#"{"corpus":"0017.png"}"#),
        ] {
            let text = serde_json::to_string(&origin).expect("plain data");
            assert!(text.starts_with(json), "{text}");
            assert_eq!(origin.to_string(), shown);
            assert_eq!(serde_json::from_str::<ImageOrigin>(&text).expect("an origin"), origin);
        }
    }
}
