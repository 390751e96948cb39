//! Random operations against a `BTreeMap`, a million of them, with every invariant checked after each.

use super::{Tree, chain, contents, nodes, piece};
use crate::random::Random;
use quarry::ds::rbtree::Payload;
use quarry::ds::rbtree::fit::{Gap, Request};
use std::collections::BTreeMap;

const STEPS: u64 = if cfg!(miri) { 200 } else { 1_000_000 };

/// The answer of the tree's own rule, found by looking at every gap.
fn expected_fit(model: &BTreeMap<u64, u64>, request: &Request) -> Option<u64> {
    let place = |start: u64, end: u64| {
        let at = start.max(request.min).next_multiple_of(request.align);
        (at + request.size <= end.min(request.max)).then_some(at)
    };
    // A gap that begins below the limit is tried as it is; then the lowest with the slack, unless it lies beyond the
    // other limit; then the lowest of all.
    let below = model.range(..request.min).next_back().and_then(|(&start, &end)| place(start, end));
    let sure = |start: u64, end: u64| end - start >= request.size + request.align - request.granule;
    let lowest = || model.range(request.min..).find(|(start, end)| sure(**start, **end));
    let any = || model.iter().find_map(|(&start, &end)| place(start, end));
    below.or_else(|| lowest().and_then(|(&start, &end)| place(start, end))).or_else(any)
}

/// Runs `steps` operations on a tree of at most `size` nodes in a space of `space` numbers.
fn compare(seed: u64, size: usize, space: u64, steps: u64) {
    let mut random = Random(seed);
    let mut memory = nodes(size);
    let mut spare = chain(&mut memory);
    let mut tree = Tree::new();
    let mut model = BTreeMap::new();
    // The share of insertions changes, so that the tree fills up and runs empty.
    let mut bias = 50;
    for step in 0..steps {
        if step % 512 == 0 {
            bias = 20 + random.below(60);
        }
        let key = random.below(space);
        match random.below(100) {
            choice if choice < bias && !spare.is_empty() => {
                let len = 1 + random.below(16);
                let before = model.range(..=key).next_back().map_or(0, |(_, end)| *end);
                let after = model.range(key..).next().map_or(u64::MAX, |(start, _)| *start);
                let node = piece(&mut spare, key, key + len);
                if before <= key && key + len <= after {
                    let node = tree.insert(node).unwrap();
                    let cursor = tree.cursor(node).unwrap();
                    assert_eq!(cursor.prev().map(|prev| prev.end()).unwrap_or(0), before);
                    assert_eq!(cursor.next().map(|next| next.key()).unwrap_or(u64::MAX), after);
                    model.insert(key, key + len);
                } else {
                    spare.push_front(node);
                }
            }
            choice if choice < 90 => {
                let target = tree.last_at_or_below(key);
                assert_eq!(target.map(|node| node.key()), model.range(..=key).next_back().map(|(start, _)| *start));
                let above = tree.first_at_or_above(key);
                assert_eq!(above.map(|node| node.key()), model.range(key..).next().map(|(start, _)| *start));
                let Some(node) = target.or(above).map(|node| node.node()) else { continue };
                model.remove(&node.key()).unwrap();
                spare.push_back(tree.erase(node).unwrap());
            }
            _ => {
                // Grow or shrink one at either end, within the room it has.
                let Some(node) = tree.last_at_or_below(key) else { continue };
                let low = node.prev().map_or(0, |prev| prev.end());
                let high = node.next().map_or(space + 32, |next| next.key());
                let node = node.node();
                let start = low + random.below(node.end() - low);
                let end = start + 1 + random.below(high - start);
                let before = node.end() - node.key();
                model.remove(&node.key()).unwrap();
                node.set(start, end);
                model.insert(start, end);
                if end - start < before || random.below(4) == 0 {
                    tree.propagate(node);
                } else {
                    tree.propagate_growth(node);
                }
            }
        }
        tree.check().unwrap_or_else(|wrong| panic!("step {step} of seed {seed}: {wrong}"));
        let align = 1 << random.below(6);
        let min = if random.below(2) == 0 { 0 } else { random.below(space) };
        let max = if random.below(2) == 0 { u64::MAX } else { min + random.below(space) };
        let request = Request { size: 1 + random.below(24), align, granule: 1, min, max };
        let found = tree.lowest_fit(&request).map(|(_, start)| start);
        assert_eq!(found, expected_fit(&model, &request), "step {step} of seed {seed}: {request:?} in {model:?}");
        assert_eq!(tree.len(), model.len());
        if step % 64 == 0 {
            assert_eq!(contents(&tree), model.clone().into_iter().collect::<Vec<_>>());
        }
    }
}

// Behaviours 256 and 257.
#[test]
fn a_million_random_steps_agree_with_a_btreemap() {
    for (seed, size, space) in [(1, 8, 64), (2, 16, 200), (3, 32, 500), (4, 48, 800), (5, 64, 1_000)] {
        compare(seed, size, space, STEPS * 19 / 100);
    }
    compare(6, 200, 4_000, STEPS * 4 / 100);
    compare(7, 600, 12_000, STEPS / 100);
}
