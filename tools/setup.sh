#!/bin/sh
# usage: setup.sh run|test|sd
# Sees that this machine has what `make run`, `make test` or `make rpi4-sd` needs. What is missing it installs, by
# package name, and says so; where it may not, it says what to type and exits with 1.
set -eu
cd "$(dirname "$0")/.."
purpose=$1

say() { echo "setup: $*" >&2; }
stop() {
    say "$1"
    shift
    for line; do echo "    $line" >&2; done
    exit 1
}

# Runs a command as root, or says what root should type.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        stop "this needs root, and sudo wants a password; please type:" "sudo $*" "and call make again"
    fi
}

apt_updated=
apt_update() {
    [ -z "$apt_updated" ] || return 0
    as_root apt-get update -qq || stop "cannot reach the package mirror; with a network, please type:" "apt-get update"
    apt_updated=yes
}

# apt_install WHY PACKAGE... [-t SUITE]
apt_install() {
    why=$1
    shift
    command -v apt-get >/dev/null || stop "$why needs these packages of Debian's, or your system's like:" "$*"
    say "$why: installing $*"
    apt_update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 ||
        stop "the installation failed; please type:" "apt-get install $*"
}

# The version that apt would install, as far as the second number without an epoch; empty if there is none.
candidate() {
    command -v apt-cache >/dev/null || return 0
    apt-cache policy "$@" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9]*\.[0-9]*\).*/\2/p'
}

# at_least VERSION WANTED, both as MAJOR.MINOR
at_least() {
    [ -n "$1" ] && [ "${1%%.*}" -gt "${2%%.*}" ] || { [ "${1%%.*}" = "${2%%.*}" ] && [ "${1#*.}" -ge "${2#*.}" ]; }
}

qemu_version() {
    "${QUARRY_QEMU:-qemu-system-aarch64}" --version 2>/dev/null |
        sed -n '1s/.*version \([0-9]*\.[0-9]*\).*/\1/p'
}

need_qemu() {
    wanted=$1
    at_least "$(qemu_version)" "$wanted" && return 0
    [ -z "${QUARRY_QEMU:-}" ] || stop "QUARRY_QEMU is $(qemu_version), but QEMU $wanted is needed"
    why="QEMU ${wanted} or newer"
    command -v apt-get >/dev/null || apt_install "$why" qemu-system-arm
    [ -n "$(candidate qemu-system-arm)" ] || apt_update
    # If QEMU must be fetched at all, it may as well know every board.
    if at_least "$(candidate qemu-system-arm)" 9.0; then
        apt_install "$why" qemu-system-arm
        return 0
    fi
    # shellcheck source=/dev/null
    backports=$(. /etc/os-release && echo "${VERSION_CODENAME:-}-backports")
    if ! at_least "$(candidate -t "$backports" qemu-system-arm)" 9.0; then
        add_backports "$backports" || true
    fi
    if at_least "$(candidate -t "$backports" qemu-system-arm)" 9.0; then
        apt_install "$why, from $backports" -t "$backports" qemu-system-arm
    elif at_least "$(candidate qemu-system-arm)" "$wanted"; then
        apt_install "$why" qemu-system-arm
    else
        stop "the board raspi4b needs QEMU 9.0, and neither this release nor $backports has it." \
            "Please install a newer QEMU, and set QUARRY_QEMU to its qemu-system-aarch64 if it is not in PATH."
    fi
}

add_backports() {
    source=$(tools/apt-source.sh "$1" main) || return 1
    file=/etc/apt/sources.list.d/$1.sources
    say "this release's QEMU is older than 9.0: adding $1, from the mirror that apt uses already, as $file"
    say "(apt takes from it only what is asked for by name)"
    printf '%s\n' "$source" | as_root tee "$file" >/dev/null
    apt_updated=
    if ! (apt_update); then
        as_root rm "$file"
        return 1
    fi
}

# The list that rust-toolchain.toml gives for a key, as words.
pinned() { sed -n "s/^$1 = //p" rust-toolchain.toml | tr -d '[]",'; }

need_rust() {
    if ! command -v rustup >/dev/null; then
        # A toolchain that came another way will do if it has the targets.
        if rustc --version 2>/dev/null | grep -q " $(pinned channel) " &&
            [ -d "$(rustc --print target-libdir --target aarch64-unknown-none-softfloat)" ]; then
            return 0
        fi
        command -v apt-cache >/dev/null && [ -z "$(candidate rustup)" ] && (apt_update) || true
        if [ -z "$(candidate rustup)" ]; then
            stop "Rust $(pinned channel) is needed and rustup, which installs it, is no package here; please type:" \
                "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" "and call make again"
        fi
        apt_install "Rust's installer" rustup
    fi
    channel=$(pinned channel)
    if ! rustup run "$channel" rustc --version >/dev/null 2>&1; then
        say "installing Rust $channel, as rust-toolchain.toml wants"
        rustup toolchain install "$channel" --profile minimal ||
            stop "the installation failed; with a network, please type:" "rustup toolchain install $channel"
    fi
    installed=$(rustup component list --toolchain "$channel" --installed)
    for component in $(pinned components); do
        echo "$installed" | grep -q "^$component\(-\|\$\)" && continue
        say "adding $component to Rust $channel"
        rustup component add --toolchain "$channel" "$component" ||
            stop "please type:" "rustup component add --toolchain $channel $component"
    done
    for target in $(pinned targets); do
        echo "$installed" | grep -q "^rust-std-$target\$" && continue
        say "adding the target $target to Rust $channel"
        rustup target add --toolchain "$channel" "$target" ||
            stop "please type:" "rustup target add --toolchain $channel $target"
    done
}

# need COMMAND PACKAGE WHY
need() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || apt_install "$3" "$2"
}

# A C compiler without the C library's start files does not do.
links_c() {
    command -v cc >/dev/null && echo 'int main(void) { return 0; }' | cc -x c - -o /dev/null 2>/dev/null
}

need_sd_tools() {
    need sfdisk fdisk "the SD card's partition table"
    need mcopy mtools "the SD card's files"
    need fsck.fat dosfstools "checking the SD card's file system"
}

case $purpose in
run)
    links_c || apt_install "linking this machine's own Rust programs" gcc libc6-dev
    need_rust
    need_qemu 7.2
    ;;
test)
    "$0" run
    need_qemu 9.0
    need fdtput device-tree-compiler "device trees for the boot tests"
    [ -n "${QUARRY_UBOOT:-}" ] || [ -f /usr/lib/u-boot/qemu_arm64/u-boot.bin ] ||
        apt_install "U-Boot as boot loader" u-boot-qemu
    need_sd_tools
    ;;
sd)
    need_sd_tools
    command -v apt-get >/dev/null || stop "the Pi's firmware is fetched by apt, from Debian's mirror; there is none here"
    need dpkg-deb dpkg "unpacking the firmware"
    ;;
*) stop "usage: setup.sh run|test|sd" ;;
esac
