//! Byte-pair encoding of one word.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocabulary::Vocabulary;

/// Piece of a word in a linked list of indices, with `NONE` at both ends.
struct Piece {
    /// `None` if the byte is not in the vocabulary; such a piece merges with no other.
    token: Option<u32>,
    previous: usize,
    next: usize,
    alive: bool,
}

const NONE: usize = usize::MAX;

/// Appends the ids of a word; bytes that are not in the vocabulary become `unknown`.
///
/// Takes `O(n log n)` time: pairs wait in a heap, ordered by rank and then by position. As in the reference, all
/// pairs of one rank merge from left to right before the pairs that they form are considered.
pub(super) fn encode_word(vocabulary: &Vocabulary, word: &str, unknown: u32, out: &mut Vec<u32>) {
    let count = word.len();
    let mut pieces: Vec<Piece> = word
        .bytes()
        .enumerate()
        .map(|(i, byte)| Piece {
            token: vocabulary.byte(byte, i + 1 == count),
            previous: i.checked_sub(1).unwrap_or(NONE),
            next: if i + 1 == count { NONE } else { i + 1 },
            alive: true,
        })
        .collect();
    let merge_at = |pieces: &[Piece], i: usize| {
        let left = pieces.get(i).filter(|piece| piece.alive)?;
        vocabulary.merge(left.token?, pieces.get(left.next)?.token?)
    };
    let mut heap: BinaryHeap<Reverse<(u32, usize)>> =
        (0..count).filter_map(|i| Some(Reverse((merge_at(&pieces, i)?.rank, i)))).collect();
    let mut changed = Vec::new();
    while let Some(&Reverse((rank, _))) = heap.peek() {
        while let Some(&Reverse((same, i))) = heap.peek()
            && same == rank
        {
            heap.pop();
            // Skip a pair that no longer exists or has changed.
            let Some(merge) = merge_at(&pieces, i).filter(|merge| merge.rank == rank) else { continue };
            let gone = pieces[i].next;
            let next = pieces[gone].next;
            pieces[gone].alive = false;
            pieces[i].token = Some(merge.token);
            pieces[i].next = next;
            if let Some(next) = pieces.get_mut(next) {
                next.previous = i;
            }
            changed.extend([pieces[i].previous, i]);
        }
        let fresh = changed.drain(..).filter_map(|i| Some(Reverse((merge_at(&pieces, i)?.rank, i))));
        heap.extend(fresh);
    }
    out.extend(pieces.iter().filter(|piece| piece.alive).map(|piece| piece.token.unwrap_or(unknown)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::vocabulary;

    /// The reference algorithm: quadratic and simple.
    fn slowly(vocabulary: &Vocabulary, word: &str) -> Vec<u32> {
        let last = word.len() - 1;
        let mut ids: Vec<u32> =
            word.bytes().enumerate().map(|(i, byte)| vocabulary.byte(byte, i == last).unwrap()).collect();
        while let Some(first) =
            ids.windows(2).filter_map(|pair| vocabulary.merge(pair[0], pair[1])).min_by_key(|merge| merge.rank)
        {
            let mut merged = Vec::new();
            let mut i = 0;
            while i < ids.len() {
                let pair = ids.get(i + 1).and_then(|&right| vocabulary.merge(ids[i], right));
                if pair.is_some_and(|pair| pair.rank == first.rank) {
                    merged.push(first.token);
                    i += 2;
                } else {
                    merged.push(ids[i]);
                    i += 1;
                }
            }
            ids = merged;
        }
        ids
    }

    #[test]
    fn merging_from_a_heap_is_merging_round_by_round() {
        let vocabulary = vocabulary::openai();
        for word in
            ["a", "aaaaaaaaaaaaaaa", "antidisestablishmentarianism", "日本語テキスト", "!!!???...", "ababababab"]
        {
            let mut got = Vec::new();
            encode_word(&vocabulary, word, 0, &mut got);
            assert_eq!(got, slowly(&vocabulary, word), "{word}");
        }
    }

    #[test]
    fn merges_listed_before_their_parts_wait_for_the_next_round() {
        // After `a b` has made one `ab`, the pair `ab ab` must not run ahead of the other `a b`.
        let vocab = r#"{"a":0,"b":1,"a</w>":2,"b</w>":3,"ab":4,"abab":5,"ab</w>":6,"bab":7}"#;
        let vocabulary = Vocabulary::from_text(vocab, "#version\nab ab\nb ab\na b\na b</w>").unwrap();
        for word in ["ababababab", "abba", "bababab", "aab"] {
            let mut got = Vec::new();
            encode_word(&vocabulary, word, 0, &mut got);
            assert_eq!(got, slowly(&vocabulary, word), "{word}");
        }
    }

    #[test]
    fn bytes_that_the_vocabulary_lacks_are_unknown() {
        let vocabulary = Vocabulary::from_text(r#"{"a":0,"a</w>":1,"?":9}"#, "#version").unwrap();
        let mut got = Vec::new();
        encode_word(&vocabulary, "aéa", 9, &mut got);
        assert_eq!(got, [0, 9, 9, 1]);
    }
}
