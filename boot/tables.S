// The early four-level tables: the kernel image with its final permissions, page by page, in the high half; the way to
// the fixmap; and the identity map of one read-only, executable page. No entry is both writable and executable, and the
// guard pages below the stacks have none.

	.equ	PTE_TABLE, 0x3
	.equ	PTE_PAGE, 0x3
	.equ	PTE_NORMAL, (6 << 2) | (3 << 8) | (1 << 10)	// AttrIndx = WB, inner shareable, AF
	.equ	PTE_RO, 1 << 7
	.equ	PTE_PXN, 1 << 53
	.equ	PTE_UXN, 1 << 54
	.equ	PTE_KERNEL_RX, PTE_PAGE | PTE_NORMAL | PTE_RO | PTE_UXN
	.equ	PTE_KERNEL_RO, PTE_KERNEL_RX | PTE_PXN
	.equ	PTE_KERNEL_RW, PTE_PAGE | PTE_NORMAL | PTE_UXN | PTE_PXN

	.equ	EARLY_PTE_TABLES, 16		// 2 MiB of image each
	.equ	FIXMAP_PTE_TABLES, 3		// 2 MiB of slots, 4 MiB of device-tree window

	.section .pgtables.idmap, "aw", %nobits
	.global __idmap_pgd
	.balign	4096
__idmap_pgd:	.skip	4096
__idmap_pud:	.skip	4096
__idmap_pmd:	.skip	4096
__idmap_pte:	.skip	4096

	.section .init.pgtables, "aw", %nobits
	.global __early_pgd
	.balign	4096
__early_pgd:	.skip	4096
__early_pud:	.skip	4096
__early_pmd:	.skip	4096
__early_fixmap_pud: .skip 4096
__early_fixmap_pmd: .skip 4096
__early_pte:	.skip	4096 * EARLY_PTE_TABLES
	.global __fixmap_pte
__fixmap_pte:	.skip	4096 * FIXMAP_PTE_TABLES
__early_end:

	.section .head.text, "ax"

// Index of virtual address \va in the table whose entries map 2^\shift bytes, into \out.
	.macro	table_index out, va, shift
	ubfx	\out, \va, #\shift, #9
	.endm

// Writes \entry (a physical address, with its bits ORed in) at index \index of \table. Clobbers nothing else.
	.macro	put table, index, entry
	str	\entry, [\table, \index, lsl #3]
	.endm

// Maps the pages from virtual \start to \end (symbols) of the image with attributes \attr.
// x10 = __early_pte, x11 = first virtual address of the image, x20 = its physical address; clobbers x0-x4
	.macro	map_image start, end, attr
	ldr	x0, =\start
	ldr	x1, =\end
	ldr	x3, =\attr
	bl	map_image_pages
	.endm

// Builds all early tables.
//   in: x20 = physical address of _head (2 MiB aligned)   state: EL1, MMU off   clobbers x0-x15, x16
	.global create_early_tables
create_early_tables:
	mov	x16, x30
	tst	x20, #0x1fffff
	b.ne	misaligned_image

	// What the caches hold of the tables is older than what follows, and must neither hide it nor be written back
	// over it: invalidate before and after (Arm ARM D7.5; no emulator shows the difference).
	adrp	x0, __idmap_pgd
	adrp	x1, __pgtables_end
	bl	invalidate_and_clear
	adrp	x0, __early_pgd
	adrp	x1, __early_end
	bl	invalidate_and_clear

	adrp	x10, __early_pte
	ldr	x11, =_text
	ldr	x5, =_end

	// The image: PGD -> PUD -> PMD -> as many PTE tables as it needs.
	adrp	x6, __early_pgd
	adrp	x7, __early_pud
	orr	x0, x7, #PTE_TABLE
	table_index x1, x11, 39
	put	x6, x1, x0
	adrp	x8, __early_pmd
	orr	x0, x8, #PTE_TABLE
	table_index x1, x11, 30
	put	x7, x1, x0
	table_index x1, x11, 21
	orr	x0, x10, #PTE_TABLE
	sub	x2, x5, x11
	add	x2, x2, #0x1ff, lsl #12
	lsr	x2, x2, #21			// tables
1:	put	x8, x1, x0
	add	x0, x0, #4096
	add	x1, x1, #1
	subs	x2, x2, #1
	b.ne	1b

	map_image _text, _etext, PTE_KERNEL_RX
	map_image __start_rodata, __end_rodata, PTE_KERNEL_RO
	map_image _sdata, __boot_stack_guard, PTE_KERNEL_RW
	map_image __boot_stack_bottom, __boot_stack_top, PTE_KERNEL_RW
	map_image __overflow_stack_bottom, __overflow_stack_top, PTE_KERNEL_RW

	// The fixmap: the tables down to the last level; Rust fills its slots.
	ldr	x12, =FIXMAP_START
	adrp	x7, __early_fixmap_pud
	orr	x0, x7, #PTE_TABLE
	table_index x1, x12, 39
	put	x6, x1, x0
	adrp	x8, __early_fixmap_pmd
	orr	x0, x8, #PTE_TABLE
	table_index x1, x12, 30
	put	x7, x1, x0
	adrp	x9, __fixmap_pte
	orr	x0, x9, #PTE_TABLE
	table_index x1, x12, 21
	mov	x2, #FIXMAP_PTE_TABLES
1:	put	x8, x1, x0
	add	x0, x0, #4096
	add	x1, x1, #1
	subs	x2, x2, #1
	b.ne	1b

	// The identity map: one page.
	adrp	x12, __idmap_text_start
	adrp	x6, __idmap_pgd
	adrp	x7, __idmap_pud
	orr	x0, x7, #PTE_TABLE
	table_index x1, x12, 39
	put	x6, x1, x0
	adrp	x8, __idmap_pmd
	orr	x0, x8, #PTE_TABLE
	table_index x1, x12, 30
	put	x7, x1, x0
	adrp	x9, __idmap_pte
	orr	x0, x9, #PTE_TABLE
	table_index x1, x12, 21
	put	x8, x1, x0
	ldr	x0, =PTE_KERNEL_RX
	orr	x0, x0, x12
	table_index x1, x12, 12
	put	x9, x1, x0

	adrp	x0, __idmap_pgd
	adrp	x1, __pgtables_end
	bl	invalidate
	adrp	x0, __early_pgd
	adrp	x1, __early_end
	bl	invalidate
	ret	x16

misaligned_image:
	adr	x0, misaligned_message
	b	early_stop
misaligned_message:
	.asciz	"quarry: the image was not loaded at a multiple of 2 MiB; cannot boot\r\n"
	.balign	4

// Writes last-level entries for the pages x0..x1 of the image, attributes x3.
//   in: x10 = __early_pte, x11 = _text (virtual), x20 = _text (physical)   clobbers x0, x2, x4
map_image_pages:
	sub	x2, x0, x11			// offset in the image
	sub	x4, x1, x11
	add	x0, x10, x2, lsr #9		// its entry: 8 bytes a page
1:	cmp	x2, x4
	b.hs	2f
	add	x1, x20, x2
	orr	x1, x1, x3
	str	x1, [x0], #8
	add	x2, x2, #4096
	b	1b
2:	ret

// Invalidates the page-aligned range x0..x1 to the point of coherency, then zeroes it.
//   state: MMU off   clobbers x0, x2-x5
invalidate_and_clear:
	mov	x4, x0
	mov	x5, x30
	bl	invalidate
1:	stp	xzr, xzr, [x4]
	stp	xzr, xzr, [x4, #16]
	stp	xzr, xzr, [x4, #32]
	stp	xzr, xzr, [x4, #48]
	add	x4, x4, #64
	cmp	x4, x1
	b.lo	1b
	ret	x5

// Invalidates the page-aligned range x0..x1 to the point of coherency.
//   clobbers x0, x2, x3
invalidate:
	dmb	sy				// order it after the stores made with the MMU off
	mrs	x2, ctr_el0
	ubfx	x2, x2, #16, #4			// DminLine: log2 of words
	mov	x3, #4
	lsl	x3, x3, x2
1:	dc	ivac, x0
	add	x0, x0, x3
	cmp	x0, x1
	b.lo	1b
	dsb	sy
	ret

	.ltorg
