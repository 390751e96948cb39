// The first instructions: the 64-byte arm64 Image header, the way from the loader's state to EL1 with MMU and caches
// on, and the jump high. Everything here runs with the MMU off, at whatever 2 MiB-aligned physical address the loader
// chose: PC-relative addressing only, no stack, no unaligned and no exclusive access.
//
// What a loader guarantees (Linux Documentation/arch/arm64/booting.rst): MMU and data cache off, x0 = physical address
// of the device tree. What it does not: BSS, SP, DAIF, VBAR and every other register hold leftovers.

	.section .head.text.header, "ax"
	.global _head
_head:
	b	primary_entry			// code0
	.long	0				// code1
	.quad	0				// text_offset: the image starts on the 2 MiB boundary itself
	.quad	__image_size			// bytes of memory the image needs, BSS and stacks included
	.quad	0xa				// flags: little endian, 4 KiB pages, anywhere in memory
	.quad	0
	.quad	0
	.quad	0
	.ascii	"ARM\x64"			// magic
	.long	0				// no PE header

	.section .head.text, "ax"

// The entry of the boot CPU, and of every CPU that a loader lets loose on the entry point by accident.
//   in:      x0 = physical address of the device tree, or something else; EL3, EL2 or EL1; MMU off
//   out:     does not return; continues at primary_switched with
//            x19 = entry exception level, x20 = physical address of _head, x21 = x0 at entry,
//            x22 = counter at entry
//   clobbers everything
	.global primary_entry
primary_entry:
	msr	daifset, #15
	mov	x21, x0
	adr	x20, _head
	mrs	x22, cntvct_el0
	mrs	x19, CurrentEL
	ubfx	x19, x19, #2, #2

	// Where a loader releases all cores at once, the one whose affinity is zero boots. A core of another affinity is
	// the boot CPU only if it brings a device tree.
	mrs	x0, mpidr_el1
	ldr	x1, =0xff00ffffff
	tst	x0, x1
	b.eq	1f
	cbz	x21, park_secondary
1:
	mov	w1, #1
	bl	act_led
	bl	drop_to_el1
	bl	check_cpu
	bl	early_counters
	bl	create_early_tables
	mov	w1, #0
	bl	act_led
	adrp	x0, __early_pgd
	adrp	x1, __idmap_pgd
	ldr	x30, =primary_switched
	b	enable_mmu

	.ltorg

// Stops with a message if the CPU lacks what the tables need.
//   in: x20 = physical address of _head   state: EL1, MMU off   clobbers x0-x5
check_cpu:
	mrs	x0, id_aa64mmfr0_el1
	ubfx	x0, x0, #28, #4			// TGran4: 0 and 1 = supported, 0b1111 = not (Arm ARM D24.2.74)
	cmp	x0, #0b1111
	b.eq	1f
	ret
1:	adr	x0, no_granule_message
	b	early_stop

no_granule_message:
	.asciz	"quarry: this CPU has no 4 KiB translation granule (ID_AA64MMFR0_EL1.TGran4); cannot boot\r\n"
	.balign	4

// Starts event counter 0 on INST_RETIRED where there is a PMU, so that the cost of booting can be told.
//   state: EL1, MMU off   clobbers x0, x1
early_counters:
	mrs	x0, id_aa64dfr0_el1
	ubfx	x0, x0, #8, #4			// PMUVer: 0 = none, 0b1111 = not the architected one
	cbz	x0, 1f
	cmp	x0, #0b1111
	b.eq	1f
	mrs	x0, pmcr_el0
	ubfx	x1, x0, #11, #5			// N: event counters that this level may use
	cbz	x1, 1f
	mov	x1, #0x08			// INST_RETIRED
	msr	pmevtyper0_el0, x1
	msr	pmevcntr0_el0, xzr
	mov	x1, #1
	msr	pmcntenset_el0, x1
	orr	x0, x0, #1			// PMCR_EL0.E
	msr	pmcr_el0, x0
	isb
1:	ret

// The last words of a CPU that cannot boot: writes to the UARTs of the machine that the load address suggests, then parks.
// Only the Pi 4 has RAM below 1 GiB; virt has its devices there. On a Pi the mini-UART comes first: the firmware has clocked
// it or says that it is off, while a PL011 may be without its clock, and take no byte, or hang the bus.
//   in: x0 = NUL-terminated ASCII text, x20 = physical address of _head   state: any EL, MMU off   does not return
	.global early_stop
early_stop:
	mov	x9, x0
	mov	x10, #0x09000000		// virt: PL011
	lsr	x1, x20, #30
	cbnz	x1, 1f
	movz	x10, #0xfe20, lsl #16		// Pi 4: PL011
	movk	x10, #0x1000
	movz	x1, #0xfe21, lsl #16		// and the mini-UART, if AUX_ENABLES says that it is on
	movk	x1, #0x5000
	ldr	w2, [x1, #4]
	tbz	w2, #0, 1f
	add	x2, x1, #0x54			// AUX_MU_LSR_REG, bit 5: it can take a byte
	add	x1, x1, #0x40			// AUX_MU_IO_REG
	mov	w3, #1 << 5
	bl	put_text
1:	mov	x0, x9
	ldr	w3, [x10, #0x30]		// UARTCR: the loader has set it up, or nobody has
	orr	w3, w3, #1 << 8			// TXE
	orr	w3, w3, #1			// UARTEN
	str	w3, [x10, #0x30]
	mov	x1, x10				// UARTDR
	add	x2, x10, #0x18			// UARTFR, bit 5 (TXFF): it can take none
	mov	w3, #0
	bl	put_text
	mov	w1, #1
4:	bl	act_led
	cbz	w0, park
	eor	w1, w1, #1
	mrs	x4, cntvct_el0
5:	mrs	x5, cntvct_el0			// a third of a second on a Pi: the LED blinks
	sub	x5, x5, x4
	tbz	x5, #24, 5b
	b	4b

// Switches the green LED of a Pi 4 on or off, in an image that a tool has made for that board alone: on any other board these
// addresses have another use.
//   in: w1 = 1 for on, 0 for off   out: w0 = 0 in an image for any board   state: any EL, MMU off   clobbers x0, x2, x3
act_led:
	adr	x0, __act_led
	ldr	w0, [x0]
	cbz	w0, 1f
	movz	x3, #0xfe20, lsl #16		// GPIO
	ldr	w2, [x3, #0x10]			// GPFSEL4: GPIO 42 is an output
	bic	w2, w2, #7 << 6
	orr	w2, w2, #1 << 6
	str	w2, [x3, #0x10]
	mov	w2, #1 << 10
	add	x3, x3, #0x20			// GPSET1
	cbnz	w1, 2f
	add	x3, x3, #0xc			// GPCLR1
2:	str	w2, [x3]
1:	ret

	.global __act_led
__act_led:
	.long	0				// 1: quarry-run rpi4-image

// Writes text to a UART, and gives up where a byte finds no room: the wait for one is bounded.
//   in: x0 = NUL-terminated ASCII text, x1 = data register, x2 = status register, w3 = its bit 5 when there is room
//   state: any EL, MMU off   clobbers x0, x4-x6
put_text:
	ldrb	w4, [x0], #1
	cbz	w4, 3f
	movz	w5, #0x10, lsl #16		// a byte takes 0.1 ms at 115,200 baud, an access to a device 50 ns or more
1:	ldr	w6, [x2]
	and	w6, w6, #1 << 5
	cmp	w6, w3
	b.eq	2f
	subs	w5, w5, #1
	b.ne	1b
	ret					// nobody clocks it
2:	str	w4, [x1]
	b	put_text
3:	ret

	.global park
park:
	wfi
	b	park

// No identity map from here on: TTBR0 = the empty table, and nothing of what was there stays in the TLB.
//   in:  x20 = physical address of the image   clobbers x0, x1
	.section .text, "ax"
drop_idmap:
	adrp	x0, __empty_table
	ldr	x1, =_head
	sub	x0, x0, x1
	add	x0, x0, x20
	msr	ttbr0_el1, x0
	isb
	tlbi	vmalle1
	dsb	nsh
	isb
	ret

// First code at the link address.
//   in:  x19-x22 from primary_entry; MMU and caches on; TTBR1 = early tables, TTBR0 = idmap
//   out: does not return; calls quarry_boot_main on the boot stack with TTBR0 = the empty table
	.section .text, "ax"
primary_switched:
	adrp	x0, __boot_stack_top
	add	x0, x0, :lo12:__boot_stack_top
	mov	sp, x0
	adrp	x0, exception_vectors
	add	x0, x0, :lo12:exception_vectors
	msr	vbar_el1, x0

	bl	drop_idmap

	// BSS: the loader leaves it dirty. 64-byte aligned at both ends by the linker script.
	adrp	x0, __bss_start
	add	x0, x0, :lo12:__bss_start
	adrp	x1, __bss_end
	add	x1, x1, :lo12:__bss_end
	mrs	x2, dczid_el0
	cmp	x2, #4				// DC ZVA is allowed, and zeroes 64 bytes
	b.ne	2f
1:	dc	zva, x0
	add	x0, x0, #64
	cmp	x0, x1
	b.lo	1b
	b	3f
2:	stp	xzr, xzr, [x0]
	stp	xzr, xzr, [x0, #16]
	stp	xzr, xzr, [x0, #32]
	stp	xzr, xzr, [x0, #48]
	add	x0, x0, #64
	cmp	x0, x1
	b.lo	2b
3:
	mov	x0, x21
	mov	x1, x20
	mov	x2, x19
	mov	x3, x22
	mov	x29, xzr			// backtraces end here
	mov	x30, xzr
	bl	quarry_boot_main
	b	park
