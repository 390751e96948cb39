#!/bin/sh
# usage: pictures.sh FOLDER
# Pictures of a terminal from real runs: a fault report, of the test that overflows a stack; the map of RAM after a stress, with
# allocations that a person made.
set -eu
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
(cd "$here" && CARGO_BUILD_TARGET=$host cargo build --quiet --target-dir "$target/report")
log=$(mktemp)
trap 'rm -f "$log"' EXIT
tools/runner.sh "$(tools/image-elf.sh tests)" --exact faults::a_stack_overflow_is_reported_from_a_stack_of_its_own --nocapture |
    sed '/^test .* \.\.\. /,$d' >"$log"
report=$target/report/$host/debug/quarry-report
"$report" picture "$log" "fault: stack overflow" "$folder/fault-report.svg"
cargo build --quiet --release --bin quarry
tools/runner.sh boot mem=128M smp=4 append=term=xterm-256color \
    'type=alloc 10;alloc 9;vmalloc 20000000;kmalloc 3000000;exec spin &\r|stress 1\r|map\r|quit\r' \
    "$target/aarch64-unknown-none-softfloat/release/quarry" </dev/null >"$log"
"$report" picture "$log" "quarry> map" "$folder/map.svg" "quarry> quit"
