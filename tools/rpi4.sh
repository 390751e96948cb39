#!/bin/sh
# usage: rpi4.sh [rpi4-image|rpi4-bench-image] KERNEL-ELF DIRECTORY [NAME…]
# Fills DIRECTORY with exactly the files of ours that the boot partition of a Raspberry Pi 4's SD card needs: the kernel itself,
# or the image of tests, or of benchmarks, whose names contain a NAME.
set -eu
make_image=image
case $1 in rpi4-*)
    make_image=$1
    shift
    ;;
esac
elf=$1
out=$2
shift 2
here=$(dirname "$0")
rm -rf "$out"
mkdir -p "$out"
"$here/runner.sh" "$make_image" "$elf" "$out/kernel8.img" "$@"

cat >"$out/config.txt" <<'CONFIG'
# Enter the kernel in AArch64 state; older firmware starts in AArch32 without it.
arm_64bit=1
# The flat Image.
kernel=kernel8.img
# Give the mini-UART its clock and put it on GPIO14 (transmit) and GPIO15 (receive), 115200 baud.
enable_uart=1
# Let the second stage of the firmware log to that port too: what it says shows that the wires are right.
uart_2ndstage=1
# Where it is loaded, whatever the firmware's own default is: newer ones say 0x200000, older ones 0x80000, and the kernel needs
# a 2 MiB boundary.
kernel_address=0x200000
# The tree of this board; the firmware fills in the memory that it finds.
device_tree=bcm2711-rpi-4-b.dtb
CONFIG

cat >"$out/README.txt" <<'README'
Quarry on a Raspberry Pi 4
==========================

Copy the files of this directory to the first partition (FAT) of an SD card, and beside them these three:

    start4.elf                the firmware that the GPU runs; it loads the kernel
    fixup4.dat                how it shares the memory with the ARM cores
    bcm2711-rpi-4-b.dtb       the device tree of the board, into which the firmware writes the memory it finds

start4.elf and fixup4.dat are Broadcom's, in binary form only. Their licence (LICENCE.broadcom, beside them wherever
they are distributed) permits redistribution with its notice kept, and use on a Raspberry Pi only. They are therefore
not part of Quarry. Debian has them in the package raspi-firmware (component non-free-firmware), the Raspberry Pi
foundation in its repository "firmware". bootcode.bin is not needed: a Pi 4 has it in its EEPROM.

The device tree is compiled from Linux's sources (GPL-2.0, in part also under other licences); every Linux kernel
package for arm64 contains it. The kernel does not start without one: it says so on the serial port and stops.

`make rpi4-sd` builds a whole card, these three files included, where Debian's packages can be had.

The serial port is on pins 8 (GPIO14, transmit), 10 (GPIO15, receive) and 6 (ground): 3.3 V, 115200 baud, 8N1.
`make rpi4-test` makes a kernel8.img that runs the tests; docs/rpi4.md says what to expect, and what to do when nothing comes.
Without an emulator behind it, the kernel ends by stopping the CPU.
README
