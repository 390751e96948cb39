//! Marks around an operation for the emulator's log of executed instructions: two functions that do nothing, at
//! addresses that the runner reads from the image's symbols.

core::arch::global_asm!(
    ".section .text.bench_marks, \"ax\"",
    ".global bench_trace_begin",
    ".type bench_trace_begin, %function",
    "bench_trace_begin: ret",
    ".global bench_trace_end",
    ".type bench_trace_end, %function",
    "bench_trace_end: ret",
);

unsafe extern "C" {
    #[link_name = "bench_trace_begin"]
    safe fn mark_begin();
    #[link_name = "bench_trace_end"]
    safe fn mark_end();
}

/// The operation starts with the next instruction but one: this function's RET.
#[inline(always)]
pub(crate) fn begin() {
    mark_begin();
}

/// The operation is over.
#[inline(always)]
pub(crate) fn end() {
    mark_end();
}
