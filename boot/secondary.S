// CPUs other than the boot CPU.

	.section .head.text, "ax"

// A CPU that a loader let loose on the entry point together with the boot CPU. It waits for nothing and touches no
// memory but the interrupt controller's, whose banked group registers only it can set.
//   in: x19 = current exception level, x20 = physical address of _head   state: MMU off   does not return
	.global park_secondary
park_secondary:
	cmp	x19, #3
	b.ne	1f
	bl	gic_all_group1
1:	wfi
	b	1b

// The entry of a CPU that the kernel has started, by PSCI CPU_ON or from a spin table. Which CPU it is it finds by its
// affinity in the table of src/arch/aarch64/secondary.rs, as a spin table passes nothing; a CPU that is not in it stops.
// What is read with the MMU off was cleaned to the point of coherency before.
//   in:      EL3, EL2 or EL1; MMU off; every register but the program counter holds anything
//   out:     does not return; continues at secondary_switched with x20 = physical address of _head,
//            x23 = CPU number, x24 = end of its stack
//   clobbers everything
	.global secondary_entry
secondary_entry:
	msr	daifset, #15
	adr	x20, _head
	mrs	x19, CurrentEL
	ubfx	x19, x19, #2, #2
	bl	drop_to_el1
	bl	check_cpu
	bl	early_counters

	mrs	x0, mpidr_el1
	ldr	x1, =0xff00ffffff
	and	x0, x0, x1
	orr	x0, x0, #1 << 63		// an entry in use
	adrp	x1, {SECONDARIES}
	add	x1, x1, :lo12:{SECONDARIES}
	ldp	x2, x3, [x1], #16		// root of the tables, entries
	mov	x23, #0
1:	cmp	x23, x3
	b.hs	park
	ldp	x4, x24, [x1], #16		// affinity, end of the stack
	cmp	x4, x0
	b.eq	2f
	add	x23, x23, #1
	b	1b
2:	mov	x0, x2
	adrp	x1, __idmap_pgd
	ldr	x30, =secondary_switched
	b	enable_mmu

	.ltorg

// First code of a secondary CPU at the link address.
//   in:  x20, x23, x24 from secondary_entry; MMU and caches on; TTBR1 = the kernel's tables, TTBR0 = idmap
//   out: does not return; calls quarry_secondary_main on the CPU's stack with TTBR0 = the empty table
	.section .text, "ax"
secondary_switched:
	mov	sp, x24
	adrp	x0, exception_vectors
	add	x0, x0, :lo12:exception_vectors
	msr	vbar_el1, x0
	msr	tpidrro_el0, x23		// the vectors want the number

	bl	drop_idmap

	mov	w0, w23
	mov	x29, xzr			// backtraces end here
	mov	x30, xzr
	bl	quarry_secondary_main
	b	park
