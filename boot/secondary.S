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
