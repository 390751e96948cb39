#!/bin/sh
# Everything that is checked, one step after the other, whatever becomes of the earlier ones. The last line counts the
# tests of all steps; a step that is no test run counts as one.
set -u
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}
logs=$target/suite
mkdir -p "$logs"
# Everything is built once there, so that what makes the next build shorter only makes this one longer.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0
# Without debug information everything builds an eighth faster; a failure names its place all the same.
[ -z "${CI:-}" ] || export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_RELEASE_DEBUG=0
steps=$logs/steps
: >"$steps"

# step NAME COMMAND...: runs it, shows what it prints, counts it, and notes how long it took. A step has no limit of its
# own, since a build takes as long as the machine does; what runs tests is watched (watch).
step() {
    name=$1
    shift
    log=$logs/$(echo "$name" | tr ' ' '-')
    printf '\n== %s\n' "$name"
    begun=$(date +%s)
    # The status goes through a file, since a pipeline's is that of `tee`.
    { "$@" 2>&1; echo $? >"$log.status"; } | tee "$log.log"
    # A line for each step: seconds, what passed, what failed, whether it is broken, its name.
    awk -v status="$(cat "$log.status")" -v took=$(($(date +%s) - begun)) -v name="$name" '
        /^test result:/ { passed += $4; failed += $6; seen = 1 }
        END {
            if (!seen) passed = status == 0
            # A failure that no test line accounts for.
            if (status != 0 && !failed) failed = 1
            printf "%d\t%d\t%d\t%d\t%s\n", took, passed, failed, status != 0, name
        }' "$log.log" >>"$steps"
}

# beside STEPS: begins steps that run beside those that follow, up to `together`, which shows what they printed. They
# build what the others do not, so that neither waits for the other's lock: one compiles while the other links, or boots.
beside() {
    printf '\n== beside: %s\n' "$1"
    "$1" >"$logs/beside.log" 2>&1 &
    beside=$!
    trap 'kill "$beside"; exit 130' INT TERM
}

together() {
    wait "$beside"
    trap - INT TERM
    cat "$logs/beside.log"
}

# watch COMMAND...: runs what is built already, with nobody at its input, and ends it if it prints nothing for three
# minutes.
watch() { tools/runner.sh watch 180 "$@"; }

on_host() {
    command=$1
    shift
    cargo "$command" --target "$host" --no-default-features --features host "$@"
}

# The benchmarks with the peers, and without them; the library as other kernels take it.
lints_kernel() {
    cargo clippy --quiet --workspace --features quarry-benches/peers --lib --bins --tests --benches -- -D warnings &&
        cargo clippy --quiet -p quarry-benches --benches -- -D warnings &&
        cargo clippy --quiet -p quarry --lib --features global -- -D warnings &&
        cargo clippy --quiet -p quarry --lib --features boot -- -D warnings
}

# The examples in the documentation, compiled and run on the host: the library has no test harness on the bare machine,
# so that cargo itself would leave them out.
doc_examples() {
    on_host build --quiet --lib &&
        on_host rustdoc --quiet --lib -- --test --extern \
            "quarry=$target/$host/debug/libquarry.rlib"
}

# What the library shows to other crates, name by name.
public_names() {
    cargo doc --quiet --no-deps -p quarry --features kernel &&
        tools/runner.sh public-names "$target/aarch64-unknown-none-softfloat/doc/quarry" docs/public-names.txt
}

# The release image, as `make run` boots it with nobody there.
run_unattended() {
    cargo build --quiet --release --bin quarry && watch cargo run --quiet --release --bin quarry
}

host_tests() {
    on_host test --quiet --no-run &&
        watch cargo test --target "$host" --no-default-features --features host
}

# kernel_tests IMAGE OPTION... [-- NAME...]
kernel_tests() { cargo test --quiet --no-run --test "$@" && watch cargo test --test "$@"; }

benchmarks() {
    # In the kernel's own profile, so that the library is built once; without the peers.
    cargo bench --quiet --no-run --profile release -p quarry-benches --bench kernel &&
        watch cargo bench --quiet --profile release -p quarry-benches --bench kernel -- "$@"
}

# Of the library alone, types and variables are in the image too: the debugger's test reads them.
types="--config profile.dev.package.quarry.debug=2"

# shellcheck disable=SC2086
kernel_elf() { tools/image-elf.sh tests $types; }

planted() { watch tools/runner.sh planted "$(kernel_elf)"; }

# The programs that the images bring along: their build script compiles them, and nothing else looks at them.
user_programs() {
    (cd user && cargo fmt --check && CARGO_TARGET_DIR=${built%/examples}/user cargo clippy --quiet -- -D warnings)
}

# Sequences that Cortex-A53 gets wrong: reading an image fails where one is left. Both images have such places as they are
# linked, so that a scan that finds nothing is a broken scan.
a53() {
    for elf in "$target/aarch64-unknown-none-softfloat/release/quarry" "$(kernel_elf)"; do
        said=$(tools/runner.sh a53 "$elf") || return 1
        echo "$said"
        case $said in *"835769: 0 places"*) return 1 ;; *"places moved out of the way; 843419: none left"*) ;; *) return 1 ;; esac
    done
}

# The boot under a model of the caches, which QEMU has not; each clean, invalidate and barrier left out in turn. A plugin wants
# QEMU's public interface of 9.2 and glib.
cache_model() { tools/cache-model/run.sh "$(kernel_elf)"; }

# Tests on QEMU's Pi 4 as they run on a board: no semihosting, no boot arguments, by the serial port alone. All that a board runs
# but those that take most of the time: `tools/runner.sh rpi4-test ELF` runs them too.
rpi4_tests() {
    tools/runner.sh rpi4-test "$(kernel_elf)" -slab_bulk:: -step:: -vmalloc_linux:: -reclaim:: -process:: -spaces:: -nested:: \
        -cpus::a_cpu_that_goes
}

# Rows of the benchmarks there, by both of its figures: they mean nothing under QEMU, but must come.
rpi4_bench() {
    tools/runner.sh rpi4-bench-test "$(tools/image-elf.sh benches)" "$1"
}

# The last words of a kernel that cannot boot.
early_stop() { tools/runner.sh early-stop "$(kernel_elf)"; }

# Exactly what the boot partition of a Pi's card takes.
rpi4_files() {
    make --no-print-directory rpi4 &&
        [ "$(cd target/rpi4 && echo *)" = "README.txt config.txt kernel8.img" ]
}

# The parts of the library that are values, for machines that are no bare 64-bit Arm; and the sentence of the others.
other_machines() {
    for machine in riscv64gc-unknown-none-elf x86_64-unknown-none aarch64-unknown-uefi; do
        # Nothing else needs them, so they are no part of the toolchain that everybody installs.
        [ -d "$(rustc --print target-libdir --target "$machine")" ] || rustup target add "$machine" || {
            echo "please type: rustup target add $machine"
            return 1
        }
        cargo check --quiet -p quarry --lib --features global-allocator --target "$machine" || return 1
    done
    refused=$(cargo check --quiet -p quarry --lib --features global --target x86_64-unknown-none 2>&1) && return 1
    case $refused in *"are for a bare-metal target of 64-bit Arm"*"1 previous error"*) ;; *) echo "$refused"; return 1 ;; esac
    refused=$(cargo check --quiet -p quarry --lib --features boot --target aarch64-unknown-none 2>&1) && return 1
    case $refused in *"is for soft-float targets"*"1 previous error"*) ;; *) echo "$refused"; return 1 ;; esac
}

# What no image of a kernel without the boot stub holds.
not_asked_for="quarry_boot_main exception_vectors __ktests_start"

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
case $target in /*) packages=$target/package built=$target/examples ;; *) packages=$PWD/$target/package built=$PWD/$target/examples ;; esac

# The library as a registry hands it out. The examples are built upon it, those with the same features upon one build.
packaged() {
    # What an earlier version unpacked would be compiled as well. Files in a package are all as old as each other, so that cargo would
    # take them for those that it has built (-m).
    rm -rf "$packages/quarry-$version"
    cargo package --quiet -p quarry --allow-dirty --no-verify &&
        tar -C "$packages" -xzmf "$packages/quarry-$version.crate"
}

# on_package NAME COMMAND...: cargo's command in the folder of the example.
on_package() {
    name=$1
    shift
    (cd "examples/$name" && CARGO_TARGET_DIR=$built cargo "$@" --quiet --config "paths=['$packages/quarry-$version']")
}

# boots NAME QEMU-OPTIONS...: builds the example and boots it; what it said is in $said. It finds nothing in its image that it
# did not ask for.
boots() {
    name=$1
    shift
    on_package "$name" build || return 1
    image=$built/aarch64-unknown-none-softfloat/debug/$name
    for forced in $not_asked_for; do
        ! grep -aq "$forced" "$image" || { echo "the image holds $forced"; return 1; }
    done
    said=$(watch "${QUARRY_QEMU:-qemu-system-aarch64}" -machine virt -cpu cortex-a72 -nic none -display none \
        -serial stdio "$@" -kernel "$image")
    status=$?
    echo "$said"
    return $status
}

# lines FILE...: lines that are neither empty nor a comment.
lines() { cat "$@" | grep -cv '^[[:space:]]*\(//.*\|#.*\|/\*.*\)\?$'; }

# Someone else's kernel over the values of the library alone.
embed() {
    boots embed || return 1
    case $said in *"MMU on, W^X ok"*"kmalloc up"*"all memory is back"*) ;; *) return 1 ;; esac
}

# Someone else's kernel, with its own boot, tables and vectors, over the feature `global`, on four CPUs.
own_boot() {
    boots own-boot -smp 4 -m 1G || return 1
    case $said in *"CPU 3 has made 10000 tasks"*"4 CPUs, all invariants hold"*) ;; *) return 1 ;; esac
    echo "lines that it takes: $(lines examples/own-boot/src/memory.rs)"
    [ "$(lines examples/own-boot/src/memory.rs)" -le 40 ]
}

# Someone else's kernel with threads, preemptive, on four CPUs. It asserts the counts that it prints, and says the last line
# only if all of them were right; it leaves with a status.
threads_example() {
    boots threads -smp 4 -semihosting || return 1
    case $said in
    *"stack of thread bottomless"*"overflowed at"*"the thread ends"*"60 times nested scopes were held on three CPUs or more"*"threads waited in NOFAIL: blocked"*"nobody left to wait for: the OOM hook was called 2 times"*"calls of the shrinker in the reclaimer's thread"*"soak: 192000 operations of 12 threads, by CPU"*"all invariants hold"*"switches, "*"by the timer, "*"migrations"*) ;;
    *) return 1 ;;
    esac
    echo "lines that it takes: $(lines examples/threads/src/memory.rs)"
    [ "$(lines examples/threads/src/memory.rs)" -le 70 ]
}

# Someone else's kernel with threads and processes on the boot stub. It asserts the counts that it prints, and says the last line
# only if all of them were right.
processes_example() {
    not_asked_for=quarry_ktest boots processes || return 1
    case $said in
    *"hello from EL0"*"a process that reads 0xffff800080000000 ends, and the kernel goes on"*"memory mapped 8 times while"*"the largest process was killed when memory was used up; every page is back, all invariants hold"*) ;;
    *) return 1 ;;
    esac
    echo "lines that it takes: $(lines examples/processes/src/memory.rs)"
    [ "$(lines examples/processes/src/memory.rs)" -le 120 ]
}

# Someone else's `main` on this crate's boot stub: manifest, build script and source together.
own_main() {
    not_asked_for=quarry_ktest boots own-main || return 1
    case $said in *"linux,dummy-virt: kmalloc, vmalloc and a device"*) ;; *) return 1 ;; esac
    taken=$(lines examples/own-main/Cargo.toml examples/own-main/build.rs examples/own-main/src/main.rs)
    echo "lines that it takes: $taken"
    [ "$taken" -le 40 ]
}

# Firmware without MMU: what it pays for its heap is stated, and bounded.
firmware() {
    boots firmware || return 1
    case $said in *"sum 499500, 75 KiB of statics"*"924 again"*) ;; *) return 1 ;; esac
}

# The examples that the documentation shows, as a crate that knows the prelude alone; the kernel tests run them.
families() { on_package families build; }

# Drivers of real devices, the disk through `virtio-drivers`: each asserts what it prints.
driver() {
    scratch=$(mktemp -d) || return 1
    truncate -s 1M "$scratch/disk"
    not_asked_for=quarry_ktest boots driver -m 3G -global virtio-mmio.force-legacy=false -device virtio-rng-device \
        -drive "if=none,format=raw,id=disk,file=$scratch/disk" -device virtio-blk-device,drive=disk,queue-size=256
    status=$?
    rm "$scratch/disk" && rmdir "$scratch"
    [ $status = 0 ] || return 1
    case $said in
    *"fw_cfg: QEMU, device that snoops"*"disk: does not snoop: 1 to 128 segments"*"disk: reaches 31 bits: 1 to 128 segments"*"failed probes left nothing"*"all given back, all invariants hold"*) ;;
    *) return 1 ;;
    esac
}

# Quarry behind ArceOS's traits: the collections of the standard library live on it.
arceos() { on_package arceos test --target "$host"; }

# gdb over the tests' image, which boots to the prompt as well, a planted crash, and a core of it (docs/debugging.md).
debugger() {
    elf=$(kernel_elf) && SMP=2 MEM=128M watch tools/gdb/run.sh "$elf" -batch -x tools/gdb/test.py
}

# In the release profile, and for packages of their own; an image of another kind of kernel.
release_steps() {
    step "boot, nobody there" run_unattended
    step "files for a Raspberry Pi 4" rpi4_files
    step "figures within their budget" benchmarks --budget
    step "figures on a Raspberry Pi 4" rpi4_bench alloc_pages/0
    step "library as a package" packaged
    step "example embed" embed
    step "example own-boot" own_boot
    step "example threads" threads_example
    step "example processes" processes_example
    step "example own-main" own_main
    step "example firmware" firmware
    step "example driver" driver
    step "example arceos" arceos
    step "example families" families
    step "programs for EL0, format and lints" user_programs
    step "library for other machines" other_machines
    # Stacks of 8 KiB are the example of threads. It is the last, as it builds where the kernel tests are built.
    step "kmalloc from 128 bytes on, stacks of 4 KiB" \
        kernel_tests sizes -p quarry-kernel --features other-sizes -- kmalloc stacks::
}

step "format" cargo fmt --all --check
beside release_steps
# What boots machines, and what the host tests build upon. The steps beside build before they boot.
step "runner" on_host build --quiet --bin quarry-run
step "lints, kernel" lints_kernel
step "library on hard-float" cargo rustc --quiet -p quarry --lib --target aarch64-unknown-none -- -D warnings
step "lints, host" on_host clippy --quiet --workspace --features quarry-benches/peers --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items
step "public names" public_names
step "host tests" host_tests
step "documentation examples" doc_examples
# shellcheck disable=SC2086
step "kernel tests" kernel_tests kernel $types
step "debugger" debugger
step "tests that fail on purpose" planted
step "caches at boot" cache_model
step "tests for a Raspberry Pi 4" rpi4_tests
step "kernels that cannot boot" early_stop
together
step "errata of Cortex-A53" a53

printf '\n'
tools/runner.sh size "$target/aarch64-unknown-none-softfloat/release/quarry" || true
awk -F '\t' '
    BEGIN { print "what each step took:" }
    { printf "%6d s  %s\n", $1, $5; passed += $2; failed += $3 }
    $4 { broken = broken "\n    " $5 }
    END {
        if (broken) print "failed steps:" broken
        printf "%d passed, %d failed\n", passed, failed
        exit failed != 0
    }' "$steps"
