//! Rows of a U-Net batch.

use std::ops::Range;

use crate::guidance::Branch;

/// Rows of one U-Net batch: the images once per guidance branch, then the reference images, liked before disliked.
///
/// Nothing else computes ranges of rows. A batch that records references has no branches.
///
/// ```
/// use fabric_core::{guidance::Branch, pipeline::BatchLayout};
///
/// let layout = BatchLayout::new(vec![Branch::Conditional, Branch::Unconditional], 0..3).with_references([1, 0]);
/// assert_eq!(layout.groups(), [
///     (Branch::Conditional, 0..3),
///     (Branch::Unconditional, 3..6),
///     (Branch::Conditional, 6..7), // the liked reference
/// ]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLayout {
    branches: Vec<Branch>,
    /// The images of the run that are in the batch.
    images: Range<usize>,
    /// The part of `images` that [`Self::groups`] has.
    selected: Range<usize>,
    /// Liked and disliked references.
    references: [usize; 2],
    /// Whether [`Self::groups`] has the references.
    selects_references: bool,
}

impl BatchLayout {
    /// Creates the layout of a batch with these branches for these images of the run, without references.
    pub fn new(branches: Vec<Branch>, images: Range<usize>) -> Self {
        let selected = images.clone();
        Self { branches, images, selected, references: [0; 2], selects_references: true }
    }

    /// Creates the layout of a batch of references only, liked before disliked.
    pub fn of_references(references: [usize; 2]) -> Self {
        Self::new(Vec::new(), 0..0).with_references(references)
    }

    /// Adds reference images at the end of the batch: the number of liked and of disliked ones.
    #[must_use]
    pub fn with_references(self, references: [usize; 2]) -> Self {
        Self { references, ..self }
    }

    /// Returns the layout as a conditioning sees it that acts only on some images of the run, and possibly not on
    /// references. Rows keep their positions; [`Self::groups`] has those that it acts on.
    pub(crate) fn selecting(&self, images: Option<&Range<usize>>, references: bool) -> Self {
        let mut selected = self.images.clone();
        if let Some(images) = images {
            let start = images.start.clamp(selected.start, selected.end);
            selected = start..images.end.clamp(start, selected.end);
        }
        Self { selected, selects_references: references, ..self.clone() }
    }

    /// The branches, in batch order.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// The images of the run that are in the batch, as indices into the request's seeds.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    /// Number of rows of images, in all branches together.
    pub fn image_rows(&self) -> usize {
        self.branches.len() * self.images.len()
    }

    /// Number of liked and of disliked references at the end of the batch.
    pub fn references(&self) -> [usize; 2] {
        self.references
    }

    /// Number of reference rows at the end of the batch.
    pub fn reference_rows(&self) -> usize {
        self.references.iter().sum()
    }

    /// Returns the rows of one image of the run in a range of branches, one in each.
    pub(crate) fn rows_of_image(&self, image: usize, branches: Range<usize>) -> impl Iterator<Item = usize> {
        let at = image - self.images.start;
        branches.map(move |branch| branch * self.images.len() + at)
    }

    /// Rows that a conditioning acts on, grouped by branch. Liked references count as rows of the conditional branch,
    /// disliked ones as rows of the unconditional branch.
    pub fn groups(&self) -> Vec<(Branch, Range<usize>)> {
        let selected = self.selected.start - self.images.start..self.selected.end - self.images.start;
        let branches = self.branches.iter().enumerate().map(|(at, &branch)| {
            let first = at * self.images.len();
            (branch, first + selected.start..first + selected.end)
        });
        let mut groups: Vec<_> = branches.collect();
        if self.selects_references {
            let [liked, disliked] = self.references;
            let first = self.image_rows();
            groups.push((Branch::Conditional, first..first + liked));
            groups.push((Branch::Unconditional, first + liked..first + liked + disliked));
        }
        groups.retain(|(_, rows)| !rows.is_empty());
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRANCHES: [Branch; 2] = [Branch::Conditional, Branch::Unconditional];

    #[test]
    fn a_conditioning_of_some_images_has_their_rows_in_every_batch() {
        let whole = BatchLayout::new(BRANCHES.to_vec(), 2..5).with_references([1, 2]);
        let rows = |images: Range<usize>| whole.selecting(Some(&images), false).groups();
        assert_eq!(rows(0..10), [(Branch::Conditional, 0..3), (Branch::Unconditional, 3..6)]);
        assert_eq!(rows(3..4), [(Branch::Conditional, 1..2), (Branch::Unconditional, 4..5)]);
        assert_eq!(rows(4..9), [(Branch::Conditional, 2..3), (Branch::Unconditional, 5..6)]);
        assert!(rows(0..2).is_empty() && rows(5..9).is_empty());
        assert_eq!(
            whole.selecting(Some(&(0..2)), true).groups(),
            [(Branch::Conditional, 6..7), (Branch::Unconditional, 7..9)]
        );
        assert_eq!((whole.image_rows(), whole.reference_rows()), (6, 3));
    }

    #[test]
    fn references_that_are_recorded_have_the_rows_of_their_sides() {
        let layout = BatchLayout::of_references([2, 1]);
        assert_eq!(layout.groups(), [(Branch::Conditional, 0..2), (Branch::Unconditional, 2..3)]);
        assert_eq!(layout.image_rows(), 0);
    }
}
