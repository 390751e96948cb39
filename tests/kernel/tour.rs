//! The tour of a machine at which nobody sits.

use quarry::ktest;

ktest!(
    boot: each_subsystem_does_something_visible_and_the_machine_leaves,
    machine = "smp=4 mem=1G append=quarry.tour",
    timeout = 60,
    report = "The tour: ",
    report = "memblock ",
    report = "buddy    order 6 from zone ",
    report = "slab     1000 objects of 100 bytes, each 128 bytes of cache kmalloc-128",
    report = "vmalloc  1024 KiB at 0xffff8",
    report = "131072 words written and read back, sum 8589869056\n",
    report = "cannot be read: the MMU refuses",
    report = "freed: lookups no longer find it",
    report = "per-CPU  ",
    report = "mempool  ",
    report = "its words add up to 32\n",
    report = "ioremap  ",
    report = "part 0x011\n",
    report = "DMA      4096 bytes at ",
    report = "tags     ",
    report = "user     hello runs at EL0",
    report = "hello from process 1\n",
    report = "hello: exit status 3",
    report = "check    every invariant of 13 parts holds; the owners of RAM add up to ",
    exit = 0
);

// One CPU, memory tags, and the devices of a Raspberry Pi: the same tour.
ktest!(
    boot: one_cpu_is_enough_for_the_tour,
    machine = "append=quarry.tour",
    timeout = 60,
    report = "per-CPU  1 CPUs added ",
    report = "check    every invariant of 13 parts holds; the owners of RAM add up to 262144 KiB\n",
    exit = 0
);
ktest!(
    boot: the_tour_goes_round_with_memory_tags,
    machine = "cpu=max mte smp=2 append='quarry.tour kasan=on'",
    timeout = 60,
    report = "freed: lookups no longer find it",
    report = "tags     on: ",
    report = "check    every invariant of 13 parts holds",
    exit = 0
);
ktest!(
    boot: the_tour_goes_round_a_raspberry_pi,
    machine = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz append=quarry.tour",
    timeout = 60,
    report = "part 0x011\n",
    report = "check    every invariant of 13 parts holds",
    exit = 0
);
