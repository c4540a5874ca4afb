use std::fmt;

use fabric_core::{printable, printable_value};

/// All differences in names and shapes between a file and a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Path of the file.
    pub place: String,
    /// Kind of file that was recognized, if it is another kind than expected.
    pub looks_like: Option<String>,
    /// Tensors that the network requires and the file lacks.
    pub missing: Vec<MissingTensor>,
    /// Tensors of the file that the network does not have.
    pub unexpected: Vec<String>,
    /// Tensors whose shape differs from the network's.
    pub mismatched: Vec<ShapeMismatch>,
}

/// Tensor that a network requires and a file lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTensor {
    /// Published name.
    pub name: String,
    /// Expected shape.
    pub shape: Vec<usize>,
    /// Most similar name among the unused tensors of the file, if one is similar. Searched for the first
    /// [`Mismatch::SHOWN`] missing tensors only.
    pub nearest: Option<String>,
}

/// Tensor whose shape in the file differs from the shape in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Published name.
    pub name: String,
    /// Shape in the file.
    pub got: Vec<usize>,
    /// Shape in the network.
    pub expected: Vec<usize>,
}

impl Mismatch {
    /// Number of tensors of each kind that the error message lists.
    pub const SHOWN: usize = 8;
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, looks_like, missing, unexpected, mismatched } = self;
        write!(
            f,
            "{}: the tensors are not those of the network: {} missing, {} unexpected, {} of another shape; ",
            printable_value(place),
            missing.len(),
            unexpected.len(),
            mismatched.len()
        )?;
        match looks_like {
            Some(contents) => {
                write!(f, "the file looks like {}: give it to the loader for that", printable_value(contents))?;
            }
            None => write!(f, "check that the file and its config.json belong together, or load with `strict` off")?,
        }
        list(f, missing, |f, tensor| {
            write!(f, "missing `{}` {:?}", printable(&tensor.name), tensor.shape)?;
            tensor.nearest.as_ref().map_or(Ok(()), |name| write!(f, " (the file has `{}`)", printable(name)))
        })?;
        list(f, unexpected, |f, name| write!(f, "unexpected `{}`", printable(name)))?;
        list(f, mismatched, |f, tensor| {
            write!(f, "`{}`: expected {:?}, got {:?}", printable(&tensor.name), tensor.expected, tensor.got)
        })
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    show: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for item in items.iter().take(Mismatch::SHOWN) {
        f.write_str("\n  ")?;
        show(f, item)?;
    }
    if items.len() > Mismatch::SHOWN {
        write!(f, "\n  and {} more", items.len() - Mismatch::SHOWN)?;
    }
    Ok(())
}

/// Names longer than this get no suggestion; published names have up to 90 bytes. The time of a comparison grows with
/// the product of the lengths, and files are untrusted input.
const MAX_NAME_BYTES: usize = 160;

/// Maximum number of candidates that are compared; Stable Diffusion XL has 1,680 tensors.
const MAX_CANDIDATES: usize = 8192;

/// Returns the candidate with the smallest edit distance; `None` if more than a third of the name would have to change.
///
/// The cost is bounded for any names: names longer than [`MAX_NAME_BYTES`] get no suggestion, and only the first
/// [`MAX_CANDIDATES`] of about the same length are compared.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let mut most = name.len() / 3;
    let mut nearest = None;
    let similar = candidates.into_iter().filter(|candidate| candidate.len().abs_diff(name.len()) <= name.len() / 3);
    for candidate in similar.take(MAX_CANDIDATES) {
        let Some(distance) = edit_distance(name.as_bytes(), candidate.as_bytes(), most) else { continue };
        // Among equally near names, the first in alphabetical order is taken, independent of their order.
        if nearest.is_none_or(|got| (distance, candidate) < got) {
            nearest = Some((distance, candidate));
            most = distance;
        }
    }
    nearest.map(|(_, candidate)| candidate)
}

/// Levenshtein distance, computed row by row; `None` as soon as it must exceed `most`.
fn edit_distance(a: &[u8], b: &[u8], most: usize) -> Option<usize> {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
        if row.iter().all(|distance| *distance > most) {
            return None;
        }
    }
    Some(row[b.len()]).filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[test]
    fn names_that_no_model_has_get_no_suggestion() {
        let long = "a".repeat(200);
        assert_eq!(nearest(&long, [long.as_str()]), None);
        assert_eq!(nearest("conv_in", [long.as_str(), "conv_on"]), Some("conv_on"));
        let many: Vec<String> = (0..20_000).map(|i| format!("layer.{i:05}")).collect();
        let got = nearest("layer.19999", many.iter().map(String::as_str)).expect("a similar name");
        assert!(got < "layer.08192", "{got}");
    }

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let name = || text.clone();
            let mismatch = Mismatch {
                place: name(),
                looks_like: None,
                missing: vec![MissingTensor { name: name(), shape: vec![2], nearest: Some(name()) }],
                unexpected: vec![name()],
                mismatched: vec![ShapeMismatch { name: name(), got: vec![3], expected: vec![4] }],
            };
            let message = mismatch.to_string();
            assert_eq!(message.split('\n').count(), 4, "one line for each tensor: {message:?}");
            message.split('\n').for_each(assert_printable);
        }
    }

    #[test]
    fn of_equally_near_names_the_first_in_the_alphabet_counts() {
        for names in [["conv_b", "conv_c"], ["conv_c", "conv_b"]] {
            assert_eq!(nearest("conv_a", names), Some("conv_b"));
        }
    }

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_changes() {
        assert_eq!(edit_distance(b"kitten", b"sitting", 3), Some(3));
        assert_eq!(edit_distance(b"kitten", b"sitting", 2), None);
        assert_eq!(edit_distance(b"", b"abc", 9), Some(3));
        let names = ["down.0.to_q.weigth", "down.1.to_q.weight", "conv_in.bias"];
        assert_eq!(nearest("down.0.to_q.weight", names), Some("down.1.to_q.weight"));
        assert_eq!(nearest("time_embedding.linear_1.bias", names), None);
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let mismatch = Mismatch {
            place: "x.safetensors".into(),
            looks_like: Some("a VAE".into()),
            missing: vec![MissingTensor { name: "a".into(), shape: vec![2], nearest: Some("b".into()) }],
            unexpected: (0..11).map(|i| format!("extra.{i}")).collect(),
            mismatched: vec![ShapeMismatch { name: "c".into(), got: vec![3], expected: vec![4, 1] }],
        };
        let text = mismatch.to_string();
        for part in [
            "x.safetensors: ",
            "1 missing, 11 unexpected, 1 of another shape",
            "looks like a VAE",
            "missing `a` [2] (the file has `b`)",
            "unexpected `extra.7`",
            "and 3 more",
            "`c`: expected [4, 1], got [3]",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("extra.8"));
    }
}
