//! A share of a run, for several processes or machines.

use std::str::FromStr;

use fabric::core::InvalidValue;

/// Share `index` of `count` of a run's prompts: those whose index leaves this remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl Shard {
    /// Whether a prompt belongs to this share.
    pub fn contains(self, case: usize) -> bool {
        case % self.count == self.index
    }
}

impl FromStr for Shard {
    type Err = InvalidValue;

    /// Parses `I/N`, with I from 1 to N.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let parts = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index: index - 1, count }),
            _ => {
                Err(InvalidValue::new("shard", text, "I/N with I from 1 to N", "4 machines take 1/4, 2/4, 3/4 and 4/4"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_every_prompt_once() {
        let shards: Vec<Shard> = (1..=3).map(|index| format!("{index}/3").parse().expect("a shard")).collect();
        for case in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.contains(case)).count(), 1);
        }
        for text in ["0/3", "4/3", "1", "1/0", "a/b", ""] {
            assert!(text.parse::<Shard>().expect_err(text).to_string().contains("expected I/N"));
        }
    }
}
