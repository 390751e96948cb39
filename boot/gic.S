// What only EL3 can do to the interrupt controller: give every interrupt to the non-secure world. The device tree
// cannot be read yet, so this knows the two machines on which the kernel is ever started at EL3 without firmware.

	.section .head.text, "ax"

// Puts all interrupts in group 1, on the distributor and for this CPU (GICv2) or all CPUs (GICv3).
//   in: x20 = physical address of _head   state: EL3, secure, MMU off   clobbers x0-x7
//   does not return where a GICv3 keeps a wait from ending: the wait is bounded, and the CPU stops with a message
	.global gic_all_group1
gic_all_group1:
	lsr	x0, x20, #30
	cbz	x0, 1f
	mov	x1, #0x08000000			// virt: GICD
	mov	x2, #0x08010000			// GICC
	mrs	x0, id_aa64pfr0_el1
	ubfx	x0, x0, #24, #4
	cbnz	x0, gicv3_group1
	b	2f
1:	movz	x1, #0xff84, lsl #16		// Pi 4: GIC-400, GICD 0xff841000, GICC 0xff842000
	movk	x1, #0x1000
	movz	x2, #0xff84, lsl #16
	movk	x2, #0x2000

2:	ldr	w3, [x1, #4]			// GICD_TYPER.ITLinesNumber: registers of 32 interrupts, less one
	and	w3, w3, #0x1f
	mov	w4, #-1
	add	x5, x1, #0x80			// GICD_IGROUPR0 (banked by CPU) and on
3:	str	w4, [x5], #4
	subs	w3, w3, #1
	b.pl	3b
	mov	w4, #3				// EnableGrp0, EnableGrp1
	str	w4, [x1]			// GICD_CTLR
	str	w4, [x2]			// GICC_CTLR
	mov	w4, #0xff
	str	w4, [x2, #4]			// GICC_PMR: below 0x80 the non-secure world could not raise it
	dsb	sy
	ret

gicv3_group1:
	mov	w4, #0x30			// GICD_CTLR: ARE_S, ARE_NS
	str	w4, [x1]
	movz	w0, #0x10, lsl #16		// an access to a device takes 50 ns or more: a twentieth of a second
4:	ldr	w5, [x1]
	tbz	w5, #31, 5f			// RWP
	subs	w0, w0, #1
	b.ne	4b
	b	gicv3_does_not_answer
5:	mov	w4, #0x32			// and EnableGrp1NS
	str	w4, [x1]
	movz	w0, #0x10, lsl #16
6:	ldr	w5, [x1]
	tbz	w5, #31, 7f
	subs	w0, w0, #1
	b.ne	6b
	b	gicv3_does_not_answer
7:	ldr	w3, [x1, #4]
	and	w3, w3, #0x1f
	mov	w4, #-1
	add	x5, x1, #0x84			// GICD_IGROUPR1 and on; 0 belongs to the redistributors
	add	x6, x1, #0xd04			// GICD_IGRPMODR1
	cbz	w3, 9f
8:	str	w4, [x5], #4
	str	wzr, [x6], #4
	subs	w3, w3, #1
	b.ne	8b
9:	movz	x5, #0x080a, lsl #16		// virt: redistributors, 128 KiB each
10:	ldr	w6, [x5, #0x14]			// GICR_WAKER
	bic	w6, w6, #2			// ProcessorSleep
	str	w6, [x5, #0x14]
	movz	w0, #0x10, lsl #16
11:	ldr	w6, [x5, #0x14]
	tbz	w6, #2, 12f			// ChildrenAsleep
	subs	w0, w0, #1
	b.ne	11b
	b	gicv3_does_not_answer
12:	add	x6, x5, #0x10, lsl #12		// the SGI frame
	str	w4, [x6, #0x80]			// GICR_IGROUPR0
	str	wzr, [x6, #0xd00]		// GICR_IGRPMODR0
	ldr	w7, [x5, #8]			// GICR_TYPER.Last
	add	x5, x5, #0x20, lsl #12
	tbz	w7, #4, 10b
	mov	x0, #0xf
	msr	S3_6_C12_C12_5, x0		// ICC_SRE_EL3, before any ICC register
	isb
	mov	x0, #0xff
	msr	S3_0_C4_C6_0, x0		// ICC_PMR_EL1
	dsb	sy
	ret

gicv3_does_not_answer:
	adr	x0, gicv3_does_not_answer_message
	b	early_stop

gicv3_does_not_answer_message:
	.asciz	"quarry: the interrupt controller (GICv3) does not answer at EL3; cannot boot\r\n"
	.balign	4
