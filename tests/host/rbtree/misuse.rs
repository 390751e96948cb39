//! Calls that the tree refuses, and damage that its check names.

use super::{Tree, chain, nodes, piece};
use quarry::ds::rbtree::Entry;

// Behaviour 260: an equal key is refused.
#[test]
fn a_second_node_with_the_same_key_comes_back() {
    let mut memory = nodes(2);
    let mut spare = chain(&mut memory);
    let mut tree = Tree::new();
    let (first, second) = (piece(&mut spare, 5, 6), piece(&mut spare, 5, 9));
    tree.insert(first).unwrap();
    let back = tree.insert(second).unwrap_err();
    assert!(matches!(tree.entry(5), Entry::Occupied(_)));
    tree.check().unwrap();
    let Entry::Vacant(place) = tree.entry(7) else { panic!("nobody has 7") };
    // A node of another key does not belong there.
    spare.push_front(place.insert(back).unwrap_err());
    assert_eq!(tree.len(), 1);
}

#[test]
fn a_node_of_another_tree_is_refused() {
    let mut memory = nodes(3);
    let mut spare = chain(&mut memory);
    let (mut one, mut other) = (Tree::new(), Tree::new());
    let node = piece(&mut spare, 1, 2);
    let node = one.insert(node).unwrap();
    assert!(other.erase(node).is_none() && other.cursor(node).is_none() && !other.contains(node));
    let foreign = piece(&mut spare, 5, 6);
    let foreign = other.insert(foreign).unwrap();
    let third = piece(&mut spare, 3, 4);
    let third = one.insert_after(foreign, third).unwrap_err();
    let owned = one.erase(node).unwrap();
    assert!(one.erase(node).is_none(), "it has left already");
    other.insert(owned).unwrap();
    assert!(other.contains(node) && one.is_empty());
    other.propagate(node);
    one.propagate_growth(node);
    spare.push_front(third);
    one.check().unwrap();
    other.check().unwrap();
}

#[test]
fn a_neighbour_out_of_order_is_refused() {
    let mut memory = nodes(3);
    let mut spare = chain(&mut memory);
    let mut tree = Tree::new();
    let (low, high) = (piece(&mut spare, 1, 2), piece(&mut spare, 5, 6));
    let low = tree.insert(low).unwrap();
    tree.insert(high).unwrap();
    let mut node = piece(&mut spare, 5, 6);
    for start in [0, 1, 5, 9] {
        node.set(start, start + 1);
        node = tree.insert_after(low, node).unwrap_err();
    }
    node.set(3, 4);
    tree.insert_after(low, node).unwrap();
    tree.check().unwrap();
}

// Behaviours 256 and 257: a gap that grows or shrinks where it is.
#[test]
fn a_summary_that_was_not_carried_on_is_found() {
    let mut memory = nodes(32);
    let mut spare = chain(&mut memory);
    let mut tree = Tree::new();
    for index in 0..32 {
        let node = piece(&mut spare, index * 10, index * 10 + 1);
        tree.insert(node).unwrap();
    }
    for index in 0..32 {
        let node = tree.find(index * 10).unwrap().node();
        for size in [9, 3, 5, 1] {
            node.set(index * 10, index * 10 + size);
            let wrong = tree.check().unwrap_err();
            assert_eq!(wrong.tag, "RBT-4", "{wrong}");
            if size == 9 {
                tree.propagate_growth(node)
            } else {
                tree.propagate(node)
            }
            tree.check().unwrap();
        }
    }
}

#[test]
fn a_key_that_has_overtaken_its_neighbour_is_found() {
    let mut memory = nodes(8);
    let mut spare = chain(&mut memory);
    let mut tree = Tree::new();
    for index in 0..8 {
        let node = piece(&mut spare, index * 10, index * 10 + 1);
        tree.insert(node).unwrap();
    }
    tree.find(30).unwrap().set(41, 42);
    assert_eq!(tree.check().unwrap_err().tag, "RBT-1");
}
