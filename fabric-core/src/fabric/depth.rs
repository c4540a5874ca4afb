use crate::attention::Block;

/// Returns the depth of a block, from 0 at full resolution to 1 at the bottleneck.
///
/// As in the official code: down block `b` of `n` is at `b / n`, up block `u` at `(n - 1 - u) / n`.
///
/// ```
/// use fabric_core::attention::Block;
/// use fabric_core::fabric::depth_position;
/// assert_eq!(depth_position(Block::Down(0), 4), 0.0);
/// assert_eq!(depth_position(Block::Mid, 4), 1.0);
/// assert_eq!(depth_position(Block::Up(1), 4), 0.5);
/// ```
pub fn depth_position(block: Block, levels: usize) -> f64 {
    match block {
        Block::Down(index) => index as f64 / levels as f64,
        Block::Mid => 1.0,
        Block::Up(index) => (levels - 1 - index) as f64 / levels as f64,
    }
}
