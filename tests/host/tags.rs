//! Memory tags as numbers: addresses with and without them, which ones may be chosen, what a wrong one means, who had
//! memory.

use quarry::addr::{Tag, TagSet, VirtAddr};
use quarry::hal::tags::TagEvent;
use quarry::mm::tags::{Evidence, OwnerRing, RingEntry, Verdict, for_block, for_object, whole_granules};

const fn tag(number: u64) -> Tag {
    Tag::from_bits(number)
}

fn all() -> impl Iterator<Item = Tag> {
    (0..16).map(Tag::from_bits)
}

// Behaviour 474.
#[test]
fn an_address_is_the_same_byte_whatever_its_tag() {
    for raw in [0xffff_0000_0000_0000, 0xffff_8001_2345_6780, 0xffff_ffff_ffff_fff0, 0x0000_7f12_3456_7890] {
        let plain = VirtAddr::new(raw);
        assert!(plain.is_untagged() && plain.tag() == Tag::MATCH_ALL && plain.untagged() == plain);
        for tag in all() {
            let tagged = plain.with_tag(tag);
            assert_eq!(tagged.tag(), tag);
            assert_eq!(tagged.untagged(), plain);
            assert_eq!(tagged.with_tag(Tag::MATCH_ALL), plain);
            assert!(tagged.same_byte(plain) && !tagged.same_byte(VirtAddr::new(raw ^ 16)));
            assert_eq!(tagged == plain, tag == Tag::MATCH_ALL, "compared as they are, they differ");
            let further = VirtAddr::new(raw + 8).with_tag(Tag::from_bits(u64::from(tag.get()) ^ 1));
            assert_eq!(further.distance_from(tagged), Some(8));
            assert_eq!(tagged.distance_from(further), None);
        }
    }
    // The address of a fault has the tag, and above it anything.
    assert_eq!(VirtAddr::new(0x63ff_0000_0000_0000).tag(), tag(3));
    assert_eq!(VirtAddr::new(0x63ff_0000_0000_0000).untagged(), VirtAddr::new(0xffff_0000_0000_0000));
}

// Behaviours 469, 470: never the tags of free memory and of all, never those of the neighbours, never the one before.
#[test]
fn what_may_be_chosen_is_never_empty_and_never_alike() {
    let nearby = || all().map(Some).chain([None]);
    for index in 0..4 {
        for (left, right) in nearby().flat_map(|left| nearby().map(move |right| (left, right))) {
            for before in nearby() {
                let choices = for_object(index, [left, right], before);
                assert!(choices.len() >= 4, "{index} {left:?} {right:?} {before:?}");
                for chosen in all().filter(|tag| choices.contains(*tag)) {
                    assert!(chosen != Tag::MATCH_ALL && chosen != Tag::FREE);
                    assert!(![left, right, before].contains(&Some(chosen)));
                    assert!(!for_object(index + 1, [None; 2], None).contains(chosen), "neighbours take turns");
                }
            }
            let choices = for_block([left, right]);
            assert!(choices.len() >= 12 && !choices.contains(Tag::MATCH_ALL) && !choices.contains(Tag::FREE));
            assert!([left, right].into_iter().flatten().all(|tag| !choices.contains(tag)));
        }
    }
    assert!(TagSet::OWNERS.len() == 14 && !TagSet::OWNERS.is_empty());
    assert_eq!([1, 15, 16, 17].map(whole_granules), [16, 16, 16, 32]);
}

#[test]
fn the_likeliest_explanation_is_given() {
    let evidence = Evidence { pointer: tag(3), memory: tag(4), behind: None, before: None, freed: false };
    let verdict = |evidence: Evidence| evidence.verdict();
    assert_eq!(verdict(Evidence { memory: tag(3), ..evidence }), Verdict::Fine);
    assert_eq!(verdict(Evidence { pointer: Tag::MATCH_ALL, ..evidence }), Verdict::Fine);
    assert_eq!(verdict(evidence), Verdict::Stale);
    assert_eq!(verdict(Evidence { memory: Tag::FREE, ..evidence }), Verdict::UseAfterFree);
    assert_eq!(verdict(Evidence { freed: true, behind: Some(0), ..evidence }), Verdict::UseAfterFree);
    assert_eq!(verdict(Evidence { behind: Some(8), memory: Tag::FREE, ..evidence }), Verdict::Overflow(8));
    assert_eq!(verdict(Evidence { behind: Some(8), before: Some(100), ..evidence }), Verdict::Overflow(8));
    assert_eq!(verdict(Evidence { behind: Some(300), before: Some(4), ..evidence }), Verdict::Underflow(4));
}

fn ring(places: usize) -> OwnerRing {
    OwnerRing::new(Box::leak((0..places).map(|_| RingEntry::default()).collect()))
}

fn event(raw: u64, tag: Tag, bytes: u64, caller: u64, freed: bool) -> TagEvent {
    let pointer = VirtAddr::new(0xffff_0000_0000_0000 + raw).with_tag(tag);
    TagEvent { pointer, bytes, caller: VirtAddr::new(caller), freed }
}

#[test]
fn the_owner_with_the_pointers_tag_is_found() {
    let ring = ring(64);
    let at = |raw: u64, tag: Tag| VirtAddr::new(0xffff_0000_0000_0000 + raw).with_tag(tag);
    assert_eq!(ring.owner_of(at(64, tag(1)), 100), None);
    ring.add(&event(64, tag(1), 60, 0x10, false));
    ring.add(&event(64, tag(1), 64, 0x11, true));
    ring.add(&event(64, tag(2), 50, 0x12, false));
    ring.add(&event(128, tag(3), 64, 0x13, false));
    let owner = ring.owner_of(at(100, tag(1)), 100).unwrap();
    assert_eq!((owner.bytes, owner.allocated, owner.freed), (60, Some(VirtAddr::new(0x10)), Some(VirtAddr::new(0x11))));
    let owner = ring.owner_of(at(140, tag(2)), 100).unwrap();
    assert_eq!((owner.pointer, owner.allocated, owner.freed), (at(64, tag(2)), Some(VirtAddr::new(0x12)), None));
    assert_eq!(ring.owner_of(at(140, tag(2)), 20), None, "out of reach");
    assert_eq!(ring.owner_of(at(120, tag(3)), 20).unwrap().pointer, at(128, tag(3)), "before it");
    assert_eq!(ring.owner_of(at(100, tag(9)), 100), None, "nobody had that tag");
    // An owner of the byte itself comes before a later owner of memory nearby.
    ring.add(&event(192, tag(1), 64, 0x14, false));
    assert_eq!(ring.owner_of(at(100, tag(1)), 100).unwrap().pointer, at(64, tag(1)));
    // The same memory with the same tag again: its latest life.
    ring.add(&event(64, tag(1), 33, 0x15, false));
    let owner = ring.owner_of(at(70, tag(1)), 100).unwrap();
    assert_eq!((owner.bytes, owner.allocated, owner.freed), (33, Some(VirtAddr::new(0x15)), None));
}

// A block of pages that has become a slab is nobody's as a whole, though its tag may be that of an object.
#[test]
fn a_block_that_was_divided_has_no_owner() {
    let ring = ring(16);
    ring.add(&event(4096, tag(5), 4096, 0x10, false));
    ring.add(&event(4096 + 128, tag(4), 128, 0x11, false));
    ring.add(&event(4096, tag(5), 100, 0x12, false));
    let at = |raw: u64| VirtAddr::new(0xffff_0000_0000_0000 + raw).with_tag(tag(5));
    let owner = ring.owner_of(at(4096 + 112), 512).unwrap();
    assert_eq!((owner.bytes, owner.allocated), (100, Some(VirtAddr::new(0x12))));
    let owner = ring.owner_of(at(4096 + 140), 512).unwrap();
    assert_eq!((owner.bytes, owner.allocated), (100, Some(VirtAddr::new(0x12))));
    // Once it is a block again, it has one.
    ring.add(&event(4096, tag(5), 4096, 0x13, false));
    assert_eq!(ring.owner_of(at(4096 + 140), 512).unwrap().allocated, Some(VirtAddr::new(0x13)));
}

#[test]
fn the_ring_forgets_the_oldest() {
    let small = ring(4);
    for number in 0..6 {
        small.add(&event(64 * number, tag(5), 64, number, false));
    }
    let owner = |number: u64| small.owner_of(event(64 * number, tag(5), 0, 0, false).pointer, 0);
    assert!(owner(0).is_none() && owner(1).is_none() && owner(2).is_some() && owner(5).is_some());
    assert_eq!(small.len(), 4);
    let none = ring(0);
    none.add(&event(0, tag(5), 64, 1, false));
    assert!(none.is_empty() && none.owner_of(VirtAddr::ZERO, u64::MAX).is_none());
}
