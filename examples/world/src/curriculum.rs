//! Tasks and wordings that an Instruct adapter is trained on.

use serde::{Deserialize, Serialize};

use super::{InstructTask, Pair, Split, pair};

/// Tasks and wordings that an Instruct adapter is trained on. The default is all tasks in all wordings of the training
/// split; less is for comparisons, as in section 5 of IPAdapter-Instruct's paper.
///
/// ```
/// use fabric_world::{Curriculum, InstructTask};
///
/// let colours = Curriculum { tasks: vec![InstructTask::Colour], one_wording: true };
/// assert_eq!(colours.pair(1, 0, InstructTask::Colour).instruction, "use the colour");
/// assert_eq!(colours.pair(1, 1, InstructTask::Colour).instruction, "use the colour");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Curriculum {
    /// The tasks.
    pub tasks: Vec<InstructTask>,
    /// Whether each task has a single wording, the first one of the training split.
    pub one_wording: bool,
}

impl Default for Curriculum {
    fn default() -> Self {
        Self { tasks: InstructTask::ALL.to_vec(), one_wording: false }
    }
}

impl Curriculum {
    /// Returns pair number `index` of a task; see [`pair`].
    pub fn pair(&self, seed: u64, index: u64, task: InstructTask) -> Pair {
        let pair = pair(seed, index, task, Split::Train);
        if !self.one_wording {
            return pair;
        }
        let instruction = task.instructions(Split::Train, None).swap_remove(0);
        Pair { instruction, ..pair }
    }

    /// Returns a short name that differs between curricula, for folders of data.
    pub fn label(&self) -> String {
        let tasks = match &self.tasks[..] {
            tasks if tasks == InstructTask::ALL => tasks.len().to_string(),
            tasks => tasks.iter().map(|task| task.to_string().replace(' ', "-")).collect::<Vec<_>>().join("+"),
        };
        if self.one_wording { format!("{tasks}-one-wording") } else { tasks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wording_changes_nothing_but_the_instruction() {
        let varied = Curriculum::default();
        let fixed = Curriculum { one_wording: true, ..Curriculum::default() };
        let mut wordings = std::collections::BTreeSet::new();
        for index in 0..20 {
            for &task in &varied.tasks {
                let (a, b) = (varied.pair(3, index, task), fixed.pair(3, index, task));
                assert_eq!(Pair { instruction: b.instruction.clone(), ..a.clone() }, b);
                assert!(task.instructions(Split::Train, None).contains(&b.instruction));
                wordings.insert((task, a.instruction));
            }
        }
        assert!(wordings.len() > 100, "{wordings:?}");
    }

    #[test]
    fn labels_tell_curricula_apart() {
        let colour = Curriculum { tasks: vec![InstructTask::Colour], one_wording: false };
        let two = Curriculum { tasks: vec![InstructTask::Colour, InstructTask::BackgroundColour], one_wording: true };
        assert_eq!(Curriculum::default().label(), "12");
        assert_eq!([colour.label(), two.label()], ["colour", "colour+background-colour-one-wording"]);
    }
}
