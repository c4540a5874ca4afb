//! Choice of images by their scores, and by how they differ from one another.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::rows::cosine;

/// Returns the indices of the `count` highest scores, highest first; equal scores are sorted by index.
pub(super) fn best(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| by_score(scores, *a, *b));
    order.truncate(count);
    order
}

/// Returns the indices of `count` rows, chosen by maximal marginal relevance and sorted as those of [`best`].
pub(super) fn diverse(rows: &[&[f32]], scores: &[f64], count: usize, lambda: f64) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut values = scores.to_vec();
    let mut remaining: Vec<usize> = (0..rows.len()).collect();
    // Largest similarity of each row to a chosen one.
    let mut redundancy = vec![f64::NEG_INFINITY; rows.len()];
    while chosen.len() < count {
        let Some(at) = (0..remaining.len()).min_by(|a, b| by_score(&values, remaining[*a], remaining[*b])) else {
            break;
        };
        let next = remaining.remove(at);
        chosen.push(next);
        redundancy.par_iter_mut().zip(rows).for_each(|(most, row)| *most = most.max(cosine(row, rows[next])));
        for (value, (score, redundancy)) in values.iter_mut().zip(scores.iter().zip(&redundancy)) {
            *value = lambda * score - (1.0 - lambda) * redundancy;
        }
    }
    chosen.sort_unstable_by(|a, b| by_score(scores, *a, *b));
    chosen
}

/// Orders indices by score, highest first, and equal scores by index.
fn by_score(scores: &[f64], a: usize, b: usize) -> Ordering {
    scores[b].total_cmp(&scores[a]).then(a.cmp(&b))
}
