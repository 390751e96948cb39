//! Random histories against a list of the areas in use, with every invariant checked after each step.

use super::machine::{Machine, Space, memory, run_on};
use super::{START, all_free, alloc, pages_at, space};
use crate::random::Random;
use quarry::addr::{PAGE_SIZE, VirtAddr};
use quarry::mm::vmalloc::{AreaError, AreaInfo, AreaRequest, VmFlags};
use std::collections::BTreeMap;

const STEPS: u64 = if cfg!(miri) { 60 } else { 60_000 };

fn step(space: &Space<'_>, live: &mut BTreeMap<VirtAddr, AreaInfo>, random: &mut Random, region: u64) {
    run_on(u32::try_from(random.below(4)).unwrap());
    let place = VirtAddr::new(START + random.below(region * PAGE_SIZE));
    match random.below(10) {
        0..5 => {
            let guard = if random.below(3) == 0 { VmFlags::NO_GUARD } else { VmFlags::empty() };
            let align = if random.below(3) == 0 { PAGE_SIZE << random.below(6) } else { PAGE_SIZE };
            let mut request = AreaRequest::new((1 + random.below(8)) * PAGE_SIZE, VmFlags::ALLOC | guard);
            request.align = align;
            if random.below(4) == 0 {
                let first = random.below(region);
                request.within = Some(pages_at(first, 1 + random.below(region - first)));
            }
            let Some(area) = alloc(space, &request) else { return };
            let info = area.info();
            assert!(info.range.start().is_aligned(align) && info.size() == request.size);
            assert!(request.within.is_none_or(|within| within.contains_range(info.range)));
            let overlapping = live.values().find(|other| other.range.overlaps(info.range));
            assert_eq!(overlapping, None, "{info} overlaps");
            live.insert(area.start(), info);
        }
        5..9 => {
            let Some((&start, _)) = live.range(place..).next().or_else(|| live.iter().next()) else { return };
            let info = live.remove(&start).unwrap();
            let removed = raw!(space.remove(start, VmFlags::empty())).unwrap();
            assert_eq!(removed.info(), info);
            space.retire(removed);
        }
        _ => {
            let expected = live.range(..=place).next_back().map(|(_, info)| *info);
            let expected = expected.filter(|info| info.range.contains(place));
            assert_eq!(space.find(place), expected);
            if live.contains_key(&place) {
                return;
            }
            let refused = expected.map_or(AreaError::NoArea(place), |info| AreaError::NotTheStart(place, info));
            assert_eq!(raw!(space.remove(place, VmFlags::empty())).unwrap_err(), refused);
        }
    }
}

fn history(seed: u64, region: u64, steps: u64) {
    let mut nodes = memory(4_000);
    let space = space(Machine::new(4, &mut nodes), region);
    let (mut random, mut live) = (Random(seed), BTreeMap::new());
    for number in 0..steps {
        step(&space, &mut live, &mut random, region);
        space.check().unwrap_or_else(|wrong| panic!("step {number} of seed {seed}: {wrong}"));
        if number % 64 == 0 {
            assert_eq!(space.iter().collect::<Vec<_>>(), live.values().copied().collect::<Vec<_>>());
        }
    }
    for start in live.into_keys() {
        space.retire(raw!(space.remove(start, VmFlags::empty())).unwrap());
    }
    all_free(&space);
}

#[test]
fn random_histories_agree_with_a_list() {
    history(1, 40, STEPS);
    history(2, 200, STEPS);
    history(3, 1_000, STEPS / 4);
}
