#!/bin/sh
# usage: setup.sh build|run|test|sd|gdb|report
# Sees that this machine has what building, `make run`, `make test`, `make rpi4-sd`, `make gdb` or `make report-test` needs. What is missing it installs, by
# package name, and says so; where it may not, it says what to type and exits with 1. OS_RELEASE stands in for
# /etc/os-release, APT_DIR for /etc/apt.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
os_release=${OS_RELEASE:-/etc/os-release}
purpose=$1

say() { echo "setup: $*" >&2; }
stop() {
    say "$1"
    shift
    for line; do echo "    $line" >&2; done
    exit 1
}

may_be_root() { [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Packages to install, and what else root has to do, a command a line.
packages=
todo=

# want PACKAGE... WHY
want() {
    for why; do :; done
    while [ $# -gt 1 ]; do
        say "$why needs the package $1"
        packages="$packages $1"
        shift
    done
}

# need COMMAND PACKAGE WHY
need() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || want "$2" "$3"
}

# Installs all of it, or says how.
install_wanted() {
    [ -n "$packages$todo" ] || return 0
    if [ -n "$packages" ]; then
        todo="apt-get update -qq
env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends$packages
$todo"
    fi
    command -v apt-get >/dev/null || stop "there is no apt-get here; please install what your system calls these:" "$packages"
    may_be_root || {
        say "installing needs root, and sudo is not there or wants a password; please type:"
        printf '%s' "$todo" | sed 's/^/    sudo /' >&2
        stop "and call make again"
    }
    # File descriptor 3, since what runs here may read its standard input.
    while read -r line <&3; do
        say "$line"
        # shellcheck disable=SC2086
        as_root $line >/dev/null || stop "that failed; with a network, please type:" "$line" "and call make again"
    done 3<<COMMANDS
$(printf '%s' "$todo")
COMMANDS
    packages=
    todo=
}

# The version that apt would install, as far as the second number without an epoch; empty if there is none.
candidate() {
    command -v apt-cache >/dev/null || return 0
    apt-cache policy "$@" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9]*\.[0-9]*\).*/\2/p'
}

# For a question about a package that apt has not heard of yet, on a machine that never fetched its lists.
refresh_lists() {
    [ -z "$(candidate "$1")" ] && command -v apt-get >/dev/null && may_be_root || return 0
    as_root apt-get update -qq || stop "the package mirror cannot be reached; with a network, call make again"
}

# at_least VERSION WANTED, both as MAJOR.MINOR
at_least() {
    [ -n "$1" ] || return 1
    [ "${1%%.*}" -gt "${2%%.*}" ] || { [ "${1%%.*}" = "${2%%.*}" ] && [ "${1#*.}" -ge "${2#*.}" ]; }
}

qemu_version() {
    "${QUARRY_QEMU:-qemu-system-aarch64}" --version 2>/dev/null |
        sed -n '1s/.*version \([0-9]*\.[0-9]*\).*/\1/p'
}

# If QEMU must be fetched at all, the newest that this system offers: older than 9.0 does not know the Pi 4.
need_qemu() {
    at_least "$(qemu_version)" "$1" && return 0
    [ -z "${QUARRY_QEMU:-}" ] || stop "QUARRY_QEMU has version $(qemu_version), and $1 is needed"
    why="QEMU $1 or newer"
    refresh_lists qemu-system-arm
    # shellcheck source=/dev/null
    backports=$(. "$os_release" && echo "${VERSION_CODENAME:-}-backports")
    install="env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -t $backports qemu-system-arm"
    if at_least "$(candidate qemu-system-arm)" 9.0 || ! command -v apt-get >/dev/null; then
        want qemu-system-arm "$why"
    elif at_least "$(candidate -t "$backports" qemu-system-arm)" 9.0; then
        say "$why: this release's is older than 9.0; taking it from $backports"
        todo="$install
"
    elif grep -q '^ID=debian' "$os_release" && mkdir -p target &&
        tools/apt-source.sh "$backports" main >"target/$backports.sources"; then
        say "$why: this release's is older than 9.0; adding $backports, from the mirror that apt uses already,"
        say "to /etc/apt/sources.list.d (apt takes from there only what is asked for by name)"
        todo="cp target/$backports.sources /etc/apt/sources.list.d/$backports.sources
apt-get update -qq
$install
"
    elif at_least "$(candidate qemu-system-arm)" "$1"; then
        want qemu-system-arm "$why"
    fi
}

need_gdb() {
    [ -n "${QUARRY_GDB:-}" ] || need gdb-multiarch gdb-multiarch "debugging 64-bit Arm (make gdb)"
}

check_qemu() {
    at_least "$(qemu_version)" "$1" || stop "QEMU $1 or newer is needed, and this system offers none;" \
        "please install it, and set QUARRY_QEMU to its qemu-system-aarch64 if that is not in PATH"
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
        refresh_lists rustup
        if [ -z "$(candidate rustup)" ]; then
            stop "Rust $(pinned channel) is needed, and rustup, which installs it, is no package here; please run rustup-init," \
                "the Rust project's own installer, and then type:" \
                "rustup toolchain install $(pinned channel)" "and call make again"
        fi
        want rustup "installing Rust"
        install_wanted
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

# A C compiler without the C library's start files does not do.
links_c() {
    command -v cc >/dev/null && echo 'int main(void) { return 0; }' | cc -x c - -o /dev/null 2>/dev/null
}

need_sd_tools() {
    need sfdisk fdisk "the SD card's partition table"
    need mcopy mtools "the SD card's files"
    need fsck.fat dosfstools "checking the SD card's file system"
}

need_to_build() {
    need_rust
    links_c || want gcc libc6-dev "linking this machine's own Rust programs"
}

case $purpose in
build)
    need_to_build
    install_wanted
    ;;
run)
    need_to_build
    need_qemu 7.2
    install_wanted
    check_qemu 7.2
    ;;
test)
    need_to_build
    need_qemu 9.0
    need fdtput device-tree-compiler "making device trees for the boot tests"
    [ -n "${QUARRY_UBOOT:-}" ] || [ -f /usr/lib/u-boot/qemu_arm64/u-boot.bin ] ||
        want u-boot-qemu "booting by U-Boot"
    need_gdb
    need_sd_tools
    install_wanted
    check_qemu 9.0
    ;;
sd)
    need_sd_tools
    install_wanted
    command -v apt-get >/dev/null || stop "the Pi's firmware is fetched by apt, from Debian's mirror; there is none here"
    ;;
gdb)
    need_gdb
    install_wanted
    ;;
report)
    command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || need chromium chromium "opening the report"
    install_wanted
    ;;
*) stop "usage: setup.sh build|run|test|sd|gdb|report" ;;
esac
