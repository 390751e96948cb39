//! Hands the linker script of the reference kernel to the benchmarks, which are one of its images.

use std::path::Path;

fn main() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../linker.ld");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", script.display());
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    println!("cargo::rustc-link-arg-benches=-T{}", script.display());
    for flag in ["--no-dynamic-linker", "-znorelro", "--fix-cortex-a53-843419"] {
        println!("cargo::rustc-link-arg-benches={flag}");
    }
}
