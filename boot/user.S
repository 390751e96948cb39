// Into EL0 and back. The kernel calls `quarry_enter_user` as a function; it returns when the process takes an exception.
// SP_EL1 stays where that call has put it while EL0 runs, so an exception from EL0 finds, from there on:
//
//   0    x19 to x30 of the caller, 6 pairs
//   96   the UserFrame
//   104  x29 and x30 of the process, on the way into the frame
//
// The frame's offsets are pinned by src/arch/aarch64/user.rs. Nothing of the kernel reaches EL0: every integer register is
// loaded from the frame, and FP registers trap.

	.equ	CALL_SIZE, 128
	.equ	CALL_FRAME, 96
	.equ	CALL_SCRATCH, 104

	.section .text.user, "ax"

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
	stp	x19, x20, [sp, #16 * 0]
	stp	x21, x22, [sp, #16 * 1]
	stp	x23, x24, [sp, #16 * 2]
	stp	x25, x26, [sp, #16 * 3]
	stp	x27, x28, [sp, #16 * 4]
	stp	x29, x30, [sp, #16 * 5]
	str	x0, [sp, #CALL_FRAME]
	ldp	x2, x3, [x0, #{USER_PC}]
	ldp	x4, x5, [x0, #{USER_SP}]
	msr	elr_el1, x2
	msr	spsr_el1, x3
	msr	sp_el0, x4
	msr	tpidr_el0, x5
	ldp	x2, x3, [x0, #{USER_X} + 16 * 1]
	ldp	x4, x5, [x0, #{USER_X} + 16 * 2]
	ldp	x6, x7, [x0, #{USER_X} + 16 * 3]
	ldp	x8, x9, [x0, #{USER_X} + 16 * 4]
	ldp	x10, x11, [x0, #{USER_X} + 16 * 5]
	ldp	x12, x13, [x0, #{USER_X} + 16 * 6]
	ldp	x14, x15, [x0, #{USER_X} + 16 * 7]
	ldp	x16, x17, [x0, #{USER_X} + 16 * 8]
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

// Stores the process's registers and loads the caller's.
	.macro	leave_user
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
	stp	x20, x21, [x30, #{USER_X} + 16 * 10]
	stp	x22, x23, [x30, #{USER_X} + 16 * 11]
	stp	x24, x25, [x30, #{USER_X} + 16 * 12]
	stp	x26, x27, [x30, #{USER_X} + 16 * 13]
	ldp	x0, x1, [sp, #CALL_SCRATCH]
	stp	x28, x0, [x30, #{USER_X} + 16 * 14]
	str	x1, [x30, #{USER_X} + 8 * 30]
	mrs	x2, elr_el1
	mrs	x3, spsr_el1
	mrs	x4, sp_el0
	mrs	x5, tpidr_el0
	stp	x2, x3, [x30, #{USER_PC}]
	stp	x4, x5, [x30, #{USER_SP}]
	ldp	x19, x20, [sp, #16 * 0]
	ldp	x21, x22, [sp, #16 * 1]
	ldp	x23, x24, [sp, #16 * 2]
	ldp	x25, x26, [sp, #16 * 3]
	ldp	x27, x28, [sp, #16 * 4]
	ldp	x29, x30, [sp, #16 * 5]
	add	sp, sp, #CALL_SIZE
	.endm

// A synchronous exception from EL0, and an SError, which has a syndrome, too: the call of quarry_enter_user returns.
//   state: from the vectors, every register the process's but SP_EL1
	.global	quarry_user_sync
	.type	quarry_user_sync, %function
	.balign	64
quarry_user_sync:
	leave_user
	mrs	x0, esr_el1
	mrs	x1, far_el1
	ret
	.size	quarry_user_sync, . - quarry_user_sync

// An interrupt while EL0 ran: the call returns, and the interrupt is taken at EL1 as soon as that unmasks them.
//   state: as for quarry_user_sync
	.global	quarry_user_irq
	.type	quarry_user_irq, %function
	.balign	64
quarry_user_irq:
	leave_user
	mov	x0, #-1
	mov	x1, #0
	ret
	.size	quarry_user_irq, . - quarry_user_irq

	.previous
