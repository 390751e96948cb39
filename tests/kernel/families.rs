//! The examples of the documentation, one for each family, run as they are shown.
#![expect(unreachable_pub, reason = "the examples are modules of a package too")]

use quarry::addr::PhysAddr;
use quarry::global::Error;
use quarry::ktest;

#[path = "../../docs/families/caches.rs"]
mod caches;
#[path = "../../docs/families/devices.rs"]
mod devices;
#[path = "../../docs/families/errors.rs"]
mod errors;
#[path = "../../docs/families/kmalloc.rs"]
mod kmalloc;
#[path = "../../docs/families/kvmalloc.rs"]
mod kvmalloc;
#[path = "../../docs/families/mappings.rs"]
mod mappings;
#[path = "../../docs/families/pages.rs"]
mod pages;
#[path = "../../docs/families/percpu.rs"]
mod percpu;
#[path = "../../docs/families/resources.rs"]
mod resources;
#[path = "../../docs/families/stacks.rs"]
mod stacks;
#[path = "../../docs/families/vmalloc.rs"]
mod vmalloc;

/// The clock of QEMU's board, a PrimeCell that no driver of the kernel has.
const CLOCK: PhysAddr = PhysAddr::new(0x901_0000);

/// An example that needs no device.
type Example = fn() -> Result<(), Error>;

ktest!(each_example_does_what_it_shows);
fn each_example_does_what_it_shows() {
    assert_eq!(devices::example(CLOCK), Ok(()));
    assert_eq!(resources::example(CLOCK), Ok(()));
    let others: [(&str, Example); 8] = [
        ("caches", caches::example),
        ("kmalloc", kmalloc::example),
        ("kvmalloc", kvmalloc::example),
        ("mappings", mappings::example),
        ("pages", pages::example),
        ("percpu", percpu::example),
        ("stacks", stacks::example),
        ("vmalloc", vmalloc::example),
    ];
    for (name, example) in others {
        assert_eq!(example(), Ok(()), "{name}");
    }
    quarry::check_all(&mut |part, sound| assert!(sound.is_ok(), "{part}"));
}

ktest!(a_driver_passes_on_what_any_family_says);
fn a_driver_passes_on_what_any_family_says() {
    let driver = errors::probe(CLOCK).expect("nobody has the clock");
    assert_eq!(driver.registers.read::<u32, 0xfe0>() & 0xff, 0x31);
    assert!(driver.ring.iter().all(|entry| *entry == 0));
    assert!(driver.counts.iter().all(|(_, count)| *count == 0));
    let refused = errors::probe(CLOCK).err().expect("the first driver has it");
    assert!(matches!(refused, Error::IoMem(_)), "{refused:?}");
    let within = core::error::Error::source(&refused).expect("the family's own");
    assert_eq!(alloc::format!("{refused}"), alloc::format!("{within}"));
    drop(driver);
    errors::probe(CLOCK).expect("given back");
}
