// Data-cache maintenance of many lines, by address to the point of coherency (Arm ARM D7.5): two instructions a line.

// One instruction for each line behind that of x9: into the middle of a run of 63. Runs of 64 come before it.
//   in:  x9 = an address in the line before the first, x10 = LINES of dcache.rs, x11 = number of lines, not 0
//   out: nothing   clobbers x9, x11 to x13, flags
//   state: MMU on, the lines mapped; interrupts as they are
//   safe: the routine that does this one's work on a core on which its instruction is broken (alternative.rs)
.macro maintain_lines name:req, op:req, safe
    .section .text.\name, "ax", %progbits
    .global \name
    .type   \name, %function
\name:
    .ifnb \safe
771: b      \safe
    .pushsection quarry_alternatives, "aR"
    .quad   771b, 0x2f101016c       // subs x12, x11, #64
    .popsection
    .else
    subs    x12, x11, #64
    .endif
1:  b.hs    3f
    adr     x13, 2f
    sub     x13, x13, x11, lsl #3
    br      x13
    .rept   63
    add     x9, x9, x10, lsr #6     // a line further
    dc      \op, x9
    .endr
2:  ret
3:  mov     x11, x12
    .rept   64
    add     x9, x9, x10, lsr #6     // a line further
    dc      \op, x9
    .endr
    subs    x12, x11, #64
    b       1b
    .size   \name, . - \name
    .previous
.endm

    maintain_lines dc_lines_cvac, cvac, dc_lines_civac
    maintain_lines dc_lines_ivac, ivac
    maintain_lines dc_lines_civac, civac
