// Memory of the process that runs, from the kernel: copies, words, strings. An access that faults resumes where
// `quarry_uaccess` says (src/arch/aarch64/uaccess.rs), so that a bad pointer is an answer.
//
// Single words and short copies use LDTR and STTR, which the CPU checks as if EL0 made them: PAN stays set, and no kernel address
// can be reached, whatever the address is. There are none for pairs, and 1,024 of them for a page are twice what pairs
// take; so longer copies use LDP and STP with PAN clear meanwhile, where the CPU has PAN. The caller has checked the
// range; each routine says so.
//
// After a fault a copy goes on byte by byte from the last position that it knows: so what it reports is exact. A retry of a
// few bytes harms nobody.
//
// All follow AAPCS64, use no stack, need the MMU on.

	.section .text.uaccess, "ax"

	.equ	SHORT, 64			// up to here LDTR and STTR

	.macro	user_routine name
	.global	\name
	.type	\name, %function
	.balign	16
\name:
	.endm

// One instruction that accesses user memory, or more on one line; resumes at \to if it faults.
	.macro	user to, instruction:vararg
9990:	\instruction
9991:
	.pushsection quarry_uaccess, "aR"
	.balign	8
	.quad	9990b, 9991b, \to
	.popsection
	.endm

// Four pairs of user memory, as one stretch. The loads and the stores differ by their first letters alone.
	.macro	user_pairs to, op, base, offset
9990:	\op	x3, x4, [\base, #\offset]
	\op	x5, x6, [\base, #\offset + 16]
	\op	x7, x8, [\base, #\offset + 32]
	\op	x9, x10, [\base, #\offset + 48]
9991:
	.pushsection quarry_uaccess, "aR"
	.balign	8
	.quad	9990b, 9991b, \to
	.popsection
	.endm

	.macro	own_pairs op, base, offset
	\op	x3, x4, [\base, #\offset]
	\op	x5, x6, [\base, #\offset + 16]
	\op	x7, x8, [\base, #\offset + 32]
	\op	x9, x10, [\base, #\offset + 48]
	.endm

// Clears PAN if this kernel has it set, and remembers in w\flag whether.
	.macro	user_enable flag
	adrp	x\flag, quarry_uses_pan
	ldrb	w\flag, [x\flag, :lo12:quarry_uses_pan]
	cbz	w\flag, 9992f
	.inst	0xd500409f			// msr pan, #0
9992:
	.endm

	.macro	user_disable flag
	cbz	w\flag, 9993f
	.inst	0xd500419f			// msr pan, #1
9993:
	.endm

// size_t quarry_copy_from_user(void *to, const void __user *from, size_t n)
//   in: x0 = to, x1 = from, in the user half for n bytes, x2 = n   out: x0 = bytes that were not copied, the last ones
//   clobbers x1-x13, flags
	user_routine quarry_copy_from_user
	add	x12, x0, x2			// one past the end of to
	cmp	x2, #SHORT
	b.hi	.Lfrom_long
	add	x13, x1, x2
	cmp	x2, #16
	b.lo	.Lfrom_under_16
	user	.Lfrom_bytes, ldtr x3, [x1]	// 16..64: from both ends, overlapping in the middle
	user	.Lfrom_bytes, ldtr x4, [x1, #8]
	user	.Lfrom_bytes, ldtr x5, [x13, #-16]
	user	.Lfrom_bytes, ldtr x6, [x13, #-8]
	cmp	x2, #32
	b.ls	1f
	user	.Lfrom_bytes, ldtr x7, [x1, #16]
	user	.Lfrom_bytes, ldtr x8, [x1, #24]
	user	.Lfrom_bytes, ldtr x9, [x13, #-32]
	user	.Lfrom_bytes, ldtr x10, [x13, #-24]
	stp	x7, x8, [x0, #16]
	stp	x9, x10, [x12, #-32]
1:	stp	x3, x4, [x0]
	stp	x5, x6, [x12, #-16]
	mov	x0, #0
	ret

.Lfrom_under_16:
	tbz	x2, #3, 1f
	user	.Lfrom_bytes, ldtr x3, [x1]
	user	.Lfrom_bytes, ldtr x4, [x13, #-8]
	str	x3, [x0]
	str	x4, [x12, #-8]
	mov	x0, #0
	ret
1:	tbz	x2, #2, .Lfrom_bytes
	user	.Lfrom_bytes, ldtr w3, [x1]
	user	.Lfrom_bytes, ldtr w4, [x13, #-4]
	str	w3, [x0]
	str	w4, [x12, #-4]
	mov	x0, #0
	ret

.Lfrom_long:
	user_enable 11
	subs	x2, x2, #256
	b.lo	2f
1:	user_pairs .Lfrom_fault, ldp, x1, 0
	own_pairs stp, x0, 0
	user_pairs .Lfrom_fault, ldp, x1, 64
	own_pairs stp, x0, 64
	user_pairs .Lfrom_fault, ldp, x1, 128
	own_pairs stp, x0, 128
	user_pairs .Lfrom_fault, ldp, x1, 192
	own_pairs stp, x0, 192
	add	x1, x1, #256
	add	x0, x0, #256
	subs	x2, x2, #256
	b.hs	1b
2:	adds	x2, x2, #256 - 64		// left, less 64
	b.lo	4f				// (no carry: fewer than 64)
3:	user_pairs .Lfrom_fault, ldp, x1, 0
	own_pairs stp, x0, 0
	add	x1, x1, #64
	add	x0, x0, #64
	subs	x2, x2, #64
	b.hs	3b
4:	adds	x2, x2, #64
	b.eq	5f
	add	x13, x1, x2			// the last 64, some of them again
	user_pairs .Lfrom_fault, ldp, x13, -64
	own_pairs stp, x12, -64
5:	user_disable 11
	mov	x0, #0
	ret

.Lfrom_fault:
	user_disable 11
.Lfrom_bytes:
	cmp	x0, x12
	b.eq	1f
	user	1f, ldtrb w3, [x1]
	strb	w3, [x0], #1
	add	x1, x1, #1
	b	.Lfrom_bytes
1:	sub	x0, x12, x0
	ret

// size_t quarry_copy_to_user(void __user *to, const void *from, size_t n)
//   in: x0 = to, in the user half for n bytes, x1 = from, x2 = n   out: x0 = bytes that were not copied, the last ones
//   clobbers x1-x13, flags
	user_routine quarry_copy_to_user
	add	x12, x0, x2			// one past the end of to
	cmp	x2, #SHORT
	b.hi	.Lto_long
	add	x13, x1, x2
	cmp	x2, #16
	b.lo	.Lto_under_16
	ldp	x3, x4, [x1]
	ldp	x5, x6, [x13, #-16]
	cmp	x2, #32
	b.ls	1f
	ldp	x7, x8, [x1, #16]
	ldp	x9, x10, [x13, #-32]
	user	.Lto_bytes, sttr x7, [x0, #16]
	user	.Lto_bytes, sttr x8, [x0, #24]
	user	.Lto_bytes, sttr x9, [x12, #-32]
	user	.Lto_bytes, sttr x10, [x12, #-24]
1:	user	.Lto_bytes, sttr x3, [x0]
	user	.Lto_bytes, sttr x4, [x0, #8]
	user	.Lto_bytes, sttr x5, [x12, #-16]
	user	.Lto_bytes, sttr x6, [x12, #-8]
	mov	x0, #0
	ret

.Lto_under_16:
	tbz	x2, #3, 1f
	ldr	x3, [x1]
	ldr	x4, [x13, #-8]
	user	.Lto_bytes, sttr x3, [x0]
	user	.Lto_bytes, sttr x4, [x12, #-8]
	mov	x0, #0
	ret
1:	tbz	x2, #2, .Lto_bytes
	ldr	w3, [x1]
	ldr	w4, [x13, #-4]
	user	.Lto_bytes, sttr w3, [x0]
	user	.Lto_bytes, sttr w4, [x12, #-4]
	mov	x0, #0
	ret

.Lto_long:
	user_enable 11
	subs	x2, x2, #256
	b.lo	2f
1:	own_pairs ldp, x1, 0
	user_pairs .Lto_fault, stp, x0, 0
	own_pairs ldp, x1, 64
	user_pairs .Lto_fault, stp, x0, 64
	own_pairs ldp, x1, 128
	user_pairs .Lto_fault, stp, x0, 128
	own_pairs ldp, x1, 192
	user_pairs .Lto_fault, stp, x0, 192
	add	x1, x1, #256
	add	x0, x0, #256
	subs	x2, x2, #256
	b.hs	1b
2:	adds	x2, x2, #256 - 64
	b.lo	4f
3:	own_pairs ldp, x1, 0
	user_pairs .Lto_fault, stp, x0, 0
	add	x1, x1, #64
	add	x0, x0, #64
	subs	x2, x2, #64
	b.hs	3b
4:	adds	x2, x2, #64
	b.eq	5f
	add	x13, x1, x2			// the last 64, some of them again
	own_pairs ldp, x13, -64
	user_pairs .Lto_fault, stp, x12, -64
5:	user_disable 11
	mov	x0, #0
	ret

.Lto_fault:
	user_disable 11
.Lto_bytes:
	cmp	x0, x12
	b.eq	1f
	ldrb	w3, [x1], #1
	user	1f, sttrb w3, [x0]
	add	x0, x0, #1
	b	.Lto_bytes
1:	sub	x0, x12, x0
	ret

// size_t quarry_clear_user(void __user *to, size_t n)
//   in: x0 = to, in the user half for n bytes, x1 = n   out: x0 = bytes that were not cleared, the last ones
//   clobbers x1-x2, x11-x12, flags
	user_routine quarry_clear_user
	add	x12, x0, x1			// one past the end
	subs	x1, x1, #64
	b.lo	.Lclear_words
	user_enable 11
1:	user	.Lclear_fault, stp xzr, xzr, [x0]
	user	.Lclear_fault, stp xzr, xzr, [x0, #16]
	user	.Lclear_fault, stp xzr, xzr, [x0, #32]
	user	.Lclear_fault, stp xzr, xzr, [x0, #48]
	add	x0, x0, #64
	subs	x1, x1, #64
	b.hs	1b
	user_disable 11
.Lclear_words:
	sub	x2, x12, x0
	cmp	x2, #8
	b.lo	.Lclear_bytes
	user	.Lclear_bytes, sttr xzr, [x0]
	add	x0, x0, #8
	b	.Lclear_words
.Lclear_fault:
	user_disable 11
.Lclear_bytes:
	cmp	x0, x12
	b.eq	1f
	user	1f, sttrb wzr, [x0]
	add	x0, x0, #1
	b	.Lclear_bytes
1:	sub	x0, x12, x0
	ret

// Copies a string up to and with its NUL. No load crosses a page, so that nothing behind the NUL faults.
//   in: x0 = to, x1 = from, in the user half for n bytes, x2 = n
//   out: x0 = bytes copied without the NUL, x1 = 0: there was a NUL, 1: none in n bytes, 2: the next byte faults
//   clobbers x2-x7, x9-x11, flags. Up to 7 bytes behind the NUL, within the n, are written as zero.
	user_routine quarry_strncpy_from_user
	mov	x9, x0
	add	x10, x0, x2			// one past the end of to
	mov	x11, #0x0101010101010101
1:	sub	x3, x10, x0
	cmp	x3, #8
	b.lo	3f
	and	x3, x1, #0xfff
	cmp	x3, #0xff8
	b.hi	3f				// a word would cross into the next page
	user	6f, ldtr x4, [x1]
	sub	x5, x4, x11			// the lowest byte that is zero gets its highest bit set
	bic	x5, x5, x4
	ands	x5, x5, #0x8080808080808080
	b.ne	2f
	str	x4, [x0], #8
	add	x1, x1, #8
	b	1b
2:	rbit	x6, x5
	clz	x6, x6
	sub	x6, x6, #7			// bits in front of the NUL
	mov	x7, #-1
	lsl	x7, x7, x6
	bic	x4, x4, x7
	str	x4, [x0]
	sub	x0, x0, x9
	add	x0, x0, x6, lsr #3
	mov	x1, #0
	ret
3:	cmp	x0, x10
	b.eq	4f
	user	6f, ldtrb w4, [x1]
	strb	w4, [x0]
	cbz	w4, 5f
	add	x0, x0, #1
	add	x1, x1, #1
	b	1b
4:	sub	x0, x0, x9
	mov	x1, #1
	ret
5:	sub	x0, x0, x9
	mov	x1, #0
	ret
6:	sub	x0, x0, x9
	mov	x1, #2
	ret

// Loads of 1, 2, 4 and 8 bytes, and stores.
//   in: x0 = address in the user half, x1 = what is stored   out: x0 = value (loads), x1 = 0, or 1 after a fault
	.irp	size, 8, 16, 32, 64
	user_routine quarry_load_user_u\size
	.if \size == 8
	user	.Lload_fault, ldtrb w0, [x0]
	.elseif \size == 16
	user	.Lload_fault, ldtrh w0, [x0]
	.elseif \size == 32
	user	.Lload_fault, ldtr w0, [x0]
	.else
	user	.Lload_fault, ldtr x0, [x0]
	.endif
	mov	x1, #0
	ret
	user_routine quarry_store_user_u\size
	.if \size == 8
	user	.Lload_fault, sttrb w1, [x0]
	.elseif \size == 16
	user	.Lload_fault, sttrh w1, [x0]
	.elseif \size == 32
	user	.Lload_fault, sttr w1, [x0]
	.else
	user	.Lload_fault, sttr x1, [x0]
	.endif
	mov	x0, #0
	mov	x1, #0
	ret
	.endr
.Lload_fault:
	mov	x0, #0
	mov	x1, #1
	ret

// Compare and exchange of 4 and 8 bytes, with acquire and release. There are no unprivileged exclusives: PAN is clear meanwhile.
//   in: x0 = address in the user half, a multiple of the size, x1 = expected, x2 = new
//   out: x0 = what was found, x1 = 0, 1 after a fault, 2 after 128 tries in vain   clobbers x2-x5, x11, flags
	.macro	user_cmpxchg name, w
	user_routine \name
	user_enable 11
	mov	w5, #128
1:	user	8f, ldaxr \w\()3, [x0]
	cmp	\w\()3, \w\()1
	b.ne	2f
	user	8f, stlxr w4, \w\()2, [x0]
	cbz	w4, 2f
	subs	w5, w5, #1
	b.ne	1b
	mov	x1, #2
	b	3f
2:	mov	x1, #0
3:	user_disable 11
	mov	\w\()0, \w\()3
	ret
8:	user_disable 11
	mov	x0, #0
	mov	x1, #1
	ret
	.endm
	user_cmpxchg quarry_cmpxchg_user_u32, w
	user_cmpxchg quarry_cmpxchg_user_u64, x

	.previous
