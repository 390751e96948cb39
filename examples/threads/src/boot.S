// From the boot loader to Rust, and the vectors. Every CPU comes in with the MMU off, at EL1, all interrupts masked. Memory
// is mapped where it is, through TTBR0. Threads, and what a CPU does first, run on SP_EL0; exceptions on SP_EL1, a
// stack that each CPU has, so that a thread's stack may overflow.

	.section .text.start, "ax"
	.global	start, secondary
// in: nothing. Does not return. MMU off, interrupts masked.
start:	mov	x19, #0
	b	on
// in: x0 = the CPU's number. Does not return. MMU off, interrupts masked.
secondary:
	mov	x19, x0
on:	adrp	x1, stacks
	add	x2, x19, #1
	add	x1, x1, x2, lsl #17			// 64 KiB for each of the two
	mov	sp, x1
	sub	x1, x1, #0x10000
	msr	sp_el0, x1
	adrp	x1, vectors
	add	x1, x1, :lo12:vectors
	msr	vbar_el1, x1
	ldr	x1, =0xffffbb440c080400			// memory types as Quarry numbers them
	msr	mair_el1, x1
	// 48 bits in both halves, 4 KiB pages, walks write-back and inner shareable, 40 bits of physical address
	ldr	x1, =(16 | 1 << 8 | 1 << 10 | 3 << 12 | 16 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30 | 2 << 32)
	msr	tcr_el1, x1
	adrp	x1, level0
	msr	ttbr0_el1, x1
	adrp	x1, empty
	msr	ttbr1_el1, x1
	isb
	tlbi	vmalle1
	dsb	nsh
	isb
	mrs	x1, sctlr_el1
	mov	x2, #0x1005				// MMU, caches
	orr	x1, x1, x2
	msr	sctlr_el1, x1
	isb
	msr	spsel, #0
	mov	x0, x19
	mov	x29, xzr
	mov	x30, xzr
	b	main

	.section .text, "ax"
// One vector: makes a frame (sched.rs, Frame) on SP_EL1, calls \handler with its address in x0, and goes on with what is
// in it then. Interrupts masked, MMU on.
	.macro	vector handler
	.balign	128
	sub	sp, sp, #272
	stp	x0, x1, [sp]
	adr	x0, \handler
	b	enter
	.endm

	.balign	2048
vectors:
	vector	on_sync					// from threads
	vector	on_irq
	vector	fatal
	vector	fatal
	vector	on_sync					// from handlers, where interrupts are masked
	.rept	11
	vector	fatal
	.endr

// in: x0 = handler(frame); x0, x1 of the interrupted code on the stack. Interrupts masked, MMU on.
enter:	stp	x2, x3, [sp, #16]
	stp	x4, x5, [sp, #32]
	stp	x6, x7, [sp, #48]
	stp	x8, x9, [sp, #64]
	stp	x10, x11, [sp, #80]
	stp	x12, x13, [sp, #96]
	stp	x14, x15, [sp, #112]
	stp	x16, x17, [sp, #128]
	stp	x18, x19, [sp, #144]
	stp	x20, x21, [sp, #160]
	stp	x22, x23, [sp, #176]
	stp	x24, x25, [sp, #192]
	stp	x26, x27, [sp, #208]
	stp	x28, x29, [sp, #224]
	mrs	x1, sp_el0
	stp	x30, x1, [sp, #240]
	mrs	x1, elr_el1
	mrs	x2, spsr_el1
	stp	x1, x2, [sp, #256]
	mov	x1, x0
	mov	x0, sp
	blr	x1
	ldp	x1, x2, [sp, #256]
	msr	elr_el1, x1
	msr	spsr_el1, x2
	ldp	x30, x1, [sp, #240]
	msr	sp_el0, x1
	ldp	x2, x3, [sp, #16]
	ldp	x4, x5, [sp, #32]
	ldp	x6, x7, [sp, #48]
	ldp	x8, x9, [sp, #64]
	ldp	x10, x11, [sp, #80]
	ldp	x12, x13, [sp, #96]
	ldp	x14, x15, [sp, #112]
	ldp	x16, x17, [sp, #128]
	ldp	x18, x19, [sp, #144]
	ldp	x20, x21, [sp, #160]
	ldp	x22, x23, [sp, #176]
	ldp	x24, x25, [sp, #192]
	ldp	x26, x27, [sp, #208]
	ldp	x28, x29, [sp, #224]
	ldp	x0, x1, [sp]
	add	sp, sp, #272
	eret

	.section .rodata, "a"
	.balign	4096
empty:	.zero	4096
// The first GiB is devices, the next one is RAM.
level1:	.quad	3 << 53 | 1 << 10 | 1 << 2 | 1
	.quad	0x40000000 | 1 << 10 | 3 << 8 | 6 << 2 | 1
	.zero	4096 - 2 * 8
level0:	.quad	level1 + 3
	.zero	4096 - 8

	.section .bss, "aw", %nobits
	.balign	65536
stacks:	.zero	4 << 17
