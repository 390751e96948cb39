//! Hands the linker script to the reference kernel's images, as any kernel on the boot stub does.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(script) = std::env::var("DEP_QUARRY_LINKER_SCRIPT") else { return };
    for kind in ["bins", "tests"] {
        for flag in [&format!("-T{script}"), "--no-dynamic-linker", "-znorelro", "--fix-cortex-a53-843419"] {
            println!("cargo::rustc-link-arg-{kind}={flag}");
        }
    }
}
