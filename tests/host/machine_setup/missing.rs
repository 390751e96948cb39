//! Messages of `make` on a machine that lacks a program and where it may not install it.

use super::{Dir, run, script};
use std::path::Path;
use std::process::Command;

/// Programs that the script itself is made of; everything else it finds only if a test put it there.
const BASICS: [&str; 12] = ["cat", "cp", "dirname", "env", "grep", "head", "id", "mkdir", "sed", "sh", "tr", "awk"];

/// A machine with the basics and nothing else, where nobody is root.
fn bare_machine(name: &str) -> Dir {
    let dir = Dir::new(name);
    for basic in BASICS {
        let (found, path, _) = run(Command::new("sh").args(["-c", &format!("command -v {basic}")]));
        assert!(found, "this machine has no {basic}");
        dir.program(basic, &format!("exec {} \"$@\"", path.trim()));
    }
    dir.program("id", "echo 1000");
    dir.write("os-release", "ID=debian\nVERSION_CODENAME=bookworm\n");
    dir.write("apt/sources.list", "deb http://mirror.example/debian bookworm main\n");
    dir
}

fn set_up(dir: &Dir, purpose: &str) -> (bool, String) {
    let (ok, _, said) = run(Command::new(dir.0.join("bin/sh"))
        .arg(script("setup.sh"))
        .arg(purpose)
        .env_clear()
        .env("PATH", dir.0.join("bin"))
        .env("HOME", Path::new("/nonexistent"))
        .env("OS_RELEASE", dir.0.join("os-release"))
        .env("APT_DIR", dir.0.join("apt")));
    (ok, said)
}

/// Rust as pinned, complete.
fn with_rust(dir: &Dir) {
    dir.program(
        "rustup",
        "case $1 in run) ;; component) printf '%s\\n' rustfmt-x clippy-x llvm-tools-x \
         rust-std-aarch64-unknown-none rust-std-aarch64-unknown-none-softfloat ;; *) exit 1 ;; esac",
    );
    dir.program("cc", "cat >/dev/null");
}

#[test]
fn without_rustup_what_to_install_and_to_type_is_printed() {
    let (ok, said) = set_up(&bare_machine("no-rustup"), "run");
    assert!(!ok);
    let pinned = include_str!("../../../rust-toolchain.toml").lines().find_map(|line| line.strip_prefix("channel = "));
    let install = format!("    rustup toolchain install {}", pinned.unwrap_or_default().trim_matches('"'));
    assert!(said.contains("please run rustup-init") && said.lines().any(|line| line == install), "{said}");
}

#[test]
fn without_root_every_command_is_printed() {
    let dir = bare_machine("no-root");
    with_rust(&dir);
    dir.program("apt-get", "echo apt-get was called >&2; exit 1");
    dir.program("apt-cache", "[ $1 = policy ] && [ $2 != -t ] && echo '  Candidate: 1:7.2+dfsg-7'");
    let (ok, said) = set_up(&dir, "test");
    assert!(!ok);
    for line in [
        "    sudo apt-get update",
        "--no-install-recommends device-tree-compiler",
        "    sudo cp target/bookworm-backports.sources /etc/apt/sources.list.d/",
        "-t bookworm-backports qemu-system-arm",
    ] {
        assert!(said.contains(line), "no {line:?} in:\n{said}");
    }
    assert!(!said.contains("apt-get was called"), "{said}");
}

#[test]
fn an_old_qemu_will_do_to_run() {
    let dir = bare_machine("old-qemu");
    with_rust(&dir);
    dir.program("qemu-system-aarch64", "echo 'QEMU emulator version 7.2.15 (Debian)'");
    assert_eq!(set_up(&dir, "run"), (true, String::new()));
    let (ok, said) = set_up(&dir, "test");
    assert!(!ok && said.contains("QEMU 9.0"), "{said}");
}

#[test]
fn a_missing_target_is_added() {
    let dir = bare_machine("no-target");
    with_rust(&dir);
    dir.program("qemu-system-aarch64", "echo 'QEMU emulator version 10.0.2'");
    dir.program(
        "rustup",
        "case $1 in run) ;; component) printf '%s\\n' rustfmt-x clippy-x llvm-tools-x rust-std-aarch64-unknown-none ;; \
         target) echo rustup \"$@\" >&2 ;; *) exit 1 ;; esac",
    );
    let (ok, said) = set_up(&dir, "run");
    assert!(ok, "{said}");
    assert!(said.contains("aarch64-unknown-none-softfloat\n") && said.contains("rustup target add"), "{said}");
    assert!(!said.contains("the target aarch64-unknown-none to"), "{said}");
}
