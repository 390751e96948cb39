//! Nodes that come and go in rising, falling, random, first-in and last-in order.

use super::{Tree, chain, contents, nodes, piece};
use crate::random::Random;
use quarry::addr::to_usize;
use quarry::ds::rbtree::Payload;

const NODES: usize = if cfg!(miri) { 40 } else { 300 };

/// Inserts in the order of `keys`, erases in the order of `going`, checking after each step.
fn come_and_go(keys: &[u64], going: &[u64]) {
    let mut memory = nodes(keys.len());
    let mut spare = chain(&mut memory);
    let mut tree = Tree::new();
    for (count, &key) in keys.iter().enumerate() {
        let node = piece(&mut spare, key, key + 1 + key % 7);
        tree.insert(node).unwrap();
        tree.check().unwrap();
        assert_eq!(tree.len(), count + 1);
    }
    let mut sorted: Vec<u64> = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(contents(&tree).iter().map(|(start, _)| *start).collect::<Vec<_>>(), sorted);
    let backwards: Vec<u64> = tree.iter().rev().map(|node| node.key()).collect();
    assert_eq!(backwards, sorted.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(tree.root().map(|root| root.summary()), sorted.iter().map(|key| 1 + key % 7).max());
    for (gone, key) in going.iter().enumerate() {
        let node = tree.find(*key).unwrap().node();
        spare.push_front(tree.erase(node).unwrap());
        tree.check().unwrap();
        assert_eq!(tree.len(), keys.len() - gone - 1);
        assert!(tree.find(*key).is_none() && !tree.contains(node));
    }
    assert!(tree.is_empty() && tree.first().is_none() && tree.last().is_none() && tree.root().is_none());
}

fn rising() -> Vec<u64> {
    (0..NODES as u64).map(|index| index * 10).collect()
}

fn falling() -> Vec<u64> {
    rising().into_iter().rev().collect()
}

fn shuffled(seed: u64) -> Vec<u64> {
    let (mut keys, mut random) = (rising(), Random(seed));
    for index in (1..keys.len()).rev() {
        keys.swap(index, to_usize(random.below(index as u64 + 1)));
    }
    keys
}

// Behaviours 254, 255 and 256.
#[test]
fn a_hundred_random_keys_come_and_go() {
    for seed in 1..if cfg!(miri) { 2 } else { 20 } {
        let keys = &shuffled(seed)[..NODES.min(100)];
        let mut going = keys.to_vec();
        going.rotate_left(keys.len() / 3);
        come_and_go(keys, &going);
    }
}

#[test]
fn rising_and_falling_orders_keep_the_tree_in_shape() {
    come_and_go(&rising(), &rising());
    come_and_go(&rising(), &falling());
    come_and_go(&falling(), &rising());
    come_and_go(&falling(), &falling());
}

#[test]
fn first_in_first_out_and_last_in_first_out() {
    let keys = shuffled(77);
    come_and_go(&keys, &keys);
    come_and_go(&keys, &keys.iter().rev().copied().collect::<Vec<_>>());
    come_and_go(&keys, &shuffled(78));
}

#[test]
fn nodes_put_behind_their_neighbours_need_no_search() {
    let mut memory = nodes(NODES + 1);
    let mut spare = chain(&mut memory);
    let mut tree = Tree::new();
    let node = piece(&mut spare, 0, 1);
    let mut handles = vec![tree.insert(node).unwrap()];
    let mut random = Random(5);
    for _ in 0..NODES {
        let at = handles[to_usize(random.below(handles.len() as u64))];
        let start = at.key();
        let next = tree.cursor(at).unwrap().next().map_or(start + (1 << 40), |next| next.key());
        if next - start < 2 {
            continue;
        }
        let node = piece(&mut spare, start + (next - start) / 2, next);
        handles.push(tree.insert_after(at, node).unwrap());
        tree.check().unwrap();
    }
    assert!(tree.len() > NODES / 2);
}
