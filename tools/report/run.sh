#!/bin/sh
# usage: run.sh ELF OUT
# Boots the kernel, lets it record itself, and makes the page OUT of what it printed. The log stays beside it.
set -eu
elf=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$(dirname "$out")"
log=${out%.html}.log
# Small, so that a peak of allocations shows on the map.
"$here/../runner.sh" boot mem=128M smp=4 'type=record\r|quit\r' "$elf" </dev/null >"$log"
(cd "$here" && CARGO_BUILD_TARGET=$host cargo build --quiet --target-dir "$target/report")
table=$target/bench/overview.md
[ -f "$table" ] || table=$here/../../docs/performance.md
"$target/report/$host/debug/quarry-report" page "$log" "$table" "$out"
echo "$out"
