//! The lowest gap that fits.

use super::{Tree, chain, nodes, piece};
use quarry::ds::rbtree::Payload;
use quarry::ds::rbtree::fit::Request;

fn request(size: u64, align: u64) -> Request {
    Request { size, align, granule: 1, min: 0, max: u64::MAX }
}

/// Where the request goes among these gaps.
fn fit(gaps: &[(u64, u64)], request: Request) -> Option<u64> {
    let mut memory = nodes(gaps.len());
    let mut spare = chain(&mut memory);
    let mut tree = Tree::new();
    for &(start, end) in gaps {
        let node = piece(&mut spare, start, end);
        tree.insert(node).unwrap();
    }
    tree.check().unwrap();
    tree.lowest_fit(&request).map(|(gap, start)| {
        assert!(start >= gap.key());
        start
    })
}

#[test]
fn the_lowest_gap_that_is_large_enough_is_taken() {
    let gaps = [(10, 12), (20, 24), (30, 40), (50, 54), (60, 90)];
    assert_eq!(fit(&gaps, request(1, 1)), Some(10));
    assert_eq!(fit(&gaps, request(3, 1)), Some(20));
    assert_eq!(fit(&gaps, request(5, 1)), Some(30));
    assert_eq!(fit(&gaps, request(11, 1)), Some(60));
    assert_eq!(fit(&gaps, request(31, 1)), None);
    assert_eq!(fit(&[], request(1, 1)), None);
}

#[test]
fn the_limits_hold_at_both_ends() {
    let gaps = [(10, 20), (30, 40), (50, 60)];
    let limited = |size, min, max| fit(&gaps, Request { size, align: 1, granule: 1, min, max });
    assert_eq!(limited(5, 12, 100), Some(12));
    assert_eq!(limited(5, 15, 100), Some(15));
    assert_eq!(limited(5, 16, 100), Some(30));
    assert_eq!(limited(5, 25, 100), Some(30));
    assert_eq!(limited(5, 36, 100), Some(50));
    assert_eq!(limited(5, 56, 100), None);
    assert_eq!(limited(5, 0, 15), Some(10));
    assert_eq!(limited(5, 0, 14), None);
    assert_eq!(limited(5, 30, 34), None);
    assert_eq!(limited(10, 30, 40), Some(30));
}

// Behaviour 259.
#[test]
fn a_fit_without_room_for_slack_is_found() {
    // The largest gap has the size, but not the size and the slack.
    assert_eq!(fit(&[(0x1000, 0x2000), (0x4000, 0x6000)], request(0x2000, 0x2000)), Some(0x4000));
    assert_eq!(fit(&[(0x1000, 0x3000), (0x5000, 0x7000), (0x8000, 0xa000)], request(0x2000, 0x2000)), Some(0x8000));
    assert_eq!(fit(&[(0x1000, 0x3000), (0x5000, 0x7000)], request(0x2000, 0x2000)), None);
    // Limits that leave exactly the room.
    let exact = Request { size: 0x2000, align: 0x2000, granule: 0x1000, min: 0x4000, max: 0x6000 };
    assert_eq!(fit(&[(0x0, 0x10000)], exact), Some(0x4000));
    assert_eq!(fit(&[(0x0, 0x10000)], Request { min: 0x4001, ..exact }), None);
}

// Behaviour 236: what overflows fits nowhere.
#[test]
fn no_size_or_alignment_wraps() {
    let all = [(0x1000, u64::MAX - 0xfff)];
    for shift in 0..64 {
        let found = fit(&all, request(0x1000, 1 << shift));
        assert_eq!(found, (shift < 64).then_some((0x1000_u64).next_multiple_of(1 << shift)), "2^{shift}");
    }
    assert_eq!(fit(&all, request(u64::MAX, 1)), None);
    assert_eq!(fit(&all, request(u64::MAX, 1 << 63)), None);
    assert_eq!(fit(&all, Request { min: u64::MAX, ..request(1, 1 << 63) }), None);
}
