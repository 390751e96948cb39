// The exception vectors of EL1 (Arm ARM D1.4.1). The kernel runs at EL1h, on SP_EL1.
//
// Every entry saves the whole integer state as a `TrapFrame` (src/arch/aarch64/trap.rs pins the offsets) and ends it
// with a frame record, so that a backtrace walks through the exception. Before anything is stored the stack pointer
// is tested: a stack is at most 1 << STACK_SHIFT bytes and starts at a multiple of twice that, so bit STACK_SHIFT of any
// sp inside one is clear, and set in the same distance below it. A bad sp changes to the overflow stack of this CPU.
//
// An interrupt is handled on the interrupt stack of its CPU, with its frame on the stack that it interrupts; one that
// interrupts a handler goes on below, on the same stack.
//
// From EL0 the stack is that of the call that went there, and is not tested: boot/user.S.
//
// Scratch registers on the way to the overflow stack: TPIDR_EL0 and SP_EL0, which user code does not keep across a
// kernel that is about to end. TPIDRRO_EL0: bits 15:0 the CPU number, bits 19:16 how often this CPU came here.


// One slot of the table. x0 and sp are exchanged by arithmetic alone, as there is no register to spare yet.
.macro vector_entry number:req, tagging:req
    .balign 0x80
    .if \tagging
    .inst   0xd503409f              // msr tco, #0: taking an exception overrides tag checks
    .endif
    sub     sp, sp, #{FRAME_SIZE}
    add     sp, sp, x0              // sp' = sp + x0
    sub     x0, sp, x0              // x0' = sp
    tbnz    x0, #{STACK_SHIFT}, 1f  // overflowed
    tbz     x0, #63, 1f             // not a kernel address
    tst     x0, #0xf
    b.ne    1f                      // misaligned: a store would fault
    sub     x0, sp, x0              // x0 again
    sub     sp, sp, x0              // sp again
    b       vector_\number
1:  msr     tpidr_el0, x0           // sp as it was, less the frame
    sub     x0, sp, x0
    msr     sp_el0, x0              // x0 as it was
    b       bad_stack_\number
.endm

// A slot for an exception that EL0 takes while it runs: none of the process's registers is free.
.macro user_entry handler:req, tagging:req
    .balign 0x80
    .if \tagging
    .inst   0xd503409f              // msr tco, #0
    .endif
    b       \handler
.endm

// The whole table, 2 KiB.
.macro vector_table tagging=0
    // From EL1 with SP_EL0, which the kernel never selects.
    vector_entry 0, \tagging
    vector_entry 1, \tagging
    vector_entry 2, \tagging
    vector_entry 3, \tagging
    // From EL1 with SP_EL1: synchronous, IRQ, FIQ, SError.
    vector_entry 4, \tagging
    vector_entry 5, \tagging
    vector_entry 6, \tagging
    vector_entry 7, \tagging
    // From EL0 in AArch64.
    user_entry quarry_user_sync, \tagging
    user_entry quarry_user_irq, \tagging
    vector_entry 10, \tagging
    user_entry quarry_user_sync, \tagging
    // From EL0 in AArch32.
    vector_entry 12, \tagging
    vector_entry 13, \tagging
    vector_entry 14, \tagging
    vector_entry 15, \tagging
    .balign 0x80
.endm

// Stores x0 to x29, elr, spsr, esr, far and the frame record, to which x29 points afterwards. Uses x21 to x25.
.macro save_frame
    stp     x0, x1, [sp, #{FRAME_X} + 16 * 0]
    stp     x2, x3, [sp, #{FRAME_X} + 16 * 1]
    stp     x4, x5, [sp, #{FRAME_X} + 16 * 2]
    stp     x6, x7, [sp, #{FRAME_X} + 16 * 3]
    stp     x8, x9, [sp, #{FRAME_X} + 16 * 4]
    stp     x10, x11, [sp, #{FRAME_X} + 16 * 5]
    stp     x12, x13, [sp, #{FRAME_X} + 16 * 6]
    stp     x14, x15, [sp, #{FRAME_X} + 16 * 7]
    stp     x16, x17, [sp, #{FRAME_X} + 16 * 8]
    stp     x18, x19, [sp, #{FRAME_X} + 16 * 9]
    stp     x20, x21, [sp, #{FRAME_X} + 16 * 10]
    stp     x22, x23, [sp, #{FRAME_X} + 16 * 11]
    stp     x24, x25, [sp, #{FRAME_X} + 16 * 12]
    stp     x26, x27, [sp, #{FRAME_X} + 16 * 13]
    stp     x28, x29, [sp, #{FRAME_X} + 16 * 14]
    mrs     x22, elr_el1
    mrs     x23, spsr_el1
    mrs     x24, esr_el1
    mrs     x25, far_el1
    stp     x22, x23, [sp, #{FRAME_ELR}]
    stp     x24, x25, [sp, #{FRAME_ESR}]
    stp     x29, x22, [sp, #{FRAME_RECORD}]
    add     x29, sp, #{FRAME_RECORD}
.endm

.macro save_frame_in_place
    save_frame
    add     x21, sp, #{FRAME_SIZE}
    stp     x30, x21, [sp, #{FRAME_X} + 16 * 15]
.endm

// An exception that nothing returns from: the report ends the kernel.
.macro fatal_vector number:req
    .type   vector_\number, %function
vector_\number:
    save_frame_in_place
    mov     x0, sp
    mov     x1, #\number
    bl      {trap_fatal}
    b       trap_stop
    .size   vector_\number, . - vector_\number
.endm

// The way to the overflow stack. In: TPIDR_EL0 = sp less the frame, SP_EL0 = x0, sp free to use.
.macro bad_stack number:req
    .type   bad_stack_\number, %function
bad_stack_\number:
    mrs     x0, tpidrro_el0
    add     x0, x0, #0x10, lsl #12  // once more on this CPU
    msr     tpidrro_el0, x0
    tbnz    x0, #19, trap_stop      // the eighth time: the overflow stack does not work either
    ubfiz   x0, x0, #3, #16         // CPU number * 8
    mov     sp, x0
    adrp    x0, {OVERFLOW_STACK_TOPS}
    add     x0, x0, :lo12:{OVERFLOW_STACK_TOPS}
    add     x0, sp, x0
    ldr     x0, [x0]
    cbz     x0, trap_stop           // this CPU has none yet
    mov     sp, x0
    mrs     x0, tpidr_el0
    sub     x0, sp, x0              // distance below the top
    tst     x0, #~({OVERFLOW_STACK_SIZE} - 1)
    b.ne    1f
    mrs     x0, tpidr_el0           // on the overflow stack already: go on below
    and     sp, x0, #~0xf
1:  sub     sp, sp, #{FRAME_SIZE}
    mrs     x0, sp_el0
    save_frame
    mrs     x21, tpidr_el0
    add     x21, x21, #{FRAME_SIZE}
    stp     x30, x21, [sp, #{FRAME_X} + 16 * 15]
    mov     x0, sp
    mov     x1, #\number
    bl      {trap_bad_stack}
    b       trap_stop
    .size   bad_stack_\number, . - bad_stack_\number
.endm

    .section .text.vectors, "ax", %progbits
    .balign 0x800
    .global exception_vectors
    .type   exception_vectors, %function
exception_vectors:
    vector_table
    .size   exception_vectors, . - exception_vectors

// The same for a CPU whose tag checks are on.
//   state: as for every exception, FEAT_MTE there
    .global exception_vectors_tagging
    .type   exception_vectors_tagging, %function
exception_vectors_tagging:
    vector_table tagging=1
    .size   exception_vectors_tagging, . - exception_vectors_tagging

    .type   vector_4, %function
vector_4:
    save_frame_in_place
    mov     x0, sp
    bl      {trap_sync}
    b       trap_return
    .size   vector_4, . - vector_4

    .type   vector_5, %function
vector_5:
    save_frame_in_place
    mov     x0, sp
    mrs     x1, tpidrro_el0
    ubfiz   x1, x1, #3, #16         // CPU number * 8
    adrp    x2, {INTERRUPT_STACK_TOPS}
    add     x2, x2, :lo12:{INTERRUPT_STACK_TOPS}
    ldr     x2, [x2, x1]
    cbz     x2, 1f                  // this CPU has none yet
    sub     x3, x2, x0              // distance below the top
    tst     x3, #~({INTERRUPT_STACK_SIZE} - 1)
    b.eq    1f                      // on it already
    mov     x19, x0                 // saved in the frame, and kept by what is called
    mov     sp, x2
    bl      {trap_irq}
    mov     sp, x19
    b       trap_return
1:  bl      {trap_irq}
    b       trap_return
    .size   vector_5, . - vector_5

// Every return from an exception taken at EL1 comes through here, all exceptions masked. The handler's caller has looked
// whether the saved elr lies in a restartable sequence, and has rewound it.
    .type   trap_return, %function
trap_return:
    ldp     x22, x23, [sp, #{FRAME_ELR}]
    msr     elr_el1, x22
    msr     spsr_el1, x23
    ldp     x0, x1, [sp, #{FRAME_X} + 16 * 0]
    ldp     x2, x3, [sp, #{FRAME_X} + 16 * 1]
    ldp     x4, x5, [sp, #{FRAME_X} + 16 * 2]
    ldp     x6, x7, [sp, #{FRAME_X} + 16 * 3]
    ldp     x8, x9, [sp, #{FRAME_X} + 16 * 4]
    ldp     x10, x11, [sp, #{FRAME_X} + 16 * 5]
    ldp     x12, x13, [sp, #{FRAME_X} + 16 * 6]
    ldp     x14, x15, [sp, #{FRAME_X} + 16 * 7]
    ldp     x16, x17, [sp, #{FRAME_X} + 16 * 8]
    ldp     x18, x19, [sp, #{FRAME_X} + 16 * 9]
    ldp     x20, x21, [sp, #{FRAME_X} + 16 * 10]
    ldp     x22, x23, [sp, #{FRAME_X} + 16 * 11]
    ldp     x24, x25, [sp, #{FRAME_X} + 16 * 12]
    ldp     x26, x27, [sp, #{FRAME_X} + 16 * 13]
    ldp     x28, x29, [sp, #{FRAME_X} + 16 * 14]
    ldr     x30, [sp, #{FRAME_X} + 16 * 15]
    add     sp, sp, #{FRAME_SIZE}
    eret
    // No speculation past the return.
    dsb     nsh
    isb
    .size   trap_return, . - trap_return

// The end of the line: nothing that could report is left.
//   state: any stack or none   does not return
    .global trap_stop
    .type   trap_stop, %function
trap_stop:
    msr     daifset, #0xf
1:  wfi
    b       1b
    .size   trap_stop, . - trap_stop

    .irp    number, 0, 1, 2, 3, 6, 7, 10, 12, 13, 14, 15
    fatal_vector \number
    .endr
    .irp    number, 0, 1, 2, 3, 4, 5, 6, 7, 10, 12, 13, 14, 15
    bad_stack \number
    .endr
    .global exception_vectors_end
exception_vectors_end:
    .previous
