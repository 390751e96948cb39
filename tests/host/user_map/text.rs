//! Areas and errors as text.

use super::world::{World, addr, object};
use super::{R, RW, RX, page};
use quarry::mm::user::map::{Backing, MapError, MmapRequest, Place, VmFlags};

#[test]
fn areas_read_as_in_proc() {
    let mut world = World::new();
    world.file(12, page(0), page(2), RX);
    world.map.set_start_brk(addr(page(4)));
    world.map.brk(&world.below, addr(page(5))).unwrap();
    let shared = MmapRequest {
        backing: Backing::Shared(object(3)),
        offset: 0,
        ..MmapRequest::anonymous(4096, RW | VmFlags::SHARED).at(Place::Fixed(addr(page(8))))
    };
    world.mmap(&shared).unwrap();
    world.anonymous(0x7f12_3456_7000, 0x7f12_3456_9000, R);
    let top = 0x7fff_ffff_f000;
    world.mmap(&MmapRequest::anonymous(8192, RW | VmFlags::GROWSDOWN).at(Place::Fixed(addr(top)))).unwrap();
    let lines: Vec<String> = world.areas().map(|area| world.map.maps_line(area, &world.below).to_string()).collect();
    assert_eq!(
        lines,
        [
            "00100000-00102000 r-xp 00100000 fe:01 12                                 /dev/12",
            "00104000-00105000 rw-p 00000000 00:00 0                                  [heap]",
            "00108000-00109000 rw-s 00000000 fe:01 3                                  /dev/3",
            "7f1234567000-7f1234569000 r--p 00000000 00:00 0 ",
            "7ffffffff000-800000001000 rw-p 00000000 00:00 0                          [stack]",
        ]
    );
}

#[test]
fn errors_say_the_rule_and_have_linuxs_numbers() {
    let range = quarry::addr::UserRange::new(addr(page(0)), addr(page(1))).unwrap();
    for (error, errno, text) in [
        (MapError::WriteExec, 13, "W^X"),
        (MapError::Sealed(range), 1, "[0x100000..0x101000) is sealed"),
        (MapError::LockedLimit(4), 11, "more than 4 locked pages"),
        (MapError::Exists(range), 17, "is mapped already"),
        (MapError::NoMemory, 12, "no memory"),
        (MapError::NotOneArea(addr(page(0))), 14, "not inside one area"),
        (MapError::File(19), 19, "error 19"),
    ] {
        assert_eq!(error.errno(), errno, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}
