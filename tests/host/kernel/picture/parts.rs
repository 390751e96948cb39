//! Bars, and the largest of many.

use proptest::prelude::*;
use quarry::kernel::picture::{Bar, Largest, Style};

#[test]
fn a_bar_is_in_proportion_and_never_empty_for_something() {
    let bar = |part, whole| Bar { part, whole, width: 8, style: Style::Plain }.to_string();
    assert_eq!(bar(8, 8), "########");
    assert_eq!(bar(4, 8), "####    ");
    assert_eq!(bar(1, 1 << 40), "#       ");
    assert_eq!((bar(0, 8), bar(0, 0)), (" ".repeat(8), " ".repeat(8)));
    assert_eq!((bar(u64::MAX, u64::MAX), bar(9, 8)), ("#".repeat(8), "#".repeat(8)));
    assert_eq!(Bar { part: 1, whole: 2, width: 2, style: Style::Colour }.to_string(), "█ ");
}

proptest! {
    #[test]
    fn the_largest_are_those_that_sorting_finds(amounts in prop::collection::vec(0_u64..50, 0..40)) {
        let mut largest: Largest<usize, 5> = Largest::default();
        amounts.iter().enumerate().for_each(|(place, amount)| largest.add(*amount, place));
        let mut sorted: Vec<(u64, usize)> = amounts.iter().enumerate().map(|(place, amount)| (*amount, place)).collect();
        sorted.sort_by_key(|(amount, place)| (core::cmp::Reverse(*amount), *place));
        sorted.truncate(5);
        prop_assert_eq!(largest.iter().collect::<Vec<_>>(), sorted);
        prop_assert_eq!((largest.count(), largest.sum()), (amounts.len(), amounts.iter().sum()));
    }
}
