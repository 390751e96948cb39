// Filling, copying and comparing Normal memory without FP registers: the C library's names, which the compiler calls by
// itself, and two routines for whole pages. Any length, any alignment. Never for Device memory: they make unaligned
// accesses and use DC ZVA.
//
// All follow AAPCS64, use no stack, need the MMU on, and may be called in any context.

	.arch_extension mops
	.section .text.memory_routines, "ax"

	.equ	MOPS_MIN, 256			// from here one instruction's start-up cost is worth it
	.equ	ZVA_MIN, 256			// from here DC ZVA is worth finding the first whole block

	.macro	routine name
	.global	\name
	.type	\name, %function
	.balign	16
\name:
	.endm

// Branches to \label if the CPU has FEAT_MOPS (a byte set at boot). Clobbers \tmp.
	.macro	if_mops tmp, label
	adrp	x\tmp, quarry_has_mops
	ldrb	w\tmp, [x\tmp, :lo12:quarry_has_mops]
	cbnz	w\tmp, \label
	.endm

// Zeroes one page, or many in a row.
//   in: x0 = address, page aligned; clear_pages: x1 = how many, not 0   clobbers x0-x3, flags
	routine	clear_page
	mov	x1, #1
	routine	clear_pages
	mrs	x3, dczid_el0
	and	w3, w3, #0x1f			// DZP and BS: 4 = allowed, 64 bytes
	cmp	w3, #4
	add	x2, x0, x1, lsl #12
	b.ne	2f
1:	.rept	64
	dc	zva, x0
	add	x0, x0, #64
	.endr
	cmp	x0, x2
	b.ne	1b
	ret
2:	stp	xzr, xzr, [x0]
	stp	xzr, xzr, [x0, #16]
	stp	xzr, xzr, [x0, #32]
	stp	xzr, xzr, [x0, #48]
	add	x0, x0, #64
	cmp	x0, x2
	b.ne	2b
	ret

// Copies one page.
//   in: x0 = to, x1 = from, both page aligned, not overlapping   clobbers x0-x5, x9, flags
	routine	copy_page
	if_mops	2, 2f
	add	x9, x0, #4096
1:	.irp	offset, 0, 32, 64, 96, 128, 160, 192, 224
	ldp	x2, x3, [x1, #\offset]
	ldp	x4, x5, [x1, #\offset + 16]
	stp	x2, x3, [x0, #\offset]
	stp	x4, x5, [x0, #\offset + 16]
	.endr
	add	x1, x1, #256
	add	x0, x0, #256
	cmp	x0, x9
	b.ne	1b
	ret
2:	mov	x2, #4096
	cpyfp	[x0]!, [x1]!, x2!
	cpyfm	[x0]!, [x1]!, x2!
	cpyfe	[x0]!, [x1]!, x2!
	ret

// void *memset(void *to, int byte, size_t n)
//   in: x0 = to, w1 = byte, x2 = n   out: x0 unchanged   clobbers x1-x5, flags
	routine	memset
	and	w1, w1, #0xff
	orr	w1, w1, w1, lsl #8
	orr	w1, w1, w1, lsl #16
	orr	x1, x1, x1, lsl #32
	add	x4, x0, x2			// one past the end
	cmp	x2, #16
	b.lo	.Lset_under_16
	cmp	x2, #64
	b.hi	.Lset_long
	stp	x1, x1, [x0]			// 16..64: from both ends, overlapping in the middle
	stp	x1, x1, [x4, #-16]
	cmp	x2, #32
	b.ls	1f
	stp	x1, x1, [x0, #16]
	stp	x1, x1, [x4, #-32]
1:	ret

.Lset_under_16:
	tbz	x2, #3, 1f
	str	x1, [x0]
	str	x1, [x4, #-8]
	ret
1:	tbz	x2, #2, 1f
	str	w1, [x0]
	str	w1, [x4, #-4]
	ret
1:	cbz	x2, 1f
	strb	w1, [x0]
	tbz	x2, #1, 1f
	strh	w1, [x4, #-2]
1:	ret

.Lset_long:
	cmp	x2, #ZVA_MIN
	b.lo	1f
	if_mops	5, .Lset_mops
	cbnz	x1, 1f
	mrs	x5, dczid_el0
	and	w5, w5, #0x1f
	cmp	w5, #4
	b.eq	.Lset_zva
1:	stp	x1, x1, [x0]			// the first 16, then aligned 64s, then the last 64
	and	x3, x0, #~15			// written up to x3 + 16
	sub	x5, x4, #80
	cmp	x3, x5
	b.hi	3f
2:	stp	x1, x1, [x3, #16]
	stp	x1, x1, [x3, #32]
	stp	x1, x1, [x3, #48]
	stp	x1, x1, [x3, #64]!
	cmp	x3, x5
	b.ls	2b
3:	stp	x1, x1, [x4, #-64]
	stp	x1, x1, [x4, #-48]
	stp	x1, x1, [x4, #-32]
	stp	x1, x1, [x4, #-16]
	ret

.Lset_zva:
	stp	xzr, xzr, [x0]			// the first 64, then whole blocks, then the last 64
	stp	xzr, xzr, [x0, #16]
	stp	xzr, xzr, [x0, #32]
	stp	xzr, xzr, [x0, #48]
	and	x3, x0, #~63
	add	x3, x3, #64
	sub	x5, x4, #64
1:	dc	zva, x3
	add	x3, x3, #64
	cmp	x3, x5
	b.ls	1b
	b	3b

.Lset_mops:
	mov	x3, x0
	setp	[x3]!, x2!, x1
	setm	[x3]!, x2!, x1
	sete	[x3]!, x2!, x1
	ret

// void *memcpy(void *to, const void *from, size_t n)
//   in: x0 = to, x1 = from, x2 = n   out: x0 unchanged   clobbers x1-x17, flags
//   Up to 128 bytes it loads everything before it stores anything; beyond, it runs forwards, each load before the
//   stores that could reach it from below. memmove relies on both.
	routine	memcpy
	add	x4, x0, x2			// one past the end of to
	add	x5, x1, x2			// one past the end of from
	cmp	x2, #16
	b.ls	.Lcopy_to_16
	cmp	x2, #128
	b.hi	.Lcopy_long
	ldp	x6, x7, [x1]			// 17..128: from both ends, overlapping in the middle
	ldp	x8, x9, [x5, #-16]
	cmp	x2, #32
	b.ls	1f
	ldp	x10, x11, [x1, #16]
	ldp	x12, x13, [x5, #-32]
	cmp	x2, #64
	b.hi	2f
	stp	x10, x11, [x0, #16]
	stp	x12, x13, [x4, #-32]
1:	stp	x6, x7, [x0]
	stp	x8, x9, [x4, #-16]
	ret
2:	ldp	x14, x15, [x1, #32]
	ldp	x2, x3, [x1, #48]
	ldp	x16, x17, [x5, #-64]
	ldp	x1, x5, [x5, #-48]
	stp	x6, x7, [x0]
	stp	x10, x11, [x0, #16]
	stp	x14, x15, [x0, #32]
	stp	x2, x3, [x0, #48]
	stp	x16, x17, [x4, #-64]
	stp	x1, x5, [x4, #-48]
	stp	x12, x13, [x4, #-32]
	stp	x8, x9, [x4, #-16]
	ret

.Lcopy_to_16:
	cmp	x2, #8
	b.lo	1f
	ldr	x6, [x1]
	ldr	x7, [x5, #-8]
	str	x6, [x0]
	str	x7, [x4, #-8]
	ret
1:	tbz	x2, #2, 1f
	ldr	w6, [x1]
	ldr	w7, [x5, #-4]
	str	w6, [x0]
	str	w7, [x4, #-4]
	ret
1:	cbz	x2, 1f
	lsr	x3, x2, #1			// 1..3: first, middle, last
	ldrb	w6, [x1]
	ldrb	w7, [x1, x3]
	ldrb	w8, [x5, #-1]
	strb	w6, [x0]
	strb	w7, [x0, x3]
	strb	w8, [x4, #-1]
1:	ret

.Lcopy_long:
	cmp	x2, #MOPS_MIN
	b.lo	1f
	if_mops	6, .Lcopy_mops
1:	and	x14, x0, #15
	ldp	x16, x17, [x1]			// the first 16; after them 64s aligned at to, always 64 loaded ahead
	sub	x3, x0, x14
	sub	x1, x1, x14
	add	x2, x2, x14
	ldp	x6, x7, [x1, #16]
	ldp	x8, x9, [x1, #32]
	ldp	x10, x11, [x1, #48]
	ldp	x12, x13, [x1, #64]
	stp	x16, x17, [x0]
	subs	x2, x2, #16 + 64 + 64		// left beyond those stored, those loaded, and the last 64
	b.ls	3f
2:	stp	x6, x7, [x3, #16]
	ldp	x6, x7, [x1, #80]
	stp	x8, x9, [x3, #32]
	ldp	x8, x9, [x1, #96]
	stp	x10, x11, [x3, #48]
	ldp	x10, x11, [x1, #112]
	stp	x12, x13, [x3, #64]!
	ldp	x12, x13, [x1, #128]
	add	x1, x1, #64
	subs	x2, x2, #64
	b.hi	2b
3:	ldp	x14, x15, [x5, #-64]
	stp	x6, x7, [x3, #16]
	ldp	x6, x7, [x5, #-48]
	stp	x8, x9, [x3, #32]
	ldp	x8, x9, [x5, #-32]
	stp	x10, x11, [x3, #48]
	ldp	x10, x11, [x5, #-16]
	stp	x12, x13, [x3, #64]
	stp	x14, x15, [x4, #-64]
	stp	x6, x7, [x4, #-48]
	stp	x8, x9, [x4, #-32]
	stp	x10, x11, [x4, #-16]
	ret

.Lcopy_mops:
	mov	x3, x0
	cpyfp	[x3]!, [x1]!, x2!
	cpyfm	[x3]!, [x1]!, x2!
	cpyfe	[x3]!, [x1]!, x2!
	ret

// void *memmove(void *to, const void *from, size_t n)
//   in: x0 = to, x1 = from, x2 = n   out: x0 unchanged   clobbers x1-x17, flags
	routine	memmove
	cmp	x2, #128
	b.ls	memcpy
	sub	x3, x0, x1
	cmp	x3, x2
	b.hs	memcpy				// to does not lie inside from..from + n: forwards is right
	add	x4, x0, x2			// backwards, the mirror image of .Lcopy_long
	add	x5, x1, x2
	and	x14, x4, #15
	ldp	x16, x17, [x5, #-16]
	sub	x5, x5, x14
	sub	x2, x2, x14
	ldp	x6, x7, [x5, #-16]
	ldp	x8, x9, [x5, #-32]
	ldp	x10, x11, [x5, #-48]
	ldp	x12, x13, [x5, #-64]
	stp	x16, x17, [x4, #-16]
	sub	x4, x4, x14
	subs	x2, x2, #64 + 64
	b.ls	3f
2:	stp	x6, x7, [x4, #-16]
	ldp	x6, x7, [x5, #-80]
	stp	x8, x9, [x4, #-32]
	ldp	x8, x9, [x5, #-96]
	stp	x10, x11, [x4, #-48]
	ldp	x10, x11, [x5, #-112]
	stp	x12, x13, [x4, #-64]!
	ldp	x12, x13, [x5, #-128]
	sub	x5, x5, #64
	subs	x2, x2, #64
	b.hi	2b
3:	ldp	x14, x15, [x1, #48]
	stp	x6, x7, [x4, #-16]
	ldp	x6, x7, [x1, #32]
	stp	x8, x9, [x4, #-32]
	ldp	x8, x9, [x1, #16]
	stp	x10, x11, [x4, #-48]
	ldp	x10, x11, [x1]
	stp	x12, x13, [x4, #-64]
	stp	x14, x15, [x0, #48]
	stp	x6, x7, [x0, #32]
	stp	x8, x9, [x0, #16]
	stp	x10, x11, [x0]
	ret

// int memcmp(const void *a, const void *b, size_t n), and bcmp, of which callers use only zero or not
//   in: x0 = a, x1 = b, x2 = n   out: w0 < 0, = 0, > 0   clobbers x0-x4, flags
	routine	bcmp
	routine	memcmp
	cmp	x2, #8
	b.lo	3f
1:	ldr	x3, [x0], #8
	ldr	x4, [x1], #8
	cmp	x3, x4
	b.ne	4f
	sub	x2, x2, #8
	cmp	x2, #8
	b.hs	1b
	cbz	x2, 2f
	add	x0, x0, x2			// the last 1..7, with some bytes already known equal
	add	x1, x1, x2
	ldr	x3, [x0, #-8]
	ldr	x4, [x1, #-8]
	cmp	x3, x4
	b.ne	4f
2:	mov	w0, #0
	ret
3:	cbz	x2, 2b
	ldrb	w3, [x0], #1
	ldrb	w4, [x1], #1
	sub	x2, x2, #1
	cmp	w3, w4
	b.eq	3b
	sub	w0, w3, w4
	ret
4:	rev	x3, x3				// the lowest address decides
	rev	x4, x4
	cmp	x3, x4
	mov	w0, #1
	cneg	w0, w0, lo
	ret
