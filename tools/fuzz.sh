#!/bin/sh
# usage: fuzz.sh [SECONDS]
# Runs every fuzz target for SECONDS (60) on nightly Rust.
set -eu
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: installing cargo-fuzz, which runs the targets" >&2
    cargo install --locked --target "$host" cargo-fuzz
fi
for target in $(cargo +nightly fuzz list); do
    cargo +nightly fuzz run --target "$host" "$target" -- -max_total_time="${1:-60}"
done
