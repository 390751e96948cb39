//! Hands the linker script to the reference kernel's images, as any kernel on the boot stub does, and compiles the programs
//! that they bring along for EL0 (user/): `programs.rs` in the output directory names them.
#![expect(clippy::expect_used, reason = "a build script fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(script) = env::var("DEP_QUARRY_LINKER_SCRIPT") else { return };
    for kind in ["bins", "tests"] {
        for flag in [&format!("-T{script}"), "--no-dynamic-linker", "-znorelro", "--fix-cortex-a53-843419"] {
            println!("cargo::rustc-link-arg-{kind}={flag}");
        }
    }
    user_programs();
}

/// Compiles the runtime and each program of user/src/bin with the compiler of this build.
fn user_programs() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../user/src");
    println!("cargo::rerun-if-changed={}", sources.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let runtime = out.join("libquarry_user.rlib");
    compile(&sources.join("lib.rs"), &runtime, &["--crate-type=rlib", "--crate-name=quarry_user"]);
    let bins = fs::read_dir(sources.join("bin")).expect("user/src/bin");
    let mut bins: Vec<PathBuf> = bins.map(|entry| entry.expect("a file").path()).collect();
    bins.sort();
    let uses = format!("--extern=quarry_user={}", runtime.display());
    let mut list = String::new();
    for source in bins {
        let name = source.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let program = out.join(name);
        compile(&source, &program, &["--crate-type=bin", "-Cstrip=symbols", &uses]);
        list += &format!("quarry::user_program!({name:?}, {:?});\n", program.display().to_string());
    }
    fs::write(out.join("programs.rs"), list).expect("the output directory can be written");
}

fn compile(source: &Path, to: &Path, flags: &[&str]) {
    let rustc = env::var_os("RUSTC").expect("cargo sets it");
    let target = env::var("TARGET").expect("cargo sets it");
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", "-Copt-level=2", "-Cpanic=abort", "--target", &target]).args(flags);
    let status = command.arg(source).arg("-o").arg(to).status().expect("the compiler starts");
    assert!(status.success(), "{} does not compile", source.display());
}
