#!/bin/sh
# usage: run.sh ELF [GDB OPTIONS…]
# Boots the kernel in QEMU, stopped before its first instruction, and starts gdb on it. The prompt is on a socket, and what it
# says in a file; gdb's variables $console and $log have their names. MEM and SMP choose the machine.
set -eu
elf=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
gdb=${QUARRY_GDB:-gdb-multiarch}
command -v "$gdb" >/dev/null || {
    echo "make gdb needs a gdb for 64-bit Arm; please type: apt-get install gdb-multiarch" >&2
    exit 1
}
scratch=$(mktemp -d)
qemu=
leave() {
    [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
    rm -rf "$scratch"
}
trap leave EXIT
trap 'exit 130' INT TERM
# With the names of its functions in it, as every boot has them.
"$here/../runner.sh" image "$elf" "$scratch/Image"
"${QUARRY_QEMU:-qemu-system-aarch64}" -machine virt -cpu cortex-a72 -smp "${SMP:-4}" -m "${MEM:-1G}" -nic none \
    -display none -no-reboot -monitor none -kernel "$scratch/Image" ${QUARRY_APPEND:+-append "$QUARRY_APPEND"} -S \
    -chardev "socket,id=console,path=$scratch/console,server=on,wait=off,logfile=$scratch/log" -serial chardev:console \
    -chardev "socket,id=stub,path=$scratch/stub,server=on,wait=off" -gdb chardev:stub &
qemu=$!
tries=0
while [ ! -S "$scratch/stub" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] && kill -0 "$qemu" || exit 1
    sleep 0.1
done
# gdb takes Ctrl-C for itself.
trap '' INT
echo "the prompt: socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:$scratch/console    what it said: $scratch/log" >&2
"$gdb" -q "$elf" -ex "set confirm off" -ex "set \$console=\"$scratch/console\"" -ex "set \$log=\"$scratch/log\"" \
    -ex "source $here/quarry.py" -ex "target remote $scratch/stub" "$@"
