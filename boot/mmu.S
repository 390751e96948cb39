// Turning the MMU on and exchanging the kernel's tables under its feet. This page is mapped at its own physical
// address while it runs, read-only and executable, and at no other time.

	.section .idmap.text, "ax"

	.equ	TCR_FIXED, (16 << 0) | (1 << 8) | (1 << 10) | (3 << 12) | (16 << 16) | (1 << 24) | (1 << 26) | (3 << 28) | (2 << 30)
	//	    T0SZ: 48 bits  IRGN0, ORGN0: WB    SH0: inner   T1SZ       IRGN1, ORGN1           SH1          TG1: 4 KiB
	.equ	SCTLR_ON, 0x30d00800 | (1 << 0) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 12) | (1 << 19)
	//	    RES1 of Armv8.0    M          C          SA         SA0        I           WXN

// Turns on MMU and caches and jumps to a virtual address.
//   in:  x0 = physical address of the TTBR1 tables, x1 = of the TTBR0 tables (idmap), x30 = virtual address to go to
//   out: at x30 with MMU and caches on, writable memory never executable (WXN)
//   state: EL1, MMU off, exceptions masked   clobbers x0-x5
	.global enable_mmu
enable_mmu:
	ldr	x2, ={MAIR}
	mrs	x3, id_aa64pfr1_el1
	ubfx	x3, x3, #8, #4			// MTE: 2 and above have tags in memory
	cmp	x3, #2
	b.lo	1f
	movz	x4, #0x0f00, lsl #48		// slot 7: WB tagged is 0xf0, which only such a CPU knows
	bic	x2, x2, x4
1:	msr	mair_el1, x2

	ldr	x2, =TCR_FIXED
	mrs	x3, id_aa64mmfr0_el1
	ubfx	x4, x3, #0, #4			// PARange -> IPS, 48 bits at most with these descriptors
	mov	x5, #5
	cmp	x4, x5
	csel	x4, x4, x5, ls
	bfi	x2, x4, #32, #3
	ubfx	x4, x3, #4, #4			// ASIDBits: 2 = 16 bits
	cmp	x4, #2
	cset	x4, eq
	bfi	x2, x4, #36, #1			// AS
	msr	tcr_el1, x2

	msr	ttbr1_el1, x0
	msr	ttbr0_el1, x1
	isb
	tlbi	vmalle1
	dsb	nsh
	ic	iallu
	dsb	nsh
	isb
	ldr	x2, =SCTLR_ON
	msr	sctlr_el1, x2
	isb
	ic	iallu				// fetched with the MMU off, perhaps from stale lines
	dsb	nsh
	isb
	br	x30

// Replaces the tables that the kernel runs on.
//   in:  x0 = physical address of the new TTBR1 tables, x1 = of the empty table, x2 = virtual address to return to
//   out: at x2, with nothing of the old tables in this CPU's TLB
//   state: EL1 through the idmap in TTBR0, exceptions masked, other CPUs not using TTBR1   clobbers nothing else
	.global idmap_replace_ttbr1
idmap_replace_ttbr1:
	msr	ttbr1_el1, x1
	isb
	tlbi	vmalle1
	dsb	nsh
	isb
	msr	ttbr1_el1, x0
	isb
	br	x2

	.ltorg

	.section .text, "ax"

// Runs idmap_replace_ttbr1 from the high half.
//   in:  x0 = physical address of the new TTBR1 tables, x1 = of the empty table, x2 = of the idmap tables,
//        x3 = of idmap_replace_ttbr1
//   state: EL1, MMU on, exceptions masked; AAPCS64: clobbers x2-x4
	.global replace_ttbr1
replace_ttbr1:
	msr	ttbr0_el1, x2
	isb
	adr	x2, 1f
	br	x3
1:	msr	ttbr0_el1, x1			// the idmap is gone again, from the TLB too
	isb
	tlbi	vmalle1
	dsb	nsh
	isb
	ret
