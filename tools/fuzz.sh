#!/bin/sh
# usage: fuzz.sh [TARGET]
# Runs TARGET, or every fuzz target, for FUZZ_SECONDS (60) on nightly Rust.
set -eu
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: installing cargo-fuzz, which runs the targets" >&2
    # The package's own default target is the bare machine.
    cargo install --locked --target "$host" cargo-fuzz
fi
for target in ${1:-$(cargo +nightly fuzz list)}; do
    cargo +nightly fuzz run --target "$host" "$target" -- -len_control=0 -max_total_time="${FUZZ_SECONDS:-60}"
done
