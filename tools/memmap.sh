#!/bin/sh
# usage: memmap.sh FILE.dtb[.gz]
# What the kernel would make of a device tree, as one line of JSON; for a damaged one a line of error and status 1.
# (`make memmap` is this, but make has a status and a line of its own when a command fails.)
set -eu
tree=$(realpath "$1")
cd "$(dirname "$0")/.."
exec cargo run --quiet --target "$(rustc -vV | sed -n 's/^host: //p')" --no-default-features --features host \
    --bin memmap -- "$tree"
