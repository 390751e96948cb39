//! Hands the linker script to this package's own kernel images, and to nothing that embeds the library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rerun-if-changed=boot");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // For the build scripts of kernels on the boot stub, as `DEP_QUARRY_LINKER_SCRIPT`.
    println!("cargo::metadata=linker_script={}/linker.ld", env!("CARGO_MANIFEST_DIR"));
    // cargo runs the linker in the package's directory, wherever that is when it does.
    for kind in ["bins", "tests"] {
        println!("cargo::rustc-link-arg-{kind}=-Tlinker.ld");
        println!("cargo::rustc-link-arg-{kind}=--no-dynamic-linker");
        println!("cargo::rustc-link-arg-{kind}=-znorelro");
    }
}
