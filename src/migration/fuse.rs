//! A chain of steps as one change: what is read, in which order steps are computed, what becomes of each column. Pure.
//!
//! # Problem
//! From version 1 to 3 by 1→2→3 an object is to be read once and written once, and it must come out as if it had been
//! written after every step.
//!
//! # Design
//! The columns are followed through the chain: each is either a column of the file (under the file's own name, whatever it
//! is called by then) or a result of a step. Within a step, inputs are read by the names before it; then casts take the
//! place of what they recast, columns are dropped, renamed (all at once, so that two may change names), and results are
//! added last. At the end the columns of the file that are still there are kept as encoded bytes, and the results that are
//! still there are encoded; a step whose results nobody needs is not computed.
//!
//! # Caveats
//! A step that adds a column which the file has already is refused, unless it drops, renames or casts it: mostly the
//! object was migrated before by something that did not say so. Names that a step reads, renames or drops must be there.

use std::collections::{BTreeSet, HashSet};

use super::config::StepConfig;
use super::step::Bound;
use crate::error::{Context, Error, Result};
use crate::parquet::{Add, Change, Field, Schema};

/// Where a column's values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The column of the file with this name.
    File(String),
    /// A result, by its number.
    Result(usize),
}

/// One computation.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Index of the step in the configuration.
    pub step: usize,
    /// Its inputs: the fields under the names that the step knows, and where their values come from.
    pub reads: Vec<(Field, Origin)>,
    /// Its results: fields under the names that the step gives, and their numbers.
    pub adds: Vec<(Field, usize)>,
}

/// A chain of steps as one change.
#[derive(Debug, Clone)]
pub struct Fused {
    /// What becomes of the file's columns; without key-values.
    pub change: Change,
    /// Names in the file of the columns to be read.
    pub reads: Vec<String>,
    /// The computations in order, each needed.
    pub evaluations: Vec<Evaluation>,
    /// For each of `change.adds` the number of its result.
    pub results: Vec<usize>,
    /// The schema afterwards.
    pub schema: Schema,
}

#[derive(Debug, Clone)]
struct Column {
    field: Field,
    origin: Origin,
    /// The column of the file whose place a recast result takes.
    replaces: Option<String>,
}

/// Fuses the steps at the indices `chain`, given the file's schema; `bind` is asked once a step with the schema before it.
///
/// # Errors
/// `Invalid` where a step does not fit the schema that it meets; what `bind` raises.
pub fn fuse(
    steps: &[StepConfig],
    chain: &[usize],
    schema: &Schema,
    bind: &mut dyn FnMut(usize, &Schema) -> Result<Bound>,
) -> Result<Fused> {
    let mut columns: Vec<Column> = schema
        .fields()
        .iter()
        .map(|field| Column {
            field: field.as_ref().clone(),
            origin: Origin::File(field.name().clone()),
            replaces: None,
        })
        .collect();
    let mut evaluations = Vec::new();
    let mut results = 0;
    for &index in chain {
        let step = steps.get(index).ok_or_else(|| Error::internal(format!("there is no step `{index}`")))?;
        let name = || format!("step `{}→{}`", step.from, step.to);
        let before = Schema::new(columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>());
        let bound = bind(index, &before).context(name)?;
        let evaluation = apply(&mut columns, step, index, &bound, &mut results).context(name)?;
        evaluations.push(evaluation);
    }
    Ok(finish(schema, columns, evaluations))
}

/// One step: the columns after it, and what is computed.
fn apply(
    columns: &mut Vec<Column>,
    step: &StepConfig,
    index: usize,
    bound: &Bound,
    results: &mut usize,
) -> Result<Evaluation> {
    let position = |columns: &[Column], name: &str| columns.iter().position(|column| column.field.name() == name);
    let present = |columns: &[Column], verb: &str, name: &str| {
        position(columns, name).ok_or_else(|| missing(columns, verb, name))
    };
    let mut evaluation = Evaluation { step: index, reads: Vec::new(), adds: Vec::new() };
    for name in &bound.reads {
        let column = &columns[present(columns, "reads", name)?];
        evaluation.reads.push((column.field.clone(), column.origin.clone()));
    }
    for name in step.drop.iter().chain(step.rename.keys()) {
        present(columns, if step.rename.contains_key(name) { "renames" } else { "drops" }, name)?;
    }
    if let Some(name) = step.drop.iter().find(|name| step.rename.contains_key(*name) || step.cast.contains_key(*name)) {
        return Err(Error::invalid(format!("`{name}` is dropped, and renamed or cast as well")));
    }
    let mut added = Vec::new();
    let mut names = HashSet::new();
    for field in &bound.adds {
        if !names.insert(field.name()) {
            return Err(Error::invalid(format!("the column `{}` is computed twice", field.name())));
        }
        let number = *results;
        *results += 1;
        evaluation.adds.push((field.clone(), number));
        let origin = Origin::Result(number);
        if step.cast.contains_key(field.name()) {
            let at = present(columns, "casts", field.name())?;
            let column = &mut columns[at];
            if let Origin::File(name) = &column.origin {
                column.replaces = Some(name.clone());
            }
            (column.origin, column.field) = (origin, field.clone());
        } else {
            added.push(Column { field: field.clone(), origin, replaces: None });
        }
    }
    if let Some(name) = step.cast.keys().find(|name| !bound.adds.iter().any(|field| field.name() == *name)) {
        return Err(Error::internal(format!("the cast of `{name}` was not bound")));
    }
    columns.retain(|column| !step.drop.contains(column.field.name()));
    for column in columns.iter_mut() {
        if let Some(name) = step.rename.get(column.field.name()) {
            column.field = column.field.clone().with_name(name);
        }
    }
    let mut names = HashSet::new();
    for column in columns.iter() {
        if !names.insert(column.field.name().clone()) {
            return Err(Error::invalid(format!("two columns would be called `{}`", column.field.name())));
        }
    }
    for column in added {
        if !names.insert(column.field.name().clone()) {
            return Err(Error::invalid(format!("the file has a column `{}` already", column.field.name())).hint(
                "if an earlier migration added it, give the object its version; else let the step `drop`, `rename` or \
                 `cast` it",
            ));
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(Error::invalid("no column would be left"));
    }
    Ok(evaluation)
}

fn missing(columns: &[Column], verb: &str, name: &str) -> Error {
    let error = Error::invalid(format!("the step {verb} the column `{name}`, which is not there"));
    let lower = name.to_lowercase();
    let near = columns.iter().map(|column| column.field.name()).find(|other| other.to_lowercase() == lower);
    match near {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!(
            "there are {}",
            columns.iter().take(20).map(|column| format!("`{}`", column.field.name())).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// What became of the file's columns, and what of the computations is needed.
fn finish(schema: &Schema, columns: Vec<Column>, evaluations: Vec<Evaluation>) -> Fused {
    let mut change = Change::default();
    let mut results = Vec::new();
    let mut still_there = HashSet::new();
    for column in &columns {
        match &column.origin {
            Origin::File(name) => {
                still_there.insert(name.clone());
                if name != column.field.name() {
                    change.renames.push((name.clone(), column.field.name().clone()));
                }
            }
            Origin::Result(number) => {
                still_there.extend(column.replaces.clone());
                change.adds.push(Add { field: column.field.clone(), replaces: column.replaces.clone() });
                results.push(*number);
            }
        }
    }
    change.drops =
        schema.fields().iter().map(|field| field.name().clone()).filter(|name| !still_there.contains(name)).collect();
    let mut needed: BTreeSet<usize> = results.iter().copied().collect();
    let mut kept = Vec::new();
    for evaluation in evaluations.into_iter().rev() {
        if evaluation.adds.iter().any(|(_, number)| needed.contains(number)) {
            needed.extend(evaluation.reads.iter().filter_map(|(_, origin)| match origin {
                Origin::Result(number) => Some(*number),
                Origin::File(_) => None,
            }));
            kept.push(evaluation);
        }
    }
    kept.reverse();
    let mut reads: Vec<String> = Vec::new();
    for (_, origin) in kept.iter().flat_map(|evaluation| &evaluation.reads) {
        if let Origin::File(name) = origin
            && !reads.contains(name)
        {
            reads.push(name.clone());
        }
    }
    let schema = Schema::new(columns.into_iter().map(|column| column.field).collect::<Vec<_>>());
    Fused { change, reads, evaluations: kept, results, schema }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::parquet::DataType;

    fn field(name: &str) -> Field {
        Field::new(name, DataType::Int64, true)
    }

    fn schema(names: &[&str]) -> Schema {
        Schema::new(names.iter().map(|name| field(name)).collect::<Vec<_>>())
    }

    fn bound(reads: &[&str], adds: &[&str]) -> Bound {
        Bound {
            reads: reads.iter().map(|&name| name.to_owned()).collect(),
            adds: adds.iter().map(|name| field(name)).collect(),
        }
    }

    /// Fuses all steps, given what each reads and adds.
    fn fused(names: &[&str], steps: &[(StepConfig, Bound)]) -> Result<Fused> {
        let configs: Vec<_> = steps.iter().map(|(step, _)| step.clone()).collect();
        let chain: Vec<_> = (0..steps.len()).collect();
        fuse(&configs, &chain, &schema(names), &mut |index, _| Ok(steps[index].1.clone()))
    }

    fn step(from: u64) -> StepConfig {
        StepConfig { from, to: from + 1, ..StepConfig::default() }
    }

    fn renamed(from: u64, old: &str, new: &str) -> StepConfig {
        StepConfig { rename: [(old.to_owned(), new.to_owned())].into(), ..step(from) }
    }

    #[test]
    fn a_result_is_the_input_of_a_later_step_under_the_name_it_has_then() {
        let steps = [
            (step(1), bound(&["a"], &["b"])),
            (renamed(2, "b", "c"), bound(&[], &[])),
            (step(3), bound(&["c", "a"], &["d"])),
        ];
        let fused = fused(&["a"], &steps).unwrap();
        assert_eq!(fused.reads, ["a"]);
        let adds: Vec<_> = fused.change.adds.iter().map(|add| add.field.name().as_str()).collect();
        assert_eq!(adds, ["c", "d"]);
        assert_eq!(fused.evaluations.len(), 2);
        assert_eq!(fused.evaluations[1].reads[0], (field("c"), Origin::Result(0)));
    }

    #[test]
    fn what_nobody_needs_is_not_computed() {
        let dropped = StepConfig { drop: vec!["b".into()], ..step(2) };
        let steps = [(step(1), bound(&["a"], &["b"])), (dropped, bound(&[], &[]))];
        let fused = fused(&["a", "x"], &steps).unwrap();
        assert!(fused.evaluations.is_empty() && fused.reads.is_empty() && fused.change.adds.is_empty());
        assert!(fused.change.drops.is_empty(), "the file never had it: {:?}", fused.change);
    }

    #[test]
    fn two_columns_may_change_names() {
        let swap = StepConfig { rename: [("a".into(), "b".into()), ("b".into(), "a".into())].into(), ..step(1) };
        let fused = fused(&["a", "b"], &[(swap, bound(&["a"], &["c"]))]).unwrap();
        assert_eq!(fused.change.renames, [("a".into(), "b".into()), ("b".into(), "a".into())]);
        assert_eq!(fused.reads, ["a"]);
    }

    #[test]
    fn a_recast_column_keeps_its_place_whatever_it_is_called_later() {
        let cast = |from, name: &str| StepConfig { cast: [(name.into(), "double".into())].into(), ..step(from) };
        let steps = [
            (cast(1, "a"), bound(&["a"], &["a"])),
            (renamed(2, "a", "z"), bound(&[], &[])),
            (cast(3, "z"), bound(&["z"], &["z"])),
        ];
        let fused = fused(&["a", "b"], &steps).unwrap();
        assert_eq!(fused.change.adds, [Add { field: field("z"), replaces: Some("a".into()) }]);
        assert!(fused.change.renames.is_empty() && fused.change.drops.is_empty());
        assert_eq!(fused.evaluations.len(), 2);
    }

    #[test]
    fn a_column_may_be_computed_from_the_one_it_takes_the_name_of() {
        let step = StepConfig { drop: vec!["a".into()], ..step(1) };
        let fused = fused(&["a", "b"], &[(step, bound(&["a"], &["a"]))]).unwrap();
        assert_eq!(fused.change.drops, ["a"]);
        assert_eq!(fused.change.adds, [Add { field: field("a"), replaces: None }]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message =
            |names: &[&str], step: StepConfig, bound: Bound| fused(names, &[(step, bound)]).unwrap_err().to_string();
        let text = message(&["a", "b"], step(1), bound(&["a"], &["b"]));
        assert!(text.starts_with("step `1→2`: the file has a column `b` already"), "{text}");
        let text = message(&["Temp"], step(1), bound(&["temp"], &["b"]));
        assert!(text.contains("did you mean `Temp`?"), "{text}");
        let text = message(&["a", "b"], renamed(1, "a", "b"), bound(&[], &[]));
        assert!(text.contains("two columns would be called `b`"), "{text}");
        let text = message(&["a"], StepConfig { drop: vec!["a".into()], ..step(1) }, bound(&[], &[]));
        assert!(text.contains("no column would be left"), "{text}");
        assert!(message(&["a"], renamed(1, "x", "y"), bound(&[], &[])).contains("renames the column `x`"));
    }

    /// What a random step does, made to fit the columns that are there.
    #[derive(Debug, Clone)]
    struct Wish {
        reads: Vec<prop::sample::Index>,
        adds: usize,
        drop: Option<prop::sample::Index>,
        rename: Option<prop::sample::Index>,
        cast: Option<prop::sample::Index>,
    }

    fn wishes() -> impl Strategy<Value = Vec<Wish>> {
        let index = any::<prop::sample::Index>;
        let some = || prop::option::of(any::<prop::sample::Index>());
        prop::collection::vec(
            (prop::collection::vec(index(), 0..3), 0_usize..3, some(), some(), some())
                .prop_map(|(reads, adds, drop, rename, cast)| Wish { reads, adds, drop, rename, cast }),
            0..6,
        )
    }

    /// A value that tells how it was made.
    fn made(step: usize, name: &str, inputs: &[String]) -> String {
        format!("{step}.{name}({})", inputs.join(","))
    }

    proptest! {
        /// The fused chain against the same steps one after another, each on the whole file.
        #[test]
        fn the_chain_is_the_steps_one_after_another(wishes in wishes()) {
            let mut columns: Vec<(String, String)> =
                ["a", "b", "c"].map(|name| (name.to_owned(), name.to_owned())).into();
            let (mut steps, mut bounds) = (Vec::new(), Vec::new());
            for (index, wish) in wishes.iter().enumerate() {
                let pick = |at: &prop::sample::Index| columns[at.index(columns.len())].0.clone();
                let drop = wish.drop.as_ref().map(pick).filter(|_| columns.len() > 1 || wish.adds > 0);
                let cast = wish.cast.as_ref().map(pick).filter(|name| Some(name) != drop.as_ref());
                let rename = wish.rename.as_ref().map(pick).filter(|name| Some(name) != drop.as_ref());
                let reads: Vec<String> = wish.reads.iter().map(pick).collect();
                let mut adds: Vec<String> = (0..wish.adds).map(|number| format!("n{index}_{number}")).collect();
                adds.extend(cast.clone());
                let inputs: Vec<String> = reads
                    .iter()
                    .map(|name| columns.iter().find(|column| column.0 == *name).unwrap().1.clone())
                    .collect();
                for column in &mut columns {
                    if Some(&column.0) == cast.as_ref() {
                        column.1 = made(index, &column.0, &inputs);
                    }
                }
                columns.retain(|column| Some(&column.0) != drop.as_ref());
                for column in &mut columns {
                    if Some(&column.0) == rename.as_ref() {
                        column.0 = format!("r{index}");
                    }
                }
                for name in adds.iter().filter(|name| Some(*name) != cast.as_ref()) {
                    columns.push((name.clone(), made(index, name, &inputs)));
                }
                let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
                let adds: Vec<&str> = adds.iter().map(String::as_str).collect();
                bounds.push(bound(&reads, &adds));
                steps.push(StepConfig {
                    drop: drop.into_iter().collect(),
                    rename: rename.map(|name| (name, format!("r{index}"))).into_iter().collect(),
                    cast: cast.map(|name| (name, "double".into())).into_iter().collect(),
                    ..step(index as u64)
                });
            }
            let chain: Vec<usize> = (0..steps.len()).collect();
            let mut known: Vec<Vec<String>> = Vec::new();
            let fused = fuse(&steps, &chain, &schema(&["a", "b", "c"]), &mut |index, schema| {
                known.push(schema.fields().iter().map(|field| field.name().clone()).collect());
                Ok(bounds[index].clone())
            }).unwrap();

            // Follow the change: kept columns, recast ones in place, then the new ones.
            let mut results: BTreeMap<usize, String> = BTreeMap::new();
            for evaluation in &fused.evaluations {
                let inputs: Vec<String> = evaluation.reads.iter().map(|(_, origin)| match origin {
                    Origin::File(name) => name.clone(),
                    Origin::Result(number) => results[number].clone(),
                }).collect();
                for (field, number) in &evaluation.adds {
                    results.insert(*number, made(evaluation.step, field.name(), &inputs));
                }
            }
            let mut after = Vec::new();
            for name in ["a", "b", "c"] {
                let change = &fused.change;
                let add = change.adds.iter().zip(&fused.results).find(|(add, _)| add.replaces.as_deref() == Some(name));
                match add {
                    Some((add, number)) => after.push((add.field.name().clone(), results[number].clone())),
                    None if change.drops.contains(&name.to_owned()) => {}
                    None => {
                        let rename = change.renames.iter().find(|(old, _)| old == name);
                        after.push((rename.map_or(name.to_owned(), |(_, new)| new.clone()), name.to_owned()));
                    }
                }
            }
            for (add, number) in fused.change.adds.iter().zip(&fused.results).filter(|(add, _)| add.replaces.is_none()) {
                after.push((add.field.name().clone(), results[number].clone()));
            }
            prop_assert_eq!(&after, &columns);
            let names: Vec<_> = fused.schema.fields().iter().map(|field| field.name().clone()).collect();
            prop_assert_eq!(names, columns.iter().map(|column| column.0.clone()).collect::<Vec<_>>());
        }
    }
}
