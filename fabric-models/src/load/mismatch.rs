use std::fmt;

/// Names or shapes of a file that are not those of a network, all of them at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The file.
    pub place: String,
    /// What the file looks like, when it looks like something else than what was wanted.
    pub looks_like: Option<String>,
    /// Tensors that the network wants and the file lacks.
    pub missing: Vec<MissingTensor>,
    /// Tensors of the file that the network has no place for.
    pub unexpected: Vec<String>,
    /// Tensors with another shape than the network's.
    pub mismatched: Vec<ShapeMismatch>,
}

/// A tensor that a network wants and a file lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTensor {
    /// Its published name.
    pub name: String,
    /// The shape it should have.
    pub shape: Vec<usize>,
    /// The most similar name of those in the file that nothing else takes, if one is similar. Looked up for the
    /// first [`Mismatch::SHOWN`] only.
    pub nearest: Option<String>,
}

/// A tensor with another shape in the file than in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Its published name.
    pub name: String,
    /// The shape in the file.
    pub found: Vec<usize>,
    /// The shape in the network.
    pub wanted: Vec<usize>,
}

impl Mismatch {
    /// How many lines of each kind a message shows.
    pub const SHOWN: usize = 8;
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, looks_like, missing, unexpected, mismatched } = self;
        write!(
            f,
            "{place}: the tensors are not those of the network: {} missing, {} unexpected, {} of another shape; ",
            missing.len(),
            unexpected.len(),
            mismatched.len()
        )?;
        match looks_like {
            Some(contents) => write!(f, "the file looks like {contents}: give it to the loader for that")?,
            None => write!(f, "check that the file and its config.json belong together, or load with `strict` off")?,
        }
        list(f, missing, |f, tensor| {
            write!(f, "missing `{}` {:?}", tensor.name, tensor.shape)?;
            tensor.nearest.as_ref().map_or(Ok(()), |name| write!(f, " (the file has `{name}`)"))
        })?;
        list(f, unexpected, |f, name| write!(f, "unexpected `{name}`"))?;
        list(f, mismatched, |f, tensor| {
            write!(f, "`{}`: found {:?}, wanted {:?}", tensor.name, tensor.found, tensor.wanted)
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

/// Most cells of tables of edit distances that one search fills: names come from files that anybody may have written.
const MOST_CELLS: usize = 1 << 26;

/// The candidate with the smallest edit distance, unless more than a third of the name would have to change.
///
/// Candidates are compared in their order until a bound on the work is reached.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut cells = MOST_CELLS;
    candidates
        .into_iter()
        // A distance is at least the difference of the lengths.
        .filter(|candidate| name.len().abs_diff(candidate.len()) * 3 <= name.len())
        .take_while(|candidate| {
            let left = cells.checked_sub(name.len().saturating_mul(candidate.len()));
            cells = left.unwrap_or(0);
            left.is_some()
        })
        .map(|candidate| (edit_distance(name.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, _)| distance * 3 <= name.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_changes() {
        assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
        assert_eq!(edit_distance(b"", b"abc"), 3);
        let names = ["down.0.to_q.weigth", "down.1.to_q.weight", "conv_in.bias"];
        assert_eq!(nearest("down.0.to_q.weight", names), Some("down.1.to_q.weight"));
        assert_eq!(nearest("time_embedding.linear_1.bias", names), None);
    }

    #[test]
    fn the_search_for_a_near_name_is_bounded_whatever_the_names() {
        let long = "a".repeat(9000);
        // Compared in full, this pair would fill a table of 81 million cells.
        assert_eq!(nearest(&long, ["conv_in.weight", long.as_str()]), None);
        assert_eq!(nearest("conv_in.weight", [long.as_str(), "conv_in.weigth"]), Some("conv_in.weigth"));
        // A row that outgrows the bound ends the search; what lies before it was compared.
        let many = std::iter::repeat_n("conv_in.bias__", 1 << 20);
        assert_eq!(nearest("conv_in.weight", ["conv_in.weigth"].into_iter().chain(many)), Some("conv_in.weigth"));
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let mismatch = Mismatch {
            place: "x.safetensors".into(),
            looks_like: Some("a VAE".into()),
            missing: vec![MissingTensor { name: "a".into(), shape: vec![2], nearest: Some("b".into()) }],
            unexpected: (0..11).map(|i| format!("extra.{i}")).collect(),
            mismatched: vec![ShapeMismatch { name: "c".into(), found: vec![3], wanted: vec![4, 1] }],
        };
        let text = mismatch.to_string();
        for part in [
            "x.safetensors: ",
            "1 missing, 11 unexpected, 1 of another shape",
            "looks like a VAE",
            "missing `a` [2] (the file has `b`)",
            "unexpected `extra.7`",
            "and 3 more",
            "`c`: found [3], wanted [4, 1]",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("extra.8"));
    }
}
