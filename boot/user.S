// Into EL0 and back. The kernel calls `quarry_enter_user`, or `quarry_run_user`, as a function; it returns when the process takes
// an exception, but `quarry_run_user` only after an abort that its resolver does not resolve. SP_EL1 stays where that call has
// put it while EL0 runs, so an exception from EL0 finds, from there on:
//
//   0    x19 to x30 of the caller, 6 pairs
//   96   the UserFrame, and the resolver of aborts or 0
//   112  the resolver's third argument, and DAIF as the caller has it
//   128  x29 and x30 of the process on the way into the frame; then ESR_EL1 and FAR_EL1 while the resolver runs
//
// The frame's offsets are pinned by src/arch/aarch64/user.rs. Nothing of the kernel reaches EL0: every integer register is
// loaded from the frame, or, after a resolver, is one that AAPCS64 makes it leave as it was; and FP registers trap.

	.equ	CALL_SIZE, 144
	.equ	CALL_FRAME, 96
	.equ	CALL_RESOLVER, 104
	.equ	CALL_ARGUMENT, 112
	.equ	CALL_SCRATCH, 128

	.section .text.user, "ax"

// Loads the system registers of the process and x2 to x17, which a function may change.
	.macro	load_scratch frame:req
	ldp	x2, x3, [\frame, #{USER_PC}]
	ldp	x4, x5, [\frame, #{USER_SP}]
	msr	elr_el1, x2
	msr	spsr_el1, x3
	msr	sp_el0, x4
	msr	tpidr_el0, x5
	ldp	x2, x3, [\frame, #{USER_X} + 16 * 1]
	ldp	x4, x5, [\frame, #{USER_X} + 16 * 2]
	ldp	x6, x7, [\frame, #{USER_X} + 16 * 3]
	ldp	x8, x9, [\frame, #{USER_X} + 16 * 4]
	ldp	x10, x11, [\frame, #{USER_X} + 16 * 5]
	ldp	x12, x13, [\frame, #{USER_X} + 16 * 6]
	ldp	x14, x15, [\frame, #{USER_X} + 16 * 7]
	ldp	x16, x17, [\frame, #{USER_X} + 16 * 8]
	.endm

// Runs the process of a frame until it takes an exception, and resolves its aborts in place.
//   in:  x0 = UserFrame, whose pstate says EL0 in AArch64; x1 = resolver, an AAPCS64 function of (ESR_EL1, FAR_EL1, x2) that
//        says in bit 0 of w0 whether the instruction is to be tried again; x2 = its third argument; x3 = DAIF while it runs
//   out, clobbered, state: as for quarry_enter_user. The resolver runs on this stack, with exceptions as x3 masks them; it may
//        sleep, and go on on another CPU
	.global	quarry_run_user
	.type	quarry_run_user, %function
	.balign	64
quarry_run_user:
	sub	sp, sp, #CALL_SIZE
	stp	x0, x1, [sp, #CALL_FRAME]
	stp	x2, x3, [sp, #CALL_ARGUMENT]
	b	.Lenter
	.size	quarry_run_user, . - quarry_run_user

// Runs the process of a frame until it takes an exception.
//   in:  x0 = UserFrame, whose pstate says EL0 in AArch64
//   out: x0 = ESR_EL1, or all ones after an interrupt, which is still pending; x1 = FAR_EL1; the frame has the process's
//        registers
//   state: EL1h on a kernel stack, exceptions masked before and after; AAPCS64 otherwise
	.global	quarry_enter_user
	.type	quarry_enter_user, %function
	.balign	64
quarry_enter_user:
	sub	sp, sp, #CALL_SIZE
	stp	x0, xzr, [sp, #CALL_FRAME]
.Lenter:
	stp	x19, x20, [sp, #16 * 0]
	stp	x21, x22, [sp, #16 * 1]
	stp	x23, x24, [sp, #16 * 2]
	stp	x25, x26, [sp, #16 * 3]
	stp	x27, x28, [sp, #16 * 4]
	stp	x29, x30, [sp, #16 * 5]
	load_scratch x0
	ldp	x18, x19, [x0, #{USER_X} + 16 * 9]
	ldp	x20, x21, [x0, #{USER_X} + 16 * 10]
	ldp	x22, x23, [x0, #{USER_X} + 16 * 11]
	ldp	x24, x25, [x0, #{USER_X} + 16 * 12]
	ldp	x26, x27, [x0, #{USER_X} + 16 * 13]
	ldp	x28, x29, [x0, #{USER_X} + 16 * 14]
	ldr	x30, [x0, #{USER_X} + 8 * 30]
	ldp	x0, x1, [x0, #{USER_X} + 16 * 0]
	eret
	// No speculation past the return.
	dsb	nsh
	isb
	.size	quarry_enter_user, . - quarry_enter_user

// Stores the registers of the process that a function may change, and x19, x29 and x30; x30 = the frame then.
	.macro	store_scratch
	stp	x29, x30, [sp, #CALL_SCRATCH]
	ldr	x30, [sp, #CALL_FRAME]
	stp	x0, x1, [x30, #{USER_X} + 16 * 0]
	stp	x2, x3, [x30, #{USER_X} + 16 * 1]
	stp	x4, x5, [x30, #{USER_X} + 16 * 2]
	stp	x6, x7, [x30, #{USER_X} + 16 * 3]
	stp	x8, x9, [x30, #{USER_X} + 16 * 4]
	stp	x10, x11, [x30, #{USER_X} + 16 * 5]
	stp	x12, x13, [x30, #{USER_X} + 16 * 6]
	stp	x14, x15, [x30, #{USER_X} + 16 * 7]
	stp	x16, x17, [x30, #{USER_X} + 16 * 8]
	stp	x18, x19, [x30, #{USER_X} + 16 * 9]
	ldp	x0, x1, [sp, #CALL_SCRATCH]
	stp	x0, x1, [x30, #{USER_X} + 8 * 29]
	mrs	x2, elr_el1
	mrs	x3, spsr_el1
	mrs	x4, sp_el0
	mrs	x5, tpidr_el0
	stp	x2, x3, [x30, #{USER_PC}]
	stp	x4, x5, [x30, #{USER_SP}]
	.endm

// Stores the other registers of the process, and loads the caller's.
	.macro	leave_user
	stp	x20, x21, [x30, #{USER_X} + 16 * 10]
	stp	x22, x23, [x30, #{USER_X} + 16 * 11]
	stp	x24, x25, [x30, #{USER_X} + 16 * 12]
	stp	x26, x27, [x30, #{USER_X} + 16 * 13]
	str	x28, [x30, #{USER_X} + 16 * 14]
	ldp	x19, x20, [sp, #16 * 0]
	ldp	x21, x22, [sp, #16 * 1]
	ldp	x23, x24, [sp, #16 * 2]
	ldp	x25, x26, [sp, #16 * 3]
	ldp	x27, x28, [sp, #16 * 4]
	ldp	x29, x30, [sp, #16 * 5]
	add	sp, sp, #CALL_SIZE
	.endm

// A synchronous exception from EL0, and an SError, which has a syndrome, too: an abort goes to the resolver, if there is one, and
// the process goes on if that says so; else the call returns.
//   state: from the vectors, every register the process's but SP_EL1
	.global	quarry_user_sync
	.type	quarry_user_sync, %function
	.balign	64
quarry_user_sync:
	store_scratch
	mrs	x0, esr_el1
	mrs	x1, far_el1
	// ESR_EL1.EC, bits 31:26: aborts from a lower level are 0b100000 and 0b100100, and a system call has bit 31 clear.
	tbz	w0, #31, 1f
	ldr	x9, [sp, #CALL_RESOLVER]
	lsr	w10, w0, #26
	bic	w10, w10, #4
	cmp	w10, #0x20
	ccmp	x9, #0, #4, eq
	b.eq	1f
	stp	x0, x1, [sp, #CALL_SCRATCH]
	ldp	x2, x11, [sp, #CALL_ARGUMENT]
	// Frame records lead from the resolver to the caller of the call.
	add	x29, sp, #16 * 5
	msr	daif, x11
	blr	x9
	msr	daifset, #0xf
	ldr	x30, [sp, #CALL_FRAME]
	tbz	w0, #0, 2f
	// The resolver may have slept, and exceptions have come: nothing of the way back is in a system register any more.
	load_scratch x30
	ldp	x0, x1, [x30, #{USER_X} + 16 * 0]
	ldr	x18, [x30, #{USER_X} + 8 * 18]
	ldp	x29, x30, [x30, #{USER_X} + 8 * 29]
	eret
	// No speculation past the return.
	dsb	nsh
	isb
2:	ldp	x0, x1, [sp, #CALL_SCRATCH]
1:	leave_user
	ret
	.size	quarry_user_sync, . - quarry_user_sync

// An interrupt while EL0 ran: the call returns, and the interrupt is taken at EL1 as soon as that unmasks them.
//   state: as for quarry_user_sync
	.global	quarry_user_irq
	.type	quarry_user_irq, %function
	.balign	64
quarry_user_irq:
	store_scratch
	leave_user
	mov	x0, #-1
	mov	x1, #0
	ret
	.size	quarry_user_irq, . - quarry_user_irq

	.previous
