//! A person at the prompt: what is typed, key by key, and what comes of it.

use quarry::ktest;

ktest!(
    boot: a_command_is_run_and_the_machine_is_left,
    machine = "type='cpu\\r|quit\\r'",
    report = "quarry> cpu\nCortex-A72",
    report = "quarry> quit\n",
    exit = 0
);

// The prompt sleeps until a key comes: on both kinds of port, with a reader on each.
ktest!(
    boot: an_idle_prompt_leaves_the_host_alone,
    machine = "type='{idle}|help\\r|{idle}|quit\\r'",
    report = "quarry> help\n  help ",
    exit = 0
);
ktest!(
    boot: an_idle_prompt_on_four_cpus_with_gicv3_leaves_the_host_alone,
    machine = "smp=4 gic=3 type='{idle}|quit\\r'",
    exit = 0
);
ktest!(
    boot: the_mini_uart_interrupts_too,
    machine = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz type='cpu\\r|quit\\r'",
    timeout = 40,
    report = "quarry> cpu\nCortex-A72",
    report = "quarry> quit\n"
);

// A line that is cut off is another line.
ktest!(
    boot: a_line_that_is_too_long_is_not_run,
    machine = "type='quit                                                                                                                                     x\\r|quit\\r'",
    report = "not run: the line is 10 characters longer than the 128 that a line can have",
    report = "quarry> quit\n",
    exit = 0
);

ktest!(
    boot: keys_edit_the_line_or_do_nothing,
    machine = "type='quit\\x1b[A\\x1b[5~\\x1bOP\\x1bx\\x7f\\x7f\\x08\\x08\\x7fcpu\\r|nonsense\\x15cpu\\r|cpu nonsense  \\x17\\x7f\\r|quit nonsense\\x03|quit\\r'",
    report = "quarry> quit\x07\x08 \x08\x08 \x08\x08 \x08\x08 \x08cpu\nCortex-A72",
    report = "cpu\nCortex-A72",
    report = "Cortex-A72",
    report = "quit nonsense^C\nquarry> quit\n",
    exit = 0
);

ktest!(
    boot: a_tab_completes_a_word_and_a_line_with_other_letters_is_not_run,
    machine = "type='peek\\t0\\r|quité\\r|\\r\\n|quit\\r'",
    report = "quarry> peek 0\n0x0 cannot be read",
    report = "not run: commands are ASCII",
    report = "quarry> \nquarry> quit\n",
    exit = 0
);

ktest!(
    boot: what_is_pasted_at_once_is_run_line_by_line,
    machine = "type='peek 1\\rpeek 2\\r\\npeek 3\\nquit\\r'",
    report = "quarry> peek 1\n",
    report = "quarry> peek 2\n",
    report = "quarry> peek 3\n",
    report = "quarry> quit\n",
    exit = 0
);

ktest!(
    boot: wrong_words_are_answered,
    machine = "type='page 0x40200000\\r|iounmap 0x0\\r|faults nowhere off\\r|faults failslab x\\r|ioregion /\\r|quit\\r'",
    report = "0x40200000 taken for a physical address: RAM has no frame of that number",
    report = "kernel: text",
    report = "nothing is mapped at address zero",
    report = "no site \"nowhere\"; there are",
    report = "nothing has changed\nquarry> ioregion /\n",
    report = "/ has no memory-region",
    exit = 0
);

ktest!(
    boot: programs_are_started_shown_and_killed,
    machine = "smp=2 type='exec hello from here\\r|exec spin &\\r|ps\\r|maps 2\\r|kill 2;ps\\r|maps 2\\r|exec nothing\\r|exec\\r|check\\r|quit\\r'",
    timeout = 40,
    report = "hello from process 1\n",
    report = "argument 2: here\n",
    report = "hello: exit status 3\n",
    report = "spin is process 2\n",
    report = "    2     0       1 R ",
    report = " spin\n",
    report = "00200000-00201000 r--p 00000000 00:00 0 \n",
    report = " r-xp 00000000 00:00 0 \n",
    report = " rw-p 00000000 00:00 0                          [stack]\n",
    report = "TABLES COMMAND\nquarry> ",
    report = "no process has the number 2",
    report = "nothing: there is no such program",
    report = "programs of this image:",
    report = "processes: ok",
    exit = 0
);

ktest!(
    boot: ctrl_c_ends_a_program,
    machine = "type='exec spin\\r\\x03|ps\\r|quit\\r'",
    timeout = 40,
    report = "spin: killed by SIGKILL\n",
    exit = 0
);

ktest!(
    boot: keys_move_the_cursor_and_delete_on_both_sides_of_it,
    machine = "type='xcp\\x01\\x1b[3~\\x05u\\r|peek 0 0\\x02\\x02\\x0b\\r|cpu\\x0c\\r|x\\x7f\\x04'",
    report = "quarry> xcp\x08\x08\x08cp \x08\x08\x08cpu\nCortex-A72",
    report = "0x0 cannot be read",
    report = "quarry> cpu\nquarry> cpu\nCortex-A72",
    report = "quarry> x\x08 \x08quit\n",
    exit = 0
);

ktest!(
    boot: earlier_lines_come_back,
    machine = "type='peek 1\\r|peek 2\\r|\\x1b[A\\x1b[A\\x1b[B\\x1b[A\\r|\\x10\\x10\\r|new\\x10\\x0e\\x7f\\x7f\\x7fquit\\r'",
    report = "peek 1\n0x1 cannot be read",
    report = "peek 2\n0x2 cannot be read",
    report = "quarry> peek 2\x081\x082\x081\n0x1 cannot be read",
    report = "0x2 cannot be read",
    exit = 0
);

ktest!(
    boot: names_of_commands_and_their_words_complete,
    machine = "type='slabi\\tkmalloc-19\\t\\r|help zon\\t\\r|bench kmalloc-\\t\\r|fault double-f\\t\\r|peek exception_v\\t\\r|xyz\\t\\x15quit\\r'",
    timeout = 40,
    report = "quarry> slabinfo kmalloc-192 \nkmalloc-192: objects of 192 bytes",
    report = "quarry> help zoneinfo \nzoneinfo: all about every zone",
    report = "quarry> bench kmalloc-large \n",
    report = "an object of 32 KiB, allocated and freed: ",
    report = "quarry> fault double-free \n",
    report = "quarry> peek exception_vectors",
    report = "quarry> xyz\x07",
    exit = 0
);

ktest!(
    boot: words_that_begin_alike_are_listed,
    machine = "type='pag\\t\\t pfn:0x40200\\r|quit\\r'",
    report = "quarry> page\npage  pagetypeinfo\nquarry> page pfn:0x40200\npfn 0x40200 at 0x",
    exit = 0
);

ktest!(
    boot: devices_with_memory_of_their_own_complete,
    machine = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-owners.dtb type='ioregion /d\\t\\x15quit\\r'",
    report = "quarry> ioregion /dsp",
    exit = 0
);

ktest!(
    boot: pasted_text_waits_for_enter,
    machine = "append=term=xterm type='\\x1b[200~peek 1\\rpeek 2\\r\\n\\x1b[201~peek 3\\r|quit\\r'",
    report = "\x1b[?2004hquarry> peek 1; peek 2; peek 3\n0x1 cannot be read",
    report = "0x2 cannot be read",
    report = "0x3 cannot be read",
    report = "quarry> quit\n\x1b[?2004l",
    exit = 0
);

ktest!(
    boot: ctrl_l_clears_a_screen_that_knows_how,
    machine = "append=term=xterm type='cpu\\x0c\\r|quit\\r'",
    report = "quarry> cpu\x1b[H\x1b[2Jquarry> cpu\nCortex-A72",
    exit = 0
);

ktest!(
    boot: a_dumb_terminal_gets_no_escape_sequence,
    machine = "append=term=dumb type='quit\\r'",
    report = "Type help for a list of commands.\nquarry> quit\n",
    exit = 0
);

ktest!(
    boot: a_command_explains_itself_and_a_wrong_one_is_answered,
    machine = "type='help page\\r|help quit\\r|help nothing\\r|pagge\\r|quit\\r'",
    report = "page ADDR: the use of a frame",
    report = "for example: page pfn:0x40200",
    report = "quit: frees memory",
    report = "no command \"nothing\"; help alone lists all",
    report = "no command \"pagge\"; try help\n  there is page: the use of a frame",
    report = "  there is pagetypeinfo: free blocks",
    exit = 0
);

ktest!(
    boot: addresses_are_virtual_physical_frames_or_symbols,
    machine = "type='peek phys:0x40200000\\r|peek pfn:0x40200\\r|what exception_vectors+0x80\\r|page exception_vectors\\r|page phys:0x40200000\\r|peek nobody\\r|peek 0xzz\\r|peek pfn:x\\r|page all the\\r|readl 0x3\\r|quit\\r'",
    report = "0xffff000040200000: 0x",
    report = "0xffff000040200000: 0x",
    report = " is in the kernel's text",
    report = "pfn 0x",
    report = "kernel: text",
    report = "pfn 0x40200 at 0x",
    report = "nobody: no symbol has the name; an address is 0x…, phys:0x…, pfn:N or a symbol, such as 0x",
    report = "quarry> peek 0xzz\nan address is 0x…",
    report = "quarry> peek pfn:x\nan address is 0x…",
    report = "quarry> page all the\nan address or a frame number, such as",
    report = "0x3 is not a multiple of 4",
    exit = 0
);

ktest!(
    boot: memory_is_kept_until_it_is_freed_or_the_person_leaves,
    machine = "type='kmalloc 100 KERNEL\\x7cZERO\\r|vmalloc 5000\\r|alloc 2 gfp_kernel\\r|free\\r|free 1\\r|free 1\\r|free 0\\r|quit\\r'",
    report = "1: 0xffff0000",
    report = "of the cache kmalloc-128 of 128 bytes, in use, byte 0 of it",
    report = "2: 0xffff",
    report = "in vmalloc area 0x",
    report = "3: 0xffff0000",
    report = "block of 4 pages from",
    report = "quarry> free\n1: 0x",
    report = "\n2: 0x",
    report = "\n3: 0x",
    report = "freed 1: kmalloc of 100 bytes at 0xffff0000",
    report = "nothing is kept under 1; free alone lists what is",
    report = "nothing is kept under 0",
    report = "left at quit, and freed: 2: vmalloc of 5000 bytes at 0x",
    report = "left at quit, and freed: 3: order 2, 16 KiB at 0x",
    exit = 0
);

ktest!(
    boot: allocations_that_cannot_be_say_why,
    machine = "type='kmalloc\\r|kmalloc lots\\r|kmalloc 64 BANANA\\r|kmalloc 64 ATOMIC\\x7cNOFAIL\\r|kmalloc 0\\r|kmalloc 0xffffffffffff\\r|vmalloc 0x10000000000\\r|alloc 11\\r|alloc\\r|free\\r|free nobody\\r|free all\\r|quit\\r'",
    report = "a number of bytes, then allocation flags, such as kmalloc 100",
    report = "quarry> kmalloc lots\na number of bytes",
    report = "\"BANANA\" is no allocation flag; flags are such as KERNEL",
    report = "NOFAIL",
    report = "an allocation of no bytes has no memory",
    report = "quarry> vmalloc 0x10000000000\n",
    report = "an order from 0 to 10: 4 KiB to 4 MiB",
    report = "an order, then allocation flags, such as alloc 3",
    report = "nothing is kept; kmalloc, vmalloc and alloc allocate",
    report = "nobody: no symbol has the name",
    exit = 0
);

ktest!(
    boot: a_word_is_written_after_a_question_and_never_where_that_faults,
    machine = "type='alloc 0 ZERO\\x7cKERNEL\\r|poke phys:0x4c000000 0x1234\\rn|poke phys:0x4c000000 0x1234\\ry|peek phys:0x4c000000\\r|poke exception_vectors 1\\r|poke 0x123000 1\\r|poke 0xffff00004c000003 1\\r|poke phys:0x4c000000\\r|poke phys:0x4c000000 much\\r|quit\\r'",
    report = "0xffff00004c000000 is in the linear map, of physical address 0x4c000000",
    report = "write 0x0000000000001234 over 0x",
    report = "[y/N] n\nnothing is written",
    report = "[y/N] y\n0xffff00004c000000: 0x0000000000001234",
    report = "quarry> peek phys:0x4c000000\n0xffff00004c000000: 0x0000000000001234",
    report = "not written: ",
    report = "which is mapped read-only",
    report = "not written: nothing can be read at 0x123000, which is in the user half",
    report = "0xffff00004c000003 is not a multiple of 8, as the address of 8 bytes is; 0xffff00004c000000 is",
    report = "an address and a value, such as poke",
    report = "much is no value; a value is a number of up to 64 bits, such as 0x1234",
    exit = 0
);

ktest!(
    boot: every_cpu_allocates_under_stress_and_nothing_is_lost,
    machine = "smp=2 type='stress 1\\r|stress 0\\r|stress long\\r|stress 100\\r\\x03|check\\r|quit\\r'",
    timeout = 60,
    report = "stress [........................................]   0 %",
    report = "stress [########################################] 100 %",
    report = " operations on 2 CPUs in ",
    report = " allocations refused; free pages before ",
    report = "every invariant holds",
    report = "a number of seconds from 1 to 3600, such as stress 5",
    report = "a number of seconds from 1 to 3600",
    report = " operations on 2 CPUs in ",
    report = "sum of all RAM: ok",
    exit = 0
);

ktest!(
    boot: rows_are_measured_with_their_unit,
    machine = "icount type='bench kmalloc\\r|bench vmalloc\\r|bench nothing\\r|quit\\r'",
    timeout = 60,
    report = "bench [........................................]   0 %",
    report = "bench [########################################] 100 %",
    report = "an object of 64 bytes, allocated and freed: 10000 pairs a round, 40 rounds",
    report = "time of a pair by the counter of ",
    report = " ns in the fastest round, ",
    report = " instructions retired in the best round",
    report = "an area of 16 KiB",
    report = "no row \"nothing\"; there are:\n  kmalloc  ",
    exit = 0
);

ktest!(
    boot: cpus_their_memory_and_their_locks_are_shown,
    machine = "smp=2 type='cpus\\r|percpu\\r|locks\\r|quit\\r'",
    report = "CPU 0: Online, affinity 0x",
    report = "CPU 1: Online, affinity 0x1, ",
    report = "CPU 1: [0x",
    report = " are in use, static variables included",
    report = "dynamic: ",
    report = " bytes a CPU, ",
    report = "level  interrupts  class\n    0  either      embedding kernel\n",
    report = "CPU 1 holds none",
    exit = 0
);

ktest!(
    boot: wrong_frees_at_the_prompt_are_reported_and_harm_nothing,
    machine = "type='fault\\r|fault what\\r|fault double-free\\r|fault free-inside\\r|fault free-page-as-object\\r|fault free-stack\\r|fault wrong-cache\\r|fault page-double-free\\r|fault page-wrong-order\\r|fault page-inside\\r|fault page-of-image\\r|fault page-no-ram\\r|fault area-double-free\\r|fault area-inside\\r|fault area-wrong-kind\\r|fault page-of-area\\r|fault map-ram\\r|fault unmap-twice\\r|fault pool-double-free\\r|fault dma-stack\\r|fault sleep-in-atomic\\r|fault sleep-with-lock\\r|check\\r|quit\\r'",
    timeout = 40,
    report = "  stack-overflow       a CPU's stack overflows (the machine ends)\n",
    report = "no kind \"what\"; there are:\n  double-free ",
    report = "quarry> fault double-free\ndouble-free: an object is freed twice\n",
    report = "double free of 0x",
    report = "double-free: caught, and nothing has changed",
    report = "is not the start of an object; ",
    report = "lies in a page that is ",
    report = "is no address of the linear map",
    report = "was freed to misused",
    report = " is free already",
    report = "was allocated with order 2 and freed with 0",
    report = "lies inside the block at ",
    report = "is reserved",
    report = "there is no RAM at ",
    report = "is in no area",
    report = "is not the start but inside of the area ",
    report = "is another kind of area:",
    report = "is in use: ",
    report = "there is RAM in ",
    report = "is in no area",
    report = "element freed twice: ",
    report = "is not in the linear map",
    report = "sleeping allocation in atomic context (interrupts are masked): order:0",
    report = "sleep-with-lock: the same with a lock held\nsleeping allocation in atomic context (",
    report = "sum of all RAM: ok",
    exit = 0
);

ktest!(
    boot: damaged_objects_at_the_prompt_are_reported,
    machine = "type='fault use-after-free\\r|fault overrun\\r|fault underrun\\r|fault leak\\r|check\\r|quit\\r'",
    report = "BUG misused: Poison overwritten",
    report = "use-after-free: caught, and nothing has changed",
    report = "BUG misused: Right Redzone overwritten",
    report = "BUG misused: Left Redzone overwritten",
    report = "BUG misused: cannot be destroyed, objects in use: 1",
    report = "leak: caught",
    report = "slab allocator: ok",
    exit = 0
);

ktest!(
    boot: faults_at_the_prompt_are_reported_and_survived,
    machine = "smp=2 type='fault null-read\\r|fault null-write\\r|fault null-call\\r|fault wild-write\\r|fault no-address\\r|fault text-write\\r|fault constant-write\\r|fault constant-call\\r|fault data-call\\r|fault stack-call\\r|fault object-call\\r|fault empty-object\\r|fault area-overrun\\r|fault area-use-after-free\\r|fault read-only-write\\r|fault stack-guard\\r|fault gap-write\\r|peek 0\\r|check\\r|quit\\r'",
    timeout = 40,
    report = "fault: data abort, read: translation fault",
    report = "fault: near address zero, as behind a null pointer",
    report = "backtrace:",
    report = "prompt::misuse::",
    report = "null-read: caught; the access was given up, and the prompt goes on",
    report = "fault: at address 0x18",
    report = "fault: instruction abort",
    report = "null-call: caught",
    report = "fault: in the user half, where nothing is mapped",
    report = "fault: in no region of the kernel's address map",
    report = "fault: in the kernel's text",
    report = "fault: in the kernel's rodata",
    report = "fault: write to a read-only mapping",
    report = "fault: instruction fetch from non-executable memory (W^X)",
    report = "constant-call: caught",
    report = "fault: in the kernel's data",
    report = "data-call: caught",
    report = "fault: on the kernel stack of CPU 0",
    report = "stack-call: caught",
    report = " of the cache kmalloc-64 of 64 bytes, in use, byte 0 of it",
    report = "object-call: caught",
    report = "fault: near address zero",
    report = "empty-object: caught",
    report = "fault: guard page after vmalloc area 0x",
    report = "fault: in the vmalloc region, where there is no area: it was freed, or never allocated",
    report = "read-only-write: caught",
    report = "fault: in a guard page, below the kernel stack of CPU 0",
    report = "stack-guard: caught",
    report = "fault: in no region of the kernel's address map",
    report = "gap-write: caught",
    report = "quarry> peek 0\n0x0 cannot be read\n",
    report = "sum of all RAM: ok",
    exit = 0
);

ktest!(
    boot: a_stack_overflow_at_the_prompt_ends_the_machine,
    machine = "type='fault stack-overflow\\r'",
    report = "fault: stack overflow on the kernel stack of CPU 0",
    report = "times more",
    exit = 1
);

ktest!(
    boot: a_panic_at_the_prompt_ends_the_machine,
    machine = "type='fault index\\r'",
    report = "index out of bounds: the len is 4 but the index is 4",
    report = "backtrace:",
    exit = 1
);

ktest!(
    boot: a_lock_taken_twice_at_the_prompt_ends_the_machine,
    machine = "type='fault double-lock\\r'",
    report = "deadlock: ",
    report = ", is taken again by the same CPU at ",
    exit = 1
);

ktest!(
    boot: words_behind_a_command_without_arguments_are_answered,
    machine = "type='quit now\\r|cpu 0\\r|quit\\r'",
    report = "quarry> quit now\nquit takes no arguments; try help quit\nquarry> cpu 0\ncpu takes no arguments",
    report = "quarry> quit\n",
    exit = 0
);
