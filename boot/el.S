// From EL3 or EL2 down to EL1, leaving nothing trapped on the way: afterwards interrupts, the PMU, timers, memory tags
// and the memory-copy instructions work at EL1 as if the CPU had started there.

	.section .head.text, "ax"

	.equ	SCTLR_EL1_OFF, 0x30d00800	// RES1 bits of Armv8.0, MMU and caches off, little endian
	.equ	SCTLR_EL2_OFF, 0x30c50830
	.equ	SPSR_EL1H, 0x3c5		// DAIF masked, EL1 with SP_EL1
	.equ	SPSR_EL2H, 0x3c9

// Branches to \label if the ID register field of 4 bits at \lsb holds zero.
	.macro	skip_without idreg, lsb, label
	mrs	x0, \idreg
	ubfx	x0, x0, #\lsb, #4
	cbz	x0, \label
	.endm

// Brings this CPU to EL1.
//   in:  x19 = current exception level, x20 = physical address of _head, x30 = return address; MMU off
//   out: returns at EL1h, DAIF masked, SCTLR_EL1 = MMU and caches off
//   clobbers x0-x7, x16, x17
	.global drop_to_el1
drop_to_el1:
	mov	x17, x30
	cmp	x19, #3
	b.eq	from_el3
	cmp	x19, #2
	b.eq	from_el2
	ldr	x0, =SCTLR_EL1_OFF
	msr	sctlr_el1, x0
	isb
	b	at_el1

from_el3:
	bl	set_core_up
	bl	gic_all_group1

	mov	x1, #0x4b1			// SCR_EL3: RW, RES1, NS; SMD: SMC is undefined, as nothing stays at EL3 to answer it
	skip_without id_aa64pfr0_el1, 8, 1f
	orr	x1, x1, #1 << 8			// HCE, as there is an EL2
1:	mrs	x0, id_aa64pfr1_el1
	ubfx	x0, x0, #8, #4
	cmp	x0, #2
	b.lo	1f
	orr	x1, x1, #1 << 26		// ATA: memory tags
1:	skip_without id_aa64mmfr1_el1, 40, 1f
	orr	x1, x1, #1 << 38		// HXEn: HCRX_EL2
1:	skip_without id_aa64mmfr0_el1, 56, 1f
	orr	x1, x1, #1 << 27		// FGTEn: fine-grained trap registers
1:	mrs	x0, id_aa64isar1_el1
	mov	x2, #0xff			// APA, API [11:4]; GPA, GPI [31:24]
	and	x3, x2, x0, lsr #4
	and	x2, x2, x0, lsr #24
	orr	x2, x2, x3
	mrs	x0, S3_0_C0_C6_2		// ID_AA64ISAR2_EL1: GPA3 [11:8], APA3 [15:12]
	ubfx	x0, x0, #8, #8
	orr	x0, x0, x2
	cbz	x0, 1f
	orr	x1, x1, #3 << 16		// APK, API: pointer authentication is not trapped
1:	msr	scr_el3, x1

	mov	x1, #0				// CPTR_EL3: trap nothing; EZ and ESM allow
	skip_without id_aa64pfr0_el1, 32, 1f
	orr	x1, x1, #1 << 8			// EZ
1:	skip_without id_aa64pfr1_el1, 24, 1f
	orr	x1, x1, #1 << 12		// ESM
1:	msr	cptr_el3, x1
	msr	mdcr_el3, xzr

	mrs	x0, cntfrq_el0			// firmware's duty; a board that skips it gets its crystal's
	cbnz	x0, 2f
	ldr	w0, =62500000			// QEMU's virt
	lsr	x1, x20, #30
	cbnz	x1, 1f
	ldr	w0, =54000000			// Pi 4
1:	msr	cntfrq_el0, x0
2:
	skip_without id_aa64pfr0_el1, 24, 1f	// GIC system registers
	mov	x0, #0xf			// SRE, DFB, DIB, Enable
	msr	S3_6_C12_C12_5, x0		// ICC_SRE_EL3
	isb
1:	ldr	x0, =SCTLR_EL1_OFF
	msr	sctlr_el1, x0
	skip_without id_aa64pfr0_el1, 8, 1f
	ldr	x0, =SCTLR_EL2_OFF
	msr	sctlr_el2, x0
	mov	x0, #1 << 31			// HCR_EL2.RW, so that EL2 does not start on leftovers
	msr	hcr_el2, x0
	mov	x0, #SPSR_EL2H
	msr	spsr_el3, x0
	adr	x0, from_el2
	msr	elr_el3, x0
	isb
	eret
1:	mov	x0, #SPSR_EL1H
	msr	spsr_el3, x0
	adr	x0, at_el1
	msr	elr_el3, x0
	isb
	eret

from_el2:
	adr	x0, early_vectors
	msr	vbar_el2, x0
	mov	x1, #1 << 31			// HCR_EL2: RW
	mrs	x0, id_aa64pfr1_el1
	ubfx	x0, x0, #8, #4
	cmp	x0, #2
	b.lo	1f
	movz	x0, #0x0100, lsl #48		// ATA, bit 56: tags are accessible
	orr	x1, x1, x0
1:	movz	x0, #0x0300, lsl #32		// APK, API, bits 40 and 41: not trapped; RES0 without pointer authentication
	mrs	x2, id_aa64isar1_el1
	mov	x3, #0xff
	and	x4, x3, x2, lsr #4
	and	x3, x3, x2, lsr #24
	orr	x3, x3, x4
	mrs	x2, S3_0_C0_C6_2
	ubfx	x2, x2, #8, #8
	orr	x2, x2, x3
	cmp	x2, #0
	csel	x0, x0, xzr, ne
	orr	x1, x1, x0
	msr	hcr_el2, x1
	isb
	mrs	x1, hcr_el2
	tbnz	x1, #34, 1f			// E2H cannot be cleared on some CPUs, and changes two layouts

	mov	x1, #0x33ff			// CPTR_EL2: RES1, nothing trapped
	mov	x2, #3				// CNTHCTL_EL2: EL1PCTEN, EL1PCEN
	mov	x3, #1 << 8			// TZ
	mov	x4, #1 << 12			// TSM
	skip_without id_aa64pfr0_el1, 32, 3f
	bic	x1, x1, x3
3:	skip_without id_aa64pfr1_el1, 24, 2f
	bic	x1, x1, x4
	b	2f
1:	mov	x1, #3 << 20			// CPTR_EL2 with E2H: FPEN
	mov	x2, #3 << 10			// CNTHCTL_EL2 with E2H
	skip_without id_aa64pfr0_el1, 32, 3f
	orr	x1, x1, #3 << 16		// ZEN
3:	skip_without id_aa64pfr1_el1, 24, 2f
	orr	x1, x1, #3 << 24		// SMEN
2:	msr	cptr_el2, x1
	msr	cnthctl_el2, x2
	msr	cntvoff_el2, xzr
	msr	hstr_el2, xzr
	msr	vttbr_el2, xzr
	mrs	x0, midr_el1
	msr	vpidr_el2, x0
	mrs	x0, mpidr_el1
	msr	vmpidr_el2, x0

	mov	x1, #0				// MDCR_EL2: nothing trapped, all event counters belong to EL1
	mrs	x0, id_aa64dfr0_el1
	ubfx	x0, x0, #8, #4
	cbz	x0, 1f
	cmp	x0, #0b1111
	b.eq	1f
	mrs	x0, pmcr_el0
	ubfx	x1, x0, #11, #5			// HPMN = PMCR_EL0.N
1:	msr	mdcr_el2, x1

	skip_without id_aa64pfr0_el1, 24, 1f
	mov	x0, #0xf
	msr	S3_4_C12_C9_5, x0		// ICC_SRE_EL2
	isb
	mrs	x0, S3_4_C12_C9_5
	tbz	x0, #0, 1f			// SRE did not stick: EL3 keeps the register interface off, and ICH_* are undefined
	msr	S3_4_C12_C11_0, xzr		// ICH_HCR_EL2
1:
	skip_without id_aa64mmfr1_el1, 40, 1f	// FEAT_HCX
	mov	x1, #0
	mrs	x0, S3_0_C0_C6_2		// ID_AA64ISAR2_EL1.MOPS
	ubfx	x0, x0, #16, #4
	cbz	x0, 2f
	mov	x1, #1 << 11			// MSCEn: memory copy and set instructions
2:	msr	S3_4_C1_C2_2, x1		// HCRX_EL2
1:
	skip_without id_aa64mmfr0_el1, 56, 1f	// FEAT_FGT
	msr	S3_4_C1_C1_4, xzr		// HFGRTR_EL2
	msr	S3_4_C1_C1_5, xzr		// HFGWTR_EL2
	msr	S3_4_C1_C1_6, xzr		// HFGITR_EL2
	msr	S3_4_C3_C1_4, xzr		// HDFGRTR_EL2
	msr	S3_4_C3_C1_5, xzr		// HDFGWTR_EL2
	skip_without id_aa64pfr0_el1, 44, 1f	// activity monitors
	msr	S3_4_C3_C1_6, xzr		// HAFGRTR_EL2
1:
	ldr	x0, =SCTLR_EL1_OFF
	mrs	x1, hcr_el2
	tbz	x1, #34, 1f
	msr	S3_5_C1_C0_0, x0		// SCTLR_EL12: with E2H, the name sctlr_el1 is EL2's own register
	b	2f
1:	msr	sctlr_el1, x0
2:
	mov	x0, #SPSR_EL1H
	msr	spsr_el2, x0
	adr	x0, at_el1
	msr	elr_el2, x0
	isb
	eret

// EL1, whatever the way here: registers that a loader may have left set.
at_el1:
	msr	daifset, #15
	msr	spsel, #1
	adr	x0, early_vectors
	msr	vbar_el1, x0
	msr	cpacr_el1, xzr			// the kernel keeps its hands off FP registers: using one traps
	msr	mdscr_el1, xzr
	msr	oslar_el1, xzr
	msr	cntkctl_el1, xzr
	msr	tpidr_el1, xzr
	msr	tpidr_el0, xzr
	msr	tpidrro_el0, xzr
	msr	contextidr_el1, xzr
	mrs	x0, id_aa64dfr0_el1
	ubfx	x0, x0, #8, #4
	cbz	x0, 1f
	cmp	x0, #0b1111
	b.eq	1f
	msr	pmuserenr_el0, xzr
	mov	x0, #-1
	msr	pmcntenclr_el0, x0
	msr	pmintenclr_el1, x0
	msr	pmovsclr_el0, x0
1:	isb
	ret	x17

	.ltorg

// What firmware at EL3 does for a core before its caches may be used, where there was none. Arm's cores up to Cortex-A73 take
// part in coherency only once CPUECTLR_EL1.SMPEN says so (their TRMs; Trusted Firmware: lib/cpus/aarch64); later ones have no
// such bit, and QEMU's `max` needs nothing. Another maker's core is not guessed at.
//   in: x20 = physical address of _head   state: EL3, MMU off   clobbers x0-x3; does not return on a core that is not known
set_core_up:
	mrs	x0, midr_el1
	ubfx	x1, x0, #24, #8			// implementer
	ubfx	x2, x0, #4, #12			// part
	cmp	x1, #0x41			// Arm
	b.eq	1f
	mov	x3, #0x051			// QEMU max: implementer 0
	cmp	x2, x3
	ccmp	x1, #0, #0, eq
	b.ne	unknown_core
	ret
1:	mov	x3, #0xd03
	sub	x2, x2, x3			// Cortex-A53, -A35, -A55, 0xd06, -A57, -A72, -A73
	cmp	x2, #6
	b.hi	2f
	mov	x3, #0b1110011			// all but A55 and the one that is nobody's
	lsr	x3, x3, x2
	tbz	x3, #0, 2f
	cmp	x2, #5				// Cortex-A72
	b.ne	3f
	lsr	x3, x20, #30
	cbnz	x3, 3f
	mrs	x3, S3_1_C11_C0_2		// L2CTLR_EL1: on the Pi 4 the L2 RAMs take three cycles (the Pi's armstub8.S)
	mov	x1, #0x22
	orr	x3, x3, x1
	msr	S3_1_C11_C0_2, x3
3:	mrs	x3, S3_1_C15_C2_1		// CPUECTLR_EL1
	orr	x3, x3, #1 << 6			// SMPEN
	msr	S3_1_C15_C2_1, x3
	isb
2:	ret

unknown_core:
	adr	x0, unknown_core_message
	b	early_stop

unknown_core_message:
	.asciz	"quarry: entered at EL3 on a core that only its firmware can set up (MIDR_EL1); boot it with firmware, at EL2 or EL1\r\n"
	.balign	4

// Exceptions before the kernel's own vectors: there is nobody to tell but the console. For EL2 these vectors stay, and
// answer what comes from EL1.
	.balign	2048
early_vectors:
	.rept	8				// from this level
	adr	x0, early_exception_message
	adr	x20, _head
	b	early_stop
	.balign	128
	.endr
	b	from_el1
	.balign	128
	.rept	7				// nothing else is routed here
	b	park
	.balign	128
	.endr
early_exception_message:
	.asciz	"quarry: exception before the kernel's own vectors; cannot boot\r\n"
	.balign	4

// A synchronous exception of EL1 at EL2. HVC reaches nobody: the answer is that of firmware without the function. Anything
// else is a trap that was meant to be off: EL1 takes an undefined instruction, and reports who executed the other.
//   in:  EL2, MMU off; ESR_EL2 and ELR_EL2 of the exception
//   out: returns to EL1 behind the HVC with x0 = -1 (NOT_SUPPORTED, Arm DEN 0028 7.1), or to undefined_at_el2
//   clobbers TPIDR_EL2
from_el1:
	msr	tpidr_el2, x0
	mrs	x0, esr_el2
	ubfx	x0, x0, #26, #6
	cmp	x0, #0x16			// HVC from AArch64; eret restores the flags
	mov	x0, #-1
	b.eq	1f
	ldr	x0, =undefined_at_el2
	msr	elr_el2, x0
	mrs	x0, tpidr_el2
1:	eret

	.ltorg

	.section .text, "ax"

// Where EL1 goes on after it executed what EL2 trapped, so that its undefined instruction is reported.
//   in: the state of EL1 at the trapped instruction, its address excepted   out: does not return   clobbers nothing
	.global undefined_at_el2
undefined_at_el2:
	udf	#2
