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
    machine = "type='qui\\x1b[A\\x1b[D\\x1b[3~\\x1bOP\\x1bxt\\x7f\\x7f\\x08\\x08cpu\\r|nonsense\\x15cpu\\r|cpu nonsense  \\x17\\x7f\\r|quit nonsense\\x03|quit\\r'",
    report = "quarry> quit\x08 \x08\x08 \x08\x08 \x08\x08 \x08cpu\nCortex-A72",
    report = "cpu\nCortex-A72",
    report = "Cortex-A72",
    report = "quit nonsense^C\nquarry> quit\n",
    exit = 0
);

ktest!(
    boot: a_tab_is_a_blank_and_a_line_with_other_letters_is_not_run,
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
    machine = "smp=2 type='exec hello from here\\r|exec spin &\\r|ps\\r|maps 2\\r|kill 2\\r|ps\\r|maps 2\\r|exec nothing\\r|exec\\r|check\\r|quit\\r'",
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
