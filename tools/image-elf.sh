#!/bin/sh
# usage: image-elf.sh tests|benches [CARGO OPTIONS…]
# The image of the kernel's tests, or of its benchmarks, which is built if it is not: prints its path.
set -eu
cd "$(dirname "$0")/.."
what=$1
shift
case $what in
tests) set -- test --test kernel "$@" ;;
benches) set -- bench --profile release -p quarry-benches --bench kernel "$@" ;;
esac
elf=$(cargo "$@" --quiet --no-run --message-format json-render-diagnostics |
    sed -n 's/.*"kind":\["\(test\|bench\)"\].*"executable":"\([^"]*\)".*/\2/p')
# The pipe has cargo's status no more.
[ -n "$elf" ] || { echo "image-elf.sh: nothing was built" >&2; exit 1; }
echo "$elf"
