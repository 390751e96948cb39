#!/bin/sh
# usage: run.sh ELF
# Builds the model of the caches, a plugin for QEMU's translator, and boots the kernel with tests in it under it, every way
# there is, and with each instruction of maintenance left out. It needs QEMU 9.2 or newer.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
plugin=$target/cache-model.so
mkdir -p "$target"
"${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -Werror -fvisibility=hidden -shared -fPIC -pthread -o "$plugin" \
    "$root/tools/cache-model/model.c" "$root/tools/cache-model/plugin.c"
exec "$root/tools/runner.sh" cache-model "$plugin" "$1"
