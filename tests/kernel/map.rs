//! Pictures of memory at the prompt: RAM, slabs, areas, the largest owners, and pages of long listings.

use quarry::ktest;

// A terminal that is not named gets ASCII, and the sum is the machine's RAM. The runner adds up every picture in letters, and compares
// the legend with `memmap` (`tools/run/pictures.rs`).
ktest!(
    boot: the_map_adds_up_to_ram_in_ascii,
    machine = "type='map\\r|memmap\\r|map plain 0x40200000 0x40300000\\r|map plain pfn:0x4fd00 phys:0x50000000\\r|map 1 0\\r|map nowhere\\r|quit\\r'",
    report = "quarry> map\nzone DMA 0x000040000000-0x000050000000 262144 KiB\n0x000040000000 ",
    report = ".  free, order 10 ",
    report = "K  kernel image ",
    report = "sum 262144 KiB of RAM, a cell 512 KiB\nquarry> memmap\n",
    report = "zone DMA 0x000040200000-0x000040300000 1024 KiB\n0x000040200000 K",
    report = "sum 1024 KiB of RAM in that range, a cell 4 KiB\n",
    report = "quarry> map 1 0\nmap [live] [plain] [START END], ",
    report = "quarry> map nowhere\nmap [live] [plain] [START END], ",
    exit = 0
);

// Colours and half-blocks where the terminal has them.
ktest!(
    boot: the_map_has_colours_where_the_terminal_has_them,
    machine = "append='term=xterm' type='map\\r|map plain\\r|map slab kmalloc-64\\r|quit\\r'",
    report = "0x000040000000 \x1b[38;5;",
    report = "▀",
    report = "\x1b[0m\n",
    report = "██\x1b[0m free, order 10 ",
    report = "sum 262144 KiB of RAM, a cell 256 KiB\n",
    report = "map plain\nzone DMA",
    report = ".  free, order 10 ",
    report = "\x1b[38;5;220m■",
    exit = 0
);
ktest!(
    boot: no_color_is_heard,
    machine = "append='term=xterm no_color' type='map\\r|quit\\r'",
    report = ".  free, order 10 ",
    exit = 0
);

// Reserved memory, memory that may not be mapped, a contiguous area, and RAM above `mem=`.
ktest!(
    boot: the_map_has_every_kind_of_memory,
    machine = "append='cma=16M mem=200M' type='map\\r|quit\\r'",
    report = ":  contiguous area, free ",
    report = "S  slab ",
    report = "T  page tables ",
    report = "B  boot ",
    report = "R  reserved ",
    report = "O  left out ",
    report = "sum 262144 KiB of RAM",
    exit = 0
);

// Each second a picture, and the machine sleeps in between; the key is for no command.
ktest!(
    boot: a_live_map_is_drawn_each_second_until_a_key_comes,
    machine = "type='map live\\r|{idle}|{idle}|q|quit\\r'",
    timeout = 60,
    report = "sum 262144 KiB of RAM",
    report = "second 0; a key ends it \nzone DMA",
    report = "second 1; a key ends it ",
    report = "\nquarry> quit\n",
    exit = 0
);
ktest!(
    boot: a_live_map_is_drawn_in_its_place_where_the_terminal_can,
    machine = "append='term=xterm' type='map live\\r|q|quit\\r'",
    timeout = 60,
    report = "\x1b[2J\x1b[?25l\x1b[Hzone DMA",
    report = "\x1b[K\n\x1b[Jsecond 0; a key ends it \x1b[?25h\nquarry> ",
    exit = 0
);

ktest!(
    boot: a_caches_slabs_and_objects_are_shown,
    machine = "type='map slab kmalloc-64\\r|map slab nonsense\\r|quit\\r'",
    report = "cache kmalloc-64, objects of 64 bytes\n",
    report = " KiB: ",
    report = " in use, ",
    report = " cached, ",
    report = "\n  ",
    report = "#",
    report = " slabs (",
    report = "no cache \"nonsense\"; slabinfo lists them",
    exit = 0
);

ktest!(
    boot: areas_and_gaps_are_shown_in_proportion_and_as_a_list,
    machine = "type='map vmalloc\\r|quit\\r'",
    report = "areas 0xffff8001",
    report = " KiB\n+0x0000000000 ",
    report = "I  ioremap ",
    report = "G  guard pages ",
    report = " areas, a cell ",
    report = "0xffff8001",
    report = " ioremap ports.rs:",
    exit = 0
);

ktest!(
    boot: top_shows_the_largest_owners_each_second,
    machine = "smp=2 type='exec spin &\\r|top\\r|q|kill 1\\r|top once\\r|quit\\r'",
    timeout = 60,
    report = " KiB in use, ",
    report = "CACHES ",
    report = "AREAS ",
    report = "ADDRESS SPACES     1 ",
    report = " 1 spin\n",
    report = "second 0; a key ends it ",
    report = "ADDRESS SPACES     0 ",
    report = "quarry> quit\n",
    exit = 0
);

// Blank shows a page, Return a line, q ends it; keys that wait are for the next command, and nothing asks.
ktest!(
    boot: long_listings_wait_for_a_key,
    machine = "append='lines=10' type='slabinfo\\r| |\\r|q|slabinfo\\rcpu\\r|quit\\r'",
    report = "slabinfo - version",
    report = "-- more --          ",
    report = "-- more --          ",
    report = "-- more --          quarry> slabinfo\n",
    report = "kmalloc-8k",
    report = "quarry> cpu\n",
    exit = 0
);

ktest!(
    boot: every_listing_waits_for_a_key,
    machine = "append='lines=4' type='help\\r|q|ptdump\\r|q|layout\\r|q|memmap\\r|q|iomem\\r|q|memblock\\r|q|locks\\r|q|fault\\r|q|bench\\r|q|iomaps\\r|q|exec\\r|q|faults\\r|q|map vmalloc\\r|q|top once\\r|\\x03|quit\\r'",
    timeout = 40,
    report = "quarry> help\n  help ",
    report = "-- more --          quarry> ptdump\n",
    report = "-- more --          quarry> layout\n",
    report = "-- more --          quarry> memmap\n",
    report = "-- more --          quarry> iomem\n",
    report = "-- more --          quarry> memblock\n",
    report = "-- more --          quarry> locks\n",
    report = "-- more --          quarry> fault\n",
    report = "-- more --          quarry> bench\n",
    report = "-- more --          quarry> iomaps\n",
    report = "-- more --          quarry> exec\n",
    report = "-- more --          quarry> faults\n",
    report = "-- more --          quarry> map vmalloc\n",
    report = "-- more --          quarry> top once\n",
    report = "-- more --          quarry> quit\n",
    exit = 0
);

// A line that is wider than the terminal takes several of its lines: a page of four is one line of 61 characters.
ktest!(
    boot: wide_lines_count_as_many,
    machine = "append='lines=5 columns=20' type='layout\\r|\\r|q|quit\\r'",
    report = "quarry> layout\n  0xffff000000000000-0xffff800000000000   128 TiB  linear map\n-- more --          ",
    report = "-- more --          quarry> quit\n",
    exit = 0
);

// The map while every CPU allocates and frees.
ktest!(
    boot: the_map_is_live_during_stress,
    machine = "smp=2 type='stress 3 map\\r|quit\\r'",
    timeout = 90,
    report = "sum 262144 KiB of RAM",
    report = "second 0; a key ends the stress \nzone DMA",
    report = "sum 262144 KiB of RAM",
    report = " operations on 2 CPUs in ",
    report = "every invariant holds\nquarry> quit\n",
    exit = 0
);
