#!/bin/sh
# What cargo runs for a program of the bare machine: hands over to quarry-run, which is built for this machine if it is older
# than its sources. Its target directory is its own, so that it never waits for the cargo that called.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
run=$target/runner/debug/quarry-run
is_new() {
    [ -x "$1" ] && [ -z "$(find "$root/tools/run" "$root/Cargo.toml" "$root/Cargo.lock" -newer "$1")" ]
}
if ! is_new "$run"; then
    host=$(cd "$root" && rustc -vV | sed -n 's/^host: //p')
    # The host tests build it too; what they have built need not be built again.
    built=$target/$host/debug/quarry-run
    # Without --target the binary's directory has no triple in it; the package's own default is the bare machine.
    is_new "$built" || {
        (cd "$root" && CARGO_BUILD_TARGET='' cargo build --quiet -p quarry --features host --bin quarry-run \
            --target "$host" --target-dir "$target/runner") >&2
        built=$target/runner/$host/debug/quarry-run
    }
    mkdir -p "$target/runner/debug"
    cp "$built" "$run.new.$$"
    mv "$run.new.$$" "$run"
fi
exec "$run" "$@"
