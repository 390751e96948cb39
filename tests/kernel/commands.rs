//! Commands at the prompt that no other session types: their answers, and those to wrong words. `tests/host/session.rs` sees that
//! nothing is left out.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

extern crate alloc;

use alloc::format;
use quarry::gfp::Gfp;
use quarry::global::{self, KVec};
use quarry::kernel::init::{self, Machine};
use quarry::kernel::prompt;
use quarry::ktest;

fn machine() -> &'static Machine {
    init::machine().expect("tests run after booting")
}

ktest!(
    boot: lists_are_shown_with_their_units,
    machine = "type='layout\\r|ptdump\\r|iomem\\r|memblock\\r|buddyinfo\\r|zoneinfo\\r|meminfo\\r|pagetypeinfo\\r|vmallocinfo\\r|slabinfo kmalloc-64\\r|slabinfo none\\r|errata\\r|quit\\r'",
    report = "quarry> layout\n  0xffff000000000000-0xffff800000000000   128 TiB  linear map\n",
    report = "quarry> ptdump\n",
    report = "linear map",
    report = "kernel image",
    report = "quarry> iomem\n",
    report = "System RAM",
    report = "quarry> memblock\n",
    report = "quarry> buddyinfo\nNode 0, zone ",
    report = "quarry> zoneinfo\nNode 0, zone ",
    report = "quarry> meminfo\nMemTotal:  ",
    report = " kB\n",
    report = "quarry> pagetypeinfo\n",
    report = "quarry> vmallocinfo\n0xffff8",
    report = "quarry> slabinfo kmalloc-64\nkmalloc-64: objects of 64 bytes, 64 with what surrounds each\n",
    report = " allocations and ",
    report = " frees by the fast path\n",
    report = " frees by the slow path\n",
    report = "no cache \"none\"; slabinfo lists them",
    report = "quarry> errata\n",
    report = " instructions that only some cores need have been exchanged\n",
    exit = 0
);

ktest!(
    boot: device_memory_is_mapped_and_wrong_words_are_answered,
    machine = "type='ioremap phys:0x9000000 0x1000 ngnre\\r|iomaps\\r|what 0xfffffffffe004000\\r|what 0xffff80ff00000000\\r|iounmap\\r|iounmap nobody\\r|ioremap\\r|ioremap 0x9000000 0x1000 fast\\r|ioremap 0x9000000 0x1000 gre now\\r|ioregion /chosen 0 wc now\\r|regions\\r|quit\\r'",
    report = "quarry> ioremap phys:0x9000000 0x1000 ngnre\n0xffff8001",
    report = "quarry> iomaps\n",
    report = "[0x9000000..0x9001000) at 0xffff8001",
    report = "[0x9000000..0x9001000) at 0xfffffffffe004000 as DEVICE/nGnRE\n",
    report = "0xfffffffffe004000 is in the region fixmap, of which it is byte 0x",
    report = "the CPU reads 0x9000000 there, attribute 0x04\n",
    report = "where there is no area: it was freed, or never allocated\nnothing is mapped there\nthe CPU cannot read there\n",
    report = "quarry> iounmap\nthe address that ioremap printed, such as",
    report = "nobody: no symbol has the name",
    report = "quarry> ioremap\nioremap PHYS SIZE [ngnrne|ngnre|ngre|gre|wc|wt|wb|wbt], such as ioremap 0x9000000 0x1000\n",
    report = "fast\nioremap PHYS SIZE [ngnrne|",
    report = "gre now\nioremap PHYS SIZE [ngnrne|",
    report = "quarry> ioregion /chosen 0 wc now\nioregion NODE [INDEX] [ngnrne|",
    report = "quarry> regions\nquarry> quit\n",
    exit = 0
);

ktest!(
    device_memory_is_read_and_unmapped_by_its_address,
    report = " as DEVICE/nGnRE\n",
    report = "in vmalloc area 0x",
    report = "the CPU reads 0x9000fe0 there, attribute 0x04\n",
    report = ": 0x00000011\n",
    report = "unmapped\n",
    report = " is in no area\n",
    report = " cannot be read\n",
    report = "the CPU cannot read there\n"
);
fn device_memory_is_read_and_unmapped_by_its_address() {
    let machine = machine();
    prompt::execute(machine, "ioremap pfn:0x9000 0x1000");
    prompt::execute(machine, "iomaps");
    let mut ours = global::io_space().iter().filter(|mapping| mapping.phys.start().get() == 0x900_0000);
    let at = ours.find(|mapping| global::is_vmalloc_addr(mapping.virt)).expect("it is mapped").virt;
    for command in ["what", "readl"] {
        prompt::execute(machine, &format!("{command} {:#x}", at.get() + 0xfe0));
    }
    for command in ["iounmap", "iounmap", "readl", "what"] {
        prompt::execute(machine, &format!("{command} {at}"));
    }
}

ktest!(
    boot: dma_is_shown_and_measured,
    machine = "smp=2 type='dma\\r|dma 1 16\\r|dma 9 1\\r|dma 1 0\\r|dma 1\\r|dma 1 1 1\\r|quit\\r'",
    timeout = 60,
    report = "quarry> dma\nbounce slots: ",
    report = " in use, at most ",
    report = "uncached: ",
    report = "ToDevice: ",
    report = " buffers: map ",
    report = " ns (standard deviation ",
    report = "Bidirectional: ",
    report = "quarry> dma 9 1\n",
    report = "quarry> dma 1 0\n",
    report = "quarry> dma 1\ndma CPUS PAGES: two numbers, such as dma 1 16\n",
    report = "quarry> dma 1 1 1\ndma CPUS PAGES: two numbers, such as dma 1 16\n",
    exit = 0
);

ktest!(
    boot: wrong_words_about_processes_are_answered,
    machine = "type='exec hello a b c d e f g h i j k l m n o p\\r|maps\\r|maps x\\r|maps 7\\r|kill\\r|kill 7\\r|top more\\r|record 0\\r|record x\\r|quit\\r'",
    report = "at most 15 words behind the program's name\n",
    report = "quarry> maps\nthe number of a process, such as `ps` shows it\n",
    report = "quarry> maps x\nthe number of a process, such as `ps` shows it\n",
    report = "quarry> maps 7\nno process has the number 7\n",
    report = "quarry> kill\nthe number of a process, such as `ps` shows it\n",
    report = "quarry> kill 7\nno process has the number 7\n",
    report = "quarry> top more\ntop, or top once\n",
    report = "quarry> record 0\na number of rounds, 1 to 1000\n",
    report = "quarry> record x\na number of rounds, 1 to 1000\n",
    exit = 0
);

// As many processes as there can be, and one more.
ktest!(
    boot: the_table_of_processes_is_full_at_the_prompt,
    machine = "append='lines=24' type='exec spin &;exec spin &;exec spin &;exec spin &;exec spin &;exec spin &;exec spin &;exec spin &\\r|\\x1b[A\\r|\\x1b[A\\r|\\x1b[A\\r|\\x1b[A\\r|\\x1b[A\\r|\\x1b[A\\r|\\x1b[A\\r|exec spin &\\r|ps\\r| |q|quit\\r'",
    timeout = 120,
    report = "spin is process 64\n",
    report = "spin: there are as many processes as there can be\n",
    report = "quarry> ps\n  PID",
    report = "\n-- more --             23     0       1 R ",
    report = "\n   45     0       1 R ",
    report = " spin\n-- more --          quarry> quit\n",
    exit = 0
);

ktest!(
    boot: as_many_allocations_are_kept_as_there_are_places,
    machine = "type='kmalloc 8;kmalloc 8;kmalloc 8;kmalloc 8;kmalloc 8;kmalloc 8;kmalloc 8;kmalloc 8\\r|\\x10\\r|\\x10\\r|\\x10\\r|\\x10\\r|\\x10\\r|\\x10\\r|\\x10\\r|kmalloc 8\\r|free 3\\r|kmalloc 8\\r|quit\\r'",
    report = "64: 0xffff0000",
    report = "quarry> kmalloc 8\n64 allocations are kept already, so this one was freed again; free one first\n",
    report = "freed 3: kmalloc of 8 bytes at 0xffff0000",
    report = "66: 0xffff0000",
    report = "left at quit, and freed: 66: kmalloc of 8 bytes at ",
    exit = 0
);

// Without memory each command says so, and the prompt goes on.
ktest!(
    boot: commands_without_memory_say_so,
    machine = "type='faults failslab 1,100,0,-1,ignore-gfp-wait=0\\r|bench kmalloc\\r|fault double-free\\r|map vmalloc\\r|kmalloc 64\\r|exec hello\\r|faults failslab off\\r|check\\r|quit\\r'",
    report = "no memory for an object of 64 bytes, allocated and freed\n",
    report = "double-free: no memory to misuse\n",
    report = "no memory for the picture\n",
    report = "hello: no memory\n",
    report = "sum of all RAM: ok\n",
    exit = 0
);

ktest!(
    boot: a_cpu_without_counters_counts_no_instructions,
    machine = "type='bench page\\r|quit\\r'",
    timeout = 60,
    report = "a page, allocated and freed: 10000 pairs a round, 40 rounds\n  time of a pair by the counter of ",
    report = " Hz, calls of this loop included:\n",
    report = "  this CPU does not count instructions\n",
    report = "  a virtual machine: where QEMU emulates the CPU, these are the emulator's times\n",
    exit = 0
);

// Keys as terminals send them: arrows, Home and End of three kinds, and the Ctrl keys beside them.
ktest!(
    boot: the_cursor_goes_by_arrows_home_and_end,
    machine = "type='pu\\x1b[D\\x1b[Dc\\x1b[C\\x1b[C\\r|\\x1b[A\\x1b[Hx\\x7f\\x1b[F\\x1b[D\\x1b[3~u\\r|pu\\x02\\x02c\\x06\\x06\\r|cp\\x1bOD\\x1bOD\\x1b[4~u\\x1b[1~\\x1bOF\\r|pu\\x1b[1~c\\x1b[8~\\r|x\\x1b[B\\x7fquit\\r'",
    report = "quarry> pu\x08\x08cpu\x08\x08pu\nCortex-A72",
    report = "quarry> cpu\x08\x08\x08xcpu\x08\x08\x08\x08cpu \x08\x08\x08\x08cpu\x08 \x08u\nCortex-A72",
    report = "quarry> pu\x08\x08cpu\x08\x08pu\nCortex-A72",
    report = "Cortex-A72",
    report = "Cortex-A72",
    report = "quarry> x\x07\x08 \x08quit\n",
    exit = 0
);

// More text than waits for the reader, while nobody reads: the line that lost some is not run.
ktest!(
    boot: a_line_of_which_characters_were_lost_is_not_run,
    machine = "type='stress 1\\rquit\\r\\m|{idle}|quit\\r'",
    timeout = 60,
    report = " operations on 1 CPUs in ",
    report = "quarry> quit\nnot run: ",
    report = " characters came faster than they were read, and are lost\nquarry> ",
    exit = 0
);

ktest!(
    a_long_list_of_slabs_is_cut,
    report = "cache kmalloc-4k, objects of 4096 bytes\n",
    report = "\nand ",
    report = " slabs more\n",
    report = " pages)\nobjects: # ",
    report = " cached by CPUs, . "
);
fn a_long_list_of_slabs_is_cut() {
    let mut held: KVec<KVec<u8>> = KVec::with_capacity(400, Gfp::KERNEL).expect("memory");
    for _ in 0..400 {
        held.push(KVec::with_capacity(4096, Gfp::KERNEL).expect("memory"), Gfp::KERNEL).expect("memory");
    }
    prompt::execute(machine(), "map slab kmalloc-4k");
}
