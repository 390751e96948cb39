#!/bin/sh
# What cargo runs for a program of the bare machine: builds quarry-run for this machine if it is older than its sources,
# and hands over. Its target directory is its own, so that it never waits for the cargo that called.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=${CARGO_TARGET_DIR:-$root/target}/runner
run=$out/debug/quarry-run
if [ ! -x "$run" ] || [ -n "$(find "$root/tools/run" "$root/Cargo.toml" "$root/Cargo.lock" -newer "$run")" ]; then
    host=$(cd "$root" && rustc -vV | sed -n 's/^host: //p')
    # Without --target the binary's directory has no triple in it; the package's own default is the bare machine.
    (cd "$root" && CARGO_BUILD_TARGET='' cargo build --quiet --no-default-features --features host --bin quarry-run \
        --target "$host" --target-dir "$out") >&2
    mkdir -p "$out/debug"
    cp "$out/$host/debug/quarry-run" "$run.new.$$"
    mv "$run.new.$$" "$run"
fi
exec "$run" "$@"
