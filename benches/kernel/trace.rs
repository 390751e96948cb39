//! A mark for the emulator's log of executed instructions: a function that does nothing, at an address that the runner
//! reads from the image's symbols. A row executes the instructions between the two readings of the counter before it.

core::arch::global_asm!(
    ".section .text.bench_trace_mark, \"ax\"",
    ".global bench_trace_mark",
    ".type bench_trace_mark, %function",
    "bench_trace_mark: ret",
);

unsafe extern "C" {
    #[link_name = "bench_trace_mark"]
    safe fn bench_trace_mark();
}

/// The stretch that has just ended is the one to keep.
pub(crate) fn mark() {
    bench_trace_mark();
}
