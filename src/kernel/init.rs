//! The order of boot.

/// scratch
#[unsafe(no_mangle)]
pub extern "C" fn quarry_boot_main(dtb: u64, image: u64, el: u64, cnt: u64) -> ! {
    loop {}
}
#[cfg(not(test))]
#[panic_handler]
fn p(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
core::arch::global_asm!(
    ".section .text.vectors,\"ax\"\n .balign 2048\n.global exception_vectors\nexception_vectors: b ."
);
