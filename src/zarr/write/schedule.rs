//! In which order objects are written, what is loaded when, and how long it is kept: pure, so that memory suffices by
//! construction.
//!
//! Objects come in the order in which they are to be written. They are cut into groups: the tiles that a group needs are
//! asked from each source in one call, and a group is admitted as a whole when its memory is free. An input that several
//! objects need is loaded with the first and kept until the last. [`schedule`] walks through the objects once and keeps
//! the sum of what must be resident: where the next object would not fit beside it, the tiles whose next use is
//! farthest away are given up, to be loaded again later; what cannot be loaded again (old objects that are overwritten in the
//! meantime) stays.
//!
//! Why a run cannot get stuck: once all admitted groups are finished, what is held is exactly what the walk counted as
//! resident before the next group, and the walk made sure that the group fits beside it.

use std::collections::HashMap;
use std::ops::Range;

/// Memory is counted in units of this many bytes: small, since a coordinate may be made of a tile a label.
pub(super) const UNIT: u64 = 64;
/// Fetched bytes of a group, in units.
const MOST_FETCHED: u64 = (16 << 20) / UNIT;

/// Bytes in units, rounded up.
pub(super) fn units(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT)
}

/// What an input costs, in units.
#[derive(Debug, Clone, Copy)]
pub(super) struct InputCost {
    /// While it is being loaded, on top of `held`.
    pub(super) fetched: u64,
    /// From then on until its last use.
    pub(super) held: u64,
    /// Whether it can be loaded a second time.
    pub(super) reloadable: bool,
}

/// What an object costs.
#[derive(Debug, Clone)]
pub(super) struct ObjectCost {
    /// Its inputs, each once.
    pub(super) inputs: Vec<usize>,
    /// Units of its own buffers.
    pub(super) own: u64,
}

/// One loading of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) input: usize,
    /// Objects that use it.
    pub(super) users: usize,
}

/// Objects that are admitted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) objects: Range<usize>,
    /// What is loaded for them (indices into [`Schedule::loads`]).
    pub(super) loads: Vec<usize>,
    /// Units that must be free before it is admitted.
    pub(super) memory: u64,
}

/// The order of all work.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(super) groups: Vec<Group>,
    pub(super) loads: Vec<Load>,
    /// For each object the loads that it uses, in the order of its inputs.
    pub(super) object_loads: Vec<Vec<usize>>,
}

/// An object that does not fit into memory with its inputs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) object: usize,
    /// Units that would be enough for it.
    pub(super) needed: u64,
}

/// The walk.
struct Walk<'a> {
    inputs: &'a [InputCost],
    /// Positions of the objects that use an input, and how many of them are behind us.
    uses: Vec<(Vec<usize>, usize)>,
    /// Inputs that stay between groups, with their load.
    resident: HashMap<usize, usize>,
    resident_units: u64,
}

/// Schedules `objects` under a limit of `memory` units in groups of at most `most_objects`.
pub(super) fn schedule(
    objects: &[ObjectCost],
    inputs: &[InputCost],
    memory: u64,
    most_objects: usize,
) -> Result<Schedule, TooLarge> {
    let mut uses = vec![(Vec::new(), 0); inputs.len()];
    for (position, object) in objects.iter().enumerate() {
        for &input in &object.inputs {
            uses[input].0.push(position);
        }
    }
    let mut walk = Walk { inputs, uses, resident: HashMap::new(), resident_units: 0 };
    let mut result = Schedule::default();
    let mut position = 0;
    while position < objects.len() {
        let start = position;
        let mut group = Group { objects: start..start, loads: Vec::new(), memory: 0 };
        let mut loaded: HashMap<usize, usize> = HashMap::new();
        let mut fetched = 0;
        while let Some(object) = objects.get(position) {
            let fresh = |walk: &Walk<'_>| -> Vec<usize> {
                let known = |input: &usize| walk.resident.contains_key(input) || loaded.contains_key(input);
                object.inputs.iter().copied().filter(|input| !known(input)).collect()
            };
            let mut new = fresh(&walk);
            let cost = |new: &[usize]| -> u64 {
                object.own + new.iter().map(|input| inputs[*input].fetched + inputs[*input].held).sum::<u64>()
            };
            let mut added = cost(&new);
            if position == start {
                while walk.resident_units + added > memory {
                    if !walk.give_up_farthest(object) {
                        return Err(TooLarge { object: position, needed: walk.resident_units + added });
                    }
                    new = fresh(&walk);
                    added = cost(&new);
                }
            } else {
                let more: u64 = new.iter().map(|input| inputs[*input].fetched).sum();
                if walk.resident_units + group.memory + added > memory
                    || group.memory + added > memory / 4
                    || fetched + more > MOST_FETCHED
                    || position - start >= most_objects
                {
                    break;
                }
            }
            for &input in &new {
                fetched += inputs[input].fetched;
                loaded.insert(input, result.loads.len());
                group.loads.push(result.loads.len());
                result.loads.push(Load { input, users: 0 });
            }
            group.memory += added;
            let loads: Vec<usize> = object
                .inputs
                .iter()
                .filter_map(|input| walk.resident.get(input).or_else(|| loaded.get(input)).copied())
                .collect();
            for &load in &loads {
                result.loads[load].users += 1;
            }
            result.object_loads.push(loads);
            position += 1;
        }
        group.objects.end = position;
        for object in &objects[start..position] {
            walk.pass(object, position, &loaded);
        }
        result.groups.push(group);
    }
    Ok(result)
}

impl Walk<'_> {
    /// Gives up the resident input that `object` does not need and whose next use is farthest away.
    fn give_up_farthest(&mut self, object: &ObjectCost) -> bool {
        let candidates = self.resident.keys().copied();
        let farthest = candidates
            .filter(|input| self.inputs[*input].reloadable && !object.inputs.contains(input))
            .max_by_key(|input| (self.uses[*input].0.get(self.uses[*input].1).copied(), *input));
        let Some(input) = farthest else { return false };
        self.resident.remove(&input);
        self.resident_units -= self.inputs[input].held;
        true
    }

    /// `object` is behind us, as is everything before `position`: its inputs stay if they are needed again.
    fn pass(&mut self, object: &ObjectCost, position: usize, loaded: &HashMap<usize, usize>) {
        for &input in &object.inputs {
            let (uses, behind) = &mut self.uses[input];
            while uses.get(*behind).is_some_and(|next| *next < position) {
                *behind += 1;
            }
            let needed = *behind < uses.len();
            match (needed, self.resident.contains_key(&input)) {
                (true, false) => {
                    if let Some(load) = loaded.get(&input) {
                        self.resident.insert(input, *load);
                        self.resident_units += self.inputs[input].held;
                    }
                }
                (false, true) => {
                    self.resident.remove(&input);
                    self.resident_units -= self.inputs[input].held;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input(fetched: u64, held: u64) -> InputCost {
        InputCost { fetched, held, reloadable: true }
    }

    fn object(inputs: &[usize], own: u64) -> ObjectCost {
        ObjectCost { inputs: inputs.to_vec(), own }
    }

    #[test]
    fn what_is_shared_is_loaded_once_and_asked_for_in_few_calls() {
        let objects: Vec<ObjectCost> = (0..40).map(|_| object(&[0, 1], 10)).collect();
        let schedule = schedule(&objects, &[input(1, 5), input(1, 5)], 10_000, 16).unwrap();
        assert_eq!(schedule.loads, [Load { input: 0, users: 40 }, Load { input: 1, users: 40 }]);
        assert_eq!(schedule.groups.len(), 3);
        assert_eq!(schedule.groups[0].memory, 172);
        assert_eq!(schedule.groups[1].memory, 160);
    }

    #[test]
    fn too_little_memory_loads_again_and_far_too_little_is_refused() {
        let objects = [object(&[0], 1), object(&[1], 1), object(&[0], 1)];
        let inputs = [input(0, 10), input(0, 10)];
        assert_eq!(schedule(&objects, &inputs, 21, 16).unwrap().loads.len(), 2);
        assert_eq!(schedule(&objects, &inputs, 20, 16).unwrap().loads.len(), 3);
        assert_eq!(schedule(&objects, &inputs, 10, 16).unwrap_err(), TooLarge { object: 0, needed: 11 });
        let fixed = inputs.map(|input| InputCost { reloadable: false, ..input });
        assert_eq!(schedule(&objects, &fixed, 20, 16).unwrap_err(), TooLarge { object: 1, needed: 21 });
    }

    proptest! {
        /// Walks through the groups as the engine does, with each group finished before the next.
        #[test]
        fn memory_always_suffices(
            inputs in proptest::collection::vec((0_u64..20, 1_u64..50), 1..8),
            objects in proptest::collection::vec((proptest::collection::btree_set(0_usize..8, 0..4), 1_u64..40), 1..60),
            memory in 60_u64..400,
        ) {
            let objects: Vec<ObjectCost> = objects
                .into_iter()
                .map(|(used, own)| object(&used.into_iter().filter(|one| *one < inputs.len()).collect::<Vec<_>>(), own))
                .collect();
            let inputs: Vec<InputCost> = inputs.into_iter().map(|(fetched, held)| input(fetched, held)).collect();
            let needs = |object: &ObjectCost| {
                object.own + object.inputs.iter().map(|one| inputs[*one].fetched + inputs[*one].held).sum::<u64>()
            };
            let Ok(schedule) = schedule(&objects, &inputs, memory, 16) else {
                prop_assert!(objects.iter().any(|object| needs(object) > memory));
                return Ok(());
            };
            let mut left: Vec<usize> = schedule.loads.iter().map(|load| load.users).collect();
            let mut held = 0;
            let mut next = 0;
            for group in &schedule.groups {
                prop_assert_eq!(group.objects.start, next);
                next = group.objects.end;
                prop_assert!(held + group.memory <= memory);
                held += group.loads.iter().map(|load| inputs[schedule.loads[*load].input].held).sum::<u64>();
                for position in group.objects.clone() {
                    let used: Vec<usize> =
                        schedule.object_loads[position].iter().map(|load| schedule.loads[*load].input).collect();
                    prop_assert_eq!(&used, &objects[position].inputs);
                    for &load in &schedule.object_loads[position] {
                        left[load] -= 1;
                        if left[load] == 0 {
                            held -= inputs[schedule.loads[load].input].held;
                        }
                    }
                }
            }
            prop_assert_eq!(next, objects.len());
            prop_assert_eq!(held, 0);
        }
    }
}
