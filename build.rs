//! Tells the build scripts of kernels on the boot stub where the linker script is, as `DEP_QUARRY_LINKER_SCRIPT`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=linker.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::metadata=linker_script={}/linker.ld", env!("CARGO_MANIFEST_DIR"));
    }
}
