use proptest::prelude::*;

use super::*;

fn integers(values: &[i64]) -> Vec<Label> {
    values.iter().map(|value| Label::Int(*value)).collect()
}

fn floats(values: &[f64]) -> Vec<Label> {
    values.iter().map(|value| Label::Float(*value)).collect()
}

fn place_integers(labels: &[i64], requested: &[i64], policy: &AxisPolicy) -> Placement {
    place(&integers(labels), &integers(requested), policy, Tolerance::default()).unwrap()
}

fn slots(placement: &Placement) -> Vec<(u64, bool)> {
    placement.slots.iter().map(|slot| slot.as_ref().map(|slot| (slot.index, slot.is_new)).unwrap()).collect()
}

const DAILY: AxisPolicy = AxisPolicy::Regular { start: Label::Int(10), step: Label::Int(5) };

#[test]
fn a_match_at_index_0_is_a_match() {
    for policy in [DAILY, AxisPolicy::Sorted, AxisPolicy::Arrival, AxisPolicy::Fixed] {
        let placement = place_integers(&[10, 15, 20], &[10], &policy);
        assert_eq!(slots(&placement), [(0, false)]);
        assert_eq!((placement.length, placement.shift(0)), (3, None));
    }
}

#[test]
fn a_regular_axis_grows_over_gaps() {
    let placement = place_integers(&[10, 15], &[30, 15, 30], &DAILY);
    assert_eq!(slots(&placement), [(4, true), (1, false), (4, true)]);
    assert_eq!(placement.length, 5);
    assert_eq!(placement.gaps, [2, 3]);
    assert_eq!(placement.added, [(2, Label::Int(20)), (3, Label::Int(25)), (4, Label::Int(30))]);
    assert_eq!(placement.shift(0), None);
}

#[test]
fn labels_off_the_grid_are_named_and_the_others_placed() {
    let placement = place(&[], &integers(&[12, 5, 20, i64::MAX]), &DAILY, Tolerance::default()).unwrap();
    let messages: Vec<String> =
        placement.slots.iter().filter_map(|slot| slot.as_ref().err().map(Error::message)).collect();
    assert_eq!(
        messages,
        [
            "label `12` is not on the axis, which starts at `10` in steps of `5`",
            "label `5` lies before the start of the axis, `10`",
            "label `9223372036854775807` is not on the axis, which starts at `10` in steps of `5`",
        ]
    );
    assert_eq!(placement.slots[2].as_ref().unwrap().index, 2);
    assert_eq!(placement.length, 3);
    let far = place(&[], &integers(&[i64::MAX - 2]), &DAILY, Tolerance::default()).unwrap();
    assert!(far.slots[0].as_ref().unwrap_err().message().contains("grows by at most"));
    assert_eq!(far.length, 0);
}

#[test]
fn a_store_that_is_not_regular_is_refused() {
    let error = place(&integers(&[10, 16]), &[], &DAILY, Tolerance::default()).unwrap_err();
    assert_eq!(error.message(), "the axis is not regular: expected label `15` at index `1`, found `16`");
}

#[test]
fn float_grids_forgive_rounding_and_nothing_else() {
    let hourly = AxisPolicy::Regular { start: Label::Float(26_000.0), step: Label::Float(1.0 / 24.0) };
    let label = |hour: u32| 26_000.0 + f64::from(hour) / 24.0;
    let requested = floats(&[label(7), label(100_000), label(3) + 1e-3, f64::NAN]);
    let placement = place(&floats(&[label(0), label(1)]), &requested, &hourly, Tolerance::default()).unwrap();
    let indices: Vec<Option<u64>> =
        placement.slots.iter().map(|slot| slot.as_ref().ok().map(|slot| slot.index)).collect();
    assert_eq!(indices, [Some(7), Some(100_000), None, None]);
}

#[test]
fn inserts_move_what_is_behind_them() {
    let placement = place_integers(&[10, 20, 30], &[25, 20, 5, 40, 25], &AxisPolicy::Sorted);
    assert_eq!(slots(&placement), [(3, true), (2, false), (0, true), (5, true), (3, true)]);
    assert_eq!(placement.length, 6);
    assert_eq!(placement.map().unwrap(), [None, Some(0), Some(1), None, Some(2), None]);
    assert_eq!(placement.moved_count(), 3);
    let append = place_integers(&[10, 20, 30], &[40, 35], &AxisPolicy::Sorted);
    assert_eq!(slots(&append), [(4, true), (3, true)]);
    assert_eq!(append.shift(0), None);
}

#[test]
fn a_falling_axis_stays_falling() {
    let placement = place_integers(&[30, 20, 10], &[25, 5, 40, 10], &AxisPolicy::Sorted);
    assert_eq!(slots(&placement), [(2, true), (5, true), (0, true), (4, false)]);
    assert_eq!(placement.map().unwrap(), [None, Some(0), None, Some(1), Some(2), None]);
    assert_eq!(placement.added, [(0, Label::Int(40)), (2, Label::Int(25)), (5, Label::Int(5))]);
}

#[test]
fn an_unsorted_axis_is_refused_for_inserts_only() {
    let error = place(&integers(&[10, 30, 20]), &[], &AxisPolicy::Sorted, Tolerance::default()).unwrap_err();
    assert_eq!(error.message(), "the axis is not sorted: label `20` at index `2` follows `30`");
    let placement = place_integers(&[10, 30, 20], &[40, 20, 35], &AxisPolicy::Arrival);
    assert_eq!(slots(&placement), [(3, true), (2, false), (4, true)]);
}

#[test]
fn duplicates_and_unknown_labels_are_refused_by_themselves() {
    let placement = place(&integers(&[10, 20, 20]), &integers(&[20, 10]), &AxisPolicy::Arrival, Tolerance::default());
    let placement = placement.unwrap();
    let error = placement.slots[0].as_ref().unwrap_err();
    assert_eq!(error.message(), "label `20` matches two slots of the axis, `1` and `2`");
    assert!(placement.slots[1].is_ok());
    let fixed = place(&integers(&[10]), &integers(&[11]), &AxisPolicy::Fixed, Tolerance::default()).unwrap();
    assert_eq!(fixed.slots[0].as_ref().unwrap_err().message(), "label `11` is not on the axis, which is fixed");
    let text = [Label::Text("a".to_owned())];
    let mixed = place(&integers(&[10]), &text, &AxisPolicy::Arrival, Tolerance::default()).unwrap();
    assert!(mixed.slots[0].is_err());
}

#[test]
fn floats_match_within_the_tolerance_and_share_a_new_slot() {
    let tolerance = Tolerance { absolute: 0.01, relative: 0.0 };
    let requested = floats(&[1.005, 3.0, 2.001, 2.004]);
    let placement = place(&floats(&[1.0, 3.0]), &requested, &AxisPolicy::Sorted, tolerance).unwrap();
    assert_eq!(slots(&placement), [(0, false), (2, false), (1, true), (1, true)]);
    assert_eq!(placement.added, [(1, Label::Float(2.001))]);
    let close = place(&floats(&[1.0, 1.008]), &floats(&[1.004]), &AxisPolicy::Sorted, tolerance).unwrap();
    assert!(close.slots[0].is_err());
    let drift = place(&floats(&[0.1 + 0.2]), &floats(&[0.3]), &AxisPolicy::Fixed, Tolerance::default()).unwrap();
    assert_eq!(slots(&drift), [(0, false)]);
}

#[test]
fn integers_and_floats_compare_exactly() {
    use std::cmp::Ordering;
    let large = (1_i64 << 53) + 1;
    assert_eq!(Label::Int(large).order(&Label::Float(large as f64)), Ordering::Greater);
    assert_eq!(Label::Float(-1.5).order(&Label::Int(-1)), Ordering::Less);
    assert_eq!(Label::Int(3).order(&Label::Float(3.0)), Ordering::Equal);
}

#[test]
fn a_million_labels_take_a_moment() {
    let labels: Vec<Label> = (0..1_000_000).map(|value| Label::Int(value * 2)).collect();
    let requested: Vec<Label> = (0..1000).map(|value| Label::Int(value * 1999)).collect();
    for policy in [AxisPolicy::Sorted, AxisPolicy::Arrival] {
        let placement = place(&labels, &requested, &policy, Tolerance::default()).unwrap();
        assert_eq!(placement.length, 1_000_500);
    }
}

proptest! {
    #[test]
    fn sorted_placement_equals_naive_insertion(
        labels in proptest::collection::btree_set(-20_i64..20, 0..12),
        requested in proptest::collection::vec(-25_i64..25, 0..12),
        falling in any::<bool>(),
    ) {
        let falling = falling && labels.len() > 1;
        let order = |values: &mut Vec<i64>| if falling { values.reverse() };
        let mut old: Vec<i64> = labels.iter().copied().collect();
        order(&mut old);
        let mut new: Vec<i64> = labels.iter().copied().chain(requested.iter().copied()).collect();
        new.sort_unstable();
        new.dedup();
        order(&mut new);
        let placement = place_integers(&old, &requested, &AxisPolicy::Sorted);
        prop_assert_eq!(placement.length, new.len() as u64);
        for (slot, label) in slots(&placement).iter().zip(&requested) {
            prop_assert_eq!(new[slot.0 as usize], *label);
            prop_assert_eq!(slot.1, !labels.contains(label));
        }
        for (index, label) in &placement.added {
            prop_assert_eq!(&Label::Int(new[*index as usize]), label);
        }
        let is_append = new.starts_with(&old);
        prop_assert_eq!(placement.map().is_none(), is_append);
        if let Some(shift) = placement.shift(0) {
            shift.check(new.len() as u64, Some(old.len() as u64)).unwrap();
            for (to, from) in shift.map.iter().enumerate() {
                prop_assert_eq!(from.map(|from| old[from as usize]), labels.contains(&new[to]).then_some(new[to]));
            }
        }
    }
}
