// Data-cache maintenance of many lines, by address to the point of coherency (Arm ARM D7.5): two instructions a line.

// One instruction for each line from x9 on: into the middle of a run of 64, then whole runs.
//   in:  x9 = first line, x10 = bytes of a line, x11 = one past the last byte, above x9
//   out: nothing   clobbers x9, x11 to x13, flags kept
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
    .quad   771b, 0x2dac0014c       // rbit x12, x10
    .popsection
    .else
    rbit    x12, x10
    .endif
    clz     x12, x12                // log2 of a line
    sub     x11, x11, x9
    add     x11, x11, x10
    sub     x11, x11, #1
    lsr     x11, x11, x12           // lines
    and     x12, x11, #63
    lsr     x11, x11, #6
    adr     x13, 2f
    sub     x13, x13, x12, lsl #3
    br      x13
1:  .rept   64
    dc      \op, x9
    add     x9, x9, x10
    .endr
2:  sub     x11, x11, #1
    tbz     x11, #63, 1b
    ret
    .size   \name, . - \name
    .previous
.endm

    maintain_lines dc_lines_cvac, cvac, dc_lines_civac
    maintain_lines dc_lines_ivac, ivac
    maintain_lines dc_lines_civac, civac
