#!/bin/sh
# usage: rpi4-sd.sh DIRECTORY IMAGE
# Makes an SD card's image out of the files that rpi4.sh left in DIRECTORY, the Pi's firmware and its device tree.
# Needs no root: partition table by sfdisk, file system by mtools, packages by apt with lists of its own, taken from the
# mirror and key that this machine's apt uses.
set -eu
files=$1
image=$2
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
firmware=$(dirname "$image")/firmware

stop() {
    echo "rpi4-sd: $1" >&2
    echo "    $files has the other files of the card, and its README.txt says where these come from" >&2
    exit 1
}

# An apt that touches nothing of the system's: sources, lists and cache in the work directory.
private_apt() {
    command=$1
    shift
    "$command" -o Dir::Etc::SourceList="$work/quarry.sources" -o Dir::Etc::SourceParts="$work/none" \
        -o Dir::State="$work/state" -o Dir::State::Lists="$work/state/lists" -o Dir::Cache="$work/cache" \
        -o Dir::State::status="$work/state/status" -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
        -o Debug::NoLocking=true -o APT::Sandbox::User="$(id -un)" "$@"
}

# fetch PACKAGE: downloads and unpacks it into the work directory.
fetch() {
    echo "rpi4-sd: fetching the package $1"
    (cd "$work" && private_apt apt-get download -qq "$1") || stop "the package $1 could not be fetched"
    dpkg-deb -x "$work/$1"_*.deb "$work/unpacked"
}

fetch_firmware() {
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    mkdir -p "$work/none" "$work/state/lists/partial" "$work/cache/archives/partial" "$work/unpacked"
    : >"$work/state/status"
    "$here/apt-source.sh" "$codename" main non-free-firmware >"$work/quarry.sources" ||
        stop "no mirror of this release is known to apt, so the package raspi-firmware cannot be had"
    private_apt apt-get update -qq 2>"$work/errors" ||
        stop "the package mirror cannot be reached, or has no arm64: $(head -1 "$work/errors")"
    [ -n "$(private_apt apt-cache show raspi-firmware 2>/dev/null)" ] ||
        stop "the mirror has no package raspi-firmware (component non-free-firmware)"
    fetch raspi-firmware
    linux=$(private_apt apt-cache show linux-image-arm64 | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p' | head -1)
    [ -n "$linux" ] || stop "the mirror has no kernel package, which holds the device tree"
    fetch "$linux"
    mkdir -p "$firmware"
    find "$work/unpacked" \( -name start4.elf -o -name fixup4.dat -o -name bcm2711-rpi-4-b.dtb \) \
        -exec cp {} "$firmware" \;
    cp "$work/unpacked/usr/share/doc/raspi-firmware/copyright" "$firmware/LICENCE.txt"
}

for needed in start4.elf fixup4.dat bcm2711-rpi-4-b.dtb LICENCE.txt; do
    [ -s "$firmware/$needed" ] || { fetch_firmware; break; }
done
for needed in start4.elf fixup4.dat bcm2711-rpi-4-b.dtb LICENCE.txt; do
    [ -s "$firmware/$needed" ] || stop "the packages did not hold $needed"
done

# One FAT32 partition of 60 MiB, 4 MiB into the card.
rm -f "$image"
truncate -s 64M "$image"
echo '4M,,c,*' | sfdisk -q "$image"
mformat -i "$image@@4M" -F -v QUARRY -T $((60 * 2048)) -H $((4 * 2048)) -h 64 -s 32 ::
mcopy -i "$image@@4M" "$files"/* "$firmware"/* ::

# What a card reader would see.
dd if="$image" of="$work/partition" bs=1M skip=4 status=none
fsck.fat -n "$work/partition" >"$work/fsck" || { cat "$work/fsck" >&2; exit 1; }
mdir -b -i "$image@@4M" ::
echo "rpi4-sd: $image; write it to a card with: dd if=$image of=/dev/sdX bs=4M conv=fsync"
