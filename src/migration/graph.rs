//! From one version to another: the ordered graph of steps, and the way through it. Pure.
//!
//! Versions are integers, so that 10 comes after 9, and every step leads upwards, so that there is no way round in circles.
//!
//! Where several ways lead to the target, the one with the fewest steps is taken: who writes a step 1→3 beside 1→2 and 2→3
//! means it as a short cut. Two ways with equally few steps are refused, and both are named: which of them the data went
//! through would depend on chance.

use std::collections::BTreeMap;

use super::config::StepConfig;
use crate::error::{Error, Result};

/// The steps of a migration set, by the version that they start from.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// (to, index of the step), ascending.
    from: BTreeMap<u64, Vec<(u64, usize)>>,
    highest: Option<u64>,
}

/// How an object's version relates to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It is there already.
    There,
    /// It is past it.
    Newer,
    /// These steps lead there, in order.
    Steps(Vec<usize>),
    /// No steps lead there; the message says where the way ends.
    Missing(String),
}

/// Fewest steps to a version, how many ways have so few, and the last step of two of them.
#[derive(Debug, Clone)]
struct Reached {
    steps: usize,
    last: Vec<(u64, usize)>,
}

impl Graph {
    /// Checks the steps one by one and against each other.
    ///
    /// # Errors
    /// `Invalid` where a step does not lead upwards, or two steps have the same ends.
    pub fn new(steps: &[StepConfig]) -> Result<Self> {
        let mut graph = Self::default();
        for (index, step) in steps.iter().enumerate() {
            if step.to <= step.from {
                return Err(Error::invalid(format!("the step `{}→{}` does not lead upwards", step.from, step.to))
                    .hint("versions are integers that grow; `roll_back` leads back"));
            }
            let next = graph.from.entry(step.from).or_default();
            if next.iter().any(|(to, _)| *to == step.to) {
                return Err(Error::invalid(format!("two steps lead from `{}` to `{}`", step.from, step.to))
                    .hint("one step holds everything that changes between two versions"));
            }
            next.push((step.to, index));
            next.sort_unstable();
            graph.highest = graph.highest.max(Some(step.to));
        }
        Ok(graph)
    }

    /// The highest version that a step leads to.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// The steps that lead from `version` to `target`.
    ///
    /// # Errors
    /// `Invalid` where two ways have equally few steps.
    pub fn way(&self, version: u64, target: u64) -> Result<Way> {
        match version.cmp(&target) {
            std::cmp::Ordering::Equal => return Ok(Way::There),
            std::cmp::Ordering::Greater => return Ok(Way::Newer),
            std::cmp::Ordering::Less => {}
        }
        // Steps lead upwards, so ascending order visits every version after all that lead to it.
        let mut reached: BTreeMap<u64, Reached> = BTreeMap::new();
        reached.insert(version, Reached { steps: 0, last: Vec::new() });
        let mut at = Some(version);
        while let Some(here) = at {
            let steps = reached[&here].steps + 1;
            for &(to, index) in self.from.get(&here).into_iter().flatten().filter(|(to, _)| *to <= target) {
                let entry = reached.entry(to).or_insert(Reached { steps, last: Vec::new() });
                if steps < entry.steps {
                    *entry = Reached { steps, last: Vec::new() };
                }
                if steps == entry.steps {
                    entry.last.push((here, index));
                }
            }
            at = reached.range(here + 1..).next().map(|(version, _)| *version);
        }
        if !reached.contains_key(&target) {
            return Ok(Way::Missing(self.dead_end(&reached, target)));
        }
        let ways = Self::ways(&reached, target);
        match ways.as_slice() {
            [way] => Ok(Way::Steps(way.iter().map(|(_, index)| *index).collect())),
            [one, other, ..] => {
                let show = |way: &[(u64, usize)]| {
                    let versions = way.iter().map(|(version, _)| version.to_string());
                    versions.chain([target.to_string()]).collect::<Vec<_>>().join("→")
                };
                Err(Error::invalid(format!(
                    "two ways of `{}` steps lead from `{version}` to `{target}`: `{}` and `{}`",
                    one.len(),
                    show(one),
                    show(other)
                ))
                .hint("take a step out, or add a shorter way: the one with the fewest steps is taken"))
            }
            [] => Err(Error::internal("a version that was reached has no way to it")),
        }
    }

    /// Up to two ways to `target`, each as (version before, step).
    fn ways(reached: &BTreeMap<u64, Reached>, target: u64) -> Vec<Vec<(u64, usize)>> {
        let mut ways: Vec<(u64, Vec<(u64, usize)>)> = vec![(target, Vec::new())];
        let mut done: Vec<Vec<(u64, usize)>> = Vec::new();
        while let Some((at, way)) = ways.pop() {
            let last = &reached[&at].last;
            if last.is_empty() {
                done.push(way.iter().rev().copied().collect());
                if done.len() == 2 {
                    break;
                }
            }
            for &(before, index) in last.iter().rev() {
                let mut longer = way.clone();
                longer.push((before, index));
                ways.push((before, longer));
            }
        }
        done
    }

    /// Where the way ends short of the target.
    fn dead_end(&self, reached: &BTreeMap<u64, Reached>, target: u64) -> String {
        let furthest = reached.last_key_value().map_or(0, |(version, _)| *version);
        let beyond: Vec<String> =
            self.from.get(&furthest).into_iter().flatten().map(|(to, _)| format!("`{furthest}→{to}`")).collect();
        let found =
            if beyond.is_empty() { "there is none".to_owned() } else { format!("there is {}", beyond.join(", ")) };
        format!("expected a step from version `{furthest}` towards `{target}`, {found}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(ends: &[(u64, u64)]) -> Result<Graph> {
        let steps: Vec<_> = ends.iter().map(|&(from, to)| StepConfig { from, to, ..StepConfig::default() }).collect();
        Graph::new(&steps)
    }

    #[test]
    fn versions_are_ordered_as_integers() {
        let graph = graph(&[(9, 10), (8, 9)]).unwrap();
        assert_eq!(graph.way(9, 10).unwrap(), Way::Steps(vec![0]));
        assert_eq!(graph.way(10, 9).unwrap(), Way::Newer);
        assert_eq!(graph.way(8, 10).unwrap(), Way::Steps(vec![1, 0]));
        assert_eq!(graph.way(10, 10).unwrap(), Way::There);
    }

    #[test]
    fn a_short_cut_is_taken_and_two_equal_ways_are_refused() {
        let steps = graph(&[(1, 2), (2, 3), (1, 3), (3, 4)]).unwrap();
        assert_eq!(steps.way(1, 3).unwrap(), Way::Steps(vec![2]));
        assert_eq!(steps.way(1, 4).unwrap(), Way::Steps(vec![2, 3]));
        assert_eq!(steps.way(2, 4).unwrap(), Way::Steps(vec![1, 3]));
        let equal = graph(&[(1, 2), (2, 4), (1, 3), (3, 4)]).unwrap();
        let error = equal.way(1, 4).unwrap_err().to_string();
        assert!(error.contains("`1→2→4` and `1→3→4`"), "{error}");
        // What is not on the way does not matter.
        assert_eq!(equal.way(1, 3).unwrap(), Way::Steps(vec![2]));
    }

    #[test]
    fn a_step_that_skips_a_version_leaves_that_version_alone() {
        let graph = graph(&[(1, 2), (2, 4)]).unwrap();
        assert_eq!(graph.way(1, 4).unwrap(), Way::Steps(vec![0, 1]));
        let Way::Missing(message) = graph.way(3, 4).unwrap() else { panic!("no step from 3") };
        assert_eq!(message, "expected a step from version `3` towards `4`, there is none");
        let Way::Missing(message) = graph.way(1, 3).unwrap() else { panic!("no step to 3") };
        assert_eq!(message, "expected a step from version `2` towards `3`, there is `2→4`");
    }

    #[test]
    fn steps_that_contradict_each_other_are_refused() {
        assert!(graph(&[(2, 1)]).unwrap_err().to_string().contains("2→1"));
        assert!(graph(&[(1, 2), (1, 2)]).is_err());
    }

    proptest! {
        #[test]
        fn the_way_is_as_short_as_any(
            ends in prop::collection::btree_set((0_u64..8, 1_u64..4).prop_map(|(from, leap)| (from, from + leap)), 0..14),
            version in 0_u64..10,
            target in 0_u64..10,
        ) {
            let ends: Vec<_> = ends.into_iter().collect();
            // Every way, tried out.
            let mut ways: Vec<Vec<usize>> = Vec::new();
            let mut open = vec![(version, Vec::new())];
            while let Some((at, way)) = open.pop() {
                if at == target {
                    ways.push(way);
                    continue;
                }
                for (index, &(from, to)) in ends.iter().enumerate() {
                    if from == at {
                        let mut longer = way.clone();
                        longer.push(index);
                        open.push((to, longer));
                    }
                }
            }
            let fewest = ways.iter().map(Vec::len).min();
            let shortest: Vec<_> = ways.iter().filter(|way| Some(way.len()) == fewest).collect();
            match graph(&ends).unwrap().way(version, target) {
                Ok(Way::There) => prop_assert_eq!(version, target),
                Ok(Way::Newer) => prop_assert!(version > target),
                Ok(Way::Missing(_)) => prop_assert!(ways.is_empty()),
                Ok(Way::Steps(steps)) => {
                    prop_assert_eq!(shortest.len(), 1);
                    prop_assert_eq!(&steps, shortest[0]);
                }
                Err(_) => prop_assert!(shortest.len() > 1),
            }
        }
    }
}
