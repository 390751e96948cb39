//! Text of a report, line by line.

use super::*;
use quarry::mm::slab::{CacheSpec, SlabFlags};

#[test]
fn a_report_of_an_overwritten_byte_is_linuxs() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&CacheSpec { flags: SlabFlags::DEBUG, ..spec("victim", 20) }).unwrap();
        machine::call_from(0xffff_8000_0000_1000, 50);
        let object = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
        machine::call_from(0xffff_8000_0000_2000, 60);
        give(slabs, cache.cache(), [object]);
        machine::call_from(0xffff_8000_0000_3000, 75);
        let object = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
        fill(object, b'q', 22);
        machine::call_from(0xffff_8000_0000_4000, 80);
        slabs.validate(cache.cache());
        let slot = VirtAddr::new(object.get() - 8);
        // 8 red, 20 object rounded up to 24, 8 red; link, mark, bytes asked for; two records of three words.
        let size = u64::from(cache.cache().size());
        assert_eq!(size, 8 + 24 + 8 + 24 + 48);
        let info = slabs.info(cache.cache());
        let (objects, pages) = (info.objects, slabs.info(cache.cache()).pages);
        let slab = slot.align_down(4096 * pages);
        let at = object.get() - slab.get();
        let lines = slabs.hal().lines();
        let expected = [
            "=============================================================================".to_owned(),
            "BUG victim: Right Redzone overwritten".to_owned(),
            "-----------------------------------------------------------------------------".to_owned(),
            format!(
                "{}-{} @offset={}. First byte 0x71 instead of 0xcc",
                offset(object, 20),
                offset(object, 22),
                at + 20
            ),
            "Called from 0xffff800000004000".to_owned(),
            "Allocated in 0xffff800000003000 age=5 cpu=0".to_owned(),
            "Freed in 0xffff800000002000 age=20 cpu=0".to_owned(),
        ];
        assert_eq!(lines[..7], expected, "{lines:#?}");
        assert!(lines[7].starts_with(&format!("Slab {slab} objects={objects} used=1 fp=0x")), "{}", lines[7]);
        assert!(lines[7].ends_with(&format!(" pages={pages}")), "{}", lines[7]);
        assert!(lines[8].starts_with(&format!("Object {object} @offset={at} fp=")), "{}", lines[8]);
        let rest: Vec<_> = lines[9..].iter().filter(|line| !line.starts_with("Bytes b4")).collect();
        let row = |what: &str, at: VirtAddr, hex: &str, text: &str| format!("{what:<8} {at}: {hex:<48} {text}");
        let expected = [
            row("Redzone", slot, "cc cc cc cc cc cc cc cc ", "........"),
            row("Object", object, &"71 ".repeat(16), &"q".repeat(16)),
            row("Object", offset(object, 16), &"71 ".repeat(4), "qqqq"),
            row("Redzone", offset(object, 20), "71 71 cc cc cc cc cc cc cc cc cc cc ", "qq.........."),
            format!("FIX victim: Restoring Right Redzone {}-{}=0xcc", offset(object, 20), offset(object, 22)),
        ];
        assert_eq!(rest.iter().map(|line| line.as_str()).collect::<Vec<_>>(), expected);
        give(slabs, cache.cache(), [object]);
        slabs.destroy(cache).unwrap();
    });
}

#[test]
fn a_report_names_the_object_and_both_users_of_a_double_free() {
    Spec::of_size(16 << 20).run(|slabs| {
        let cache = slabs.create(&CacheSpec { flags: SlabFlags::STORE_USER, ..spec("test", 64) }).unwrap();
        machine::call_from(0xa000, 1);
        let object = slabs.alloc_object(cache.cache(), KERNEL).unwrap();
        machine::run_on(0);
        machine::call_from(0xb000, 2);
        give(slabs, cache.cache(), [object]);
        machine::call_from(0xc000, 4);
        assert_eq!(raw!(slabs.free_bulk(cache.cache(), &[object])), 1);
        let lines = slabs.hal().lines();
        assert_eq!(lines[1], format!("BUG test: double free of {object}"));
        assert_eq!(
            lines[3..6],
            ["Called from 0xc000", "Allocated in 0xa000 age=3 cpu=0", "Freed in 0xb000 age=2 cpu=0"]
        );
        slabs.destroy(cache).unwrap();
    });
}

#[test]
fn a_report_about_no_object_is_short() {
    Spec::of_size(16 << 20).run(|slabs| {
        machine::call_from(0xd000, 0);
        let outside = slabs.hal().outside();
        let misuse = raw!(slabs.kfree(outside)).unwrap_err();
        slabs.report(&misuse);
        let lines = slabs.hal().lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[1], format!("BUG slab: invalid free: {outside} is no address of the linear map"));
        assert_eq!(lines[3], "Called from 0xd000");
    });
}
