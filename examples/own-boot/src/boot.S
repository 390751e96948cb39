// This kernel's own way from the boot loader to Rust: every CPU comes in with the MMU off, at EL1, all interrupts
// masked, and leaves on a stack of its own with the MMU on. Memory is mapped where it is, through TTBR0.

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
	add	x1, x1, x2, lsl #16			// 64 KiB each
	mov	sp, x1
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
	mov	x0, x19
	mov	x29, xzr
	mov	x30, xzr
	b	main

	.section .text, "ax"
// One vector: saves every integer register in a frame, calls \handler with it in x0, and goes back to what it answers.
	.macro	vector handler
	.balign	128
	sub	sp, sp, #256
	stp	x0, x1, [sp]
	adr	x0, \handler
	b	enter
	.endm

	.balign	2048
vectors:
	.rept	4
	vector	fatal
	.endr
	vector	on_sync
	vector	on_irq
	.rept	10
	vector	fatal
	.endr

// in: x0 = handler(frame) -> where to go on; x0, x1 of the interrupted code on the stack. Interrupts masked, MMU on.
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
	str	x30, [sp, #240]
	mrs	x20, spsr_el1
	mov	x1, x0
	mov	x0, sp
	blr	x1
	msr	elr_el1, x0
	msr	spsr_el1, x20
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
	ldr	x30, [sp, #240]
	ldp	x0, x1, [sp]
	add	sp, sp, #256
	eret

	.section .rodata, "a"
	.balign	4096
empty:	.zero	4096
// The first GiB is devices, the next four are RAM.
level1:	.quad	3 << 53 | 1 << 10 | 1 << 2 | 1
	.quad	0x40000000 | 1 << 10 | 3 << 8 | 6 << 2 | 1
	.quad	0x80000000 | 1 << 10 | 3 << 8 | 6 << 2 | 1
	.quad	0xc0000000 | 1 << 10 | 3 << 8 | 6 << 2 | 1
	.quad	0x100000000 | 1 << 10 | 3 << 8 | 6 << 2 | 1
	.zero	4096 - 5 * 8
level0:	.quad	level1 + 3
	.zero	4096 - 8

	.section .bss, "aw", %nobits
	.balign	65536
stacks:	.zero	4 << 16
