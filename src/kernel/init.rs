//! The order of boot.

/// scratch
#[unsafe(no_mangle)]
pub extern "C" fn quarry_boot_main(dtb: u64, image: u64, el: u64, cnt: u64) -> ! {
    loop {}
}
