#!/bin/sh
# usage: apt-source.sh SUITE COMPONENT...
# Prints a source for apt (deb822) that serves SUITE from the mirror, and under the key, from which this machine takes
# its own release. Reads deb822 files (*.sources) and one-line files (*.list); exits with 1 if neither names the release.
# APT_DIR and OS_RELEASE stand in for /etc/apt and /etc/os-release.
set -eu
suite=$1
shift
apt=${APT_DIR:-/etc/apt}
# shellcheck source=/dev/null
codename=$(. "${OS_RELEASE:-/etc/os-release}" && echo "${VERSION_CODENAME:-}")
[ -n "$codename" ] || exit 1

# Both awk programs print the first mirror of the release's main component, and what is said about its key.
deb822='
BEGIN { RS = ""; FS = "\n" }
{
    delete field
    name = ""
    for (i = 1; i <= NF; i++) {
        if ($i ~ /^#/) continue
        if ($i ~ /^[ \t]/) { field[name] = field[name] "\n" $i; continue }
        colon = index($i, ":")
        name = tolower(substr($i, 1, colon - 1))
        value = substr($i, colon + 1)
        sub(/^[ \t]+/, "", value)
        field[name] = value
    }
    if (tolower(field["enabled"]) ~ /^(no|false|0|off)/) next
    if (!has(field["types"], "deb") || !has(field["suites"], release) || !has(field["components"], "main")) next
    split(field["uris"], uri, /[ \t\n]+/)
    print "URIs: " (uri[1] == "" ? uri[2] : uri[1])
    if (field["signed-by"] != "") print "Signed-By: " field["signed-by"]
    exit
}
function has(list, word) { return (" " list " ") ~ ("[ \t\n]" word "[ \t\n]") }'
one_line='
$1 == "deb" {
    options = ""
    if (match($0, /\[[^]]*\]/)) {
        options = substr($0, RSTART + 1, RLENGTH - 2)
        $0 = substr($0, 1, RSTART - 1) substr($0, RSTART + RLENGTH)
    }
    if ($3 != release || $0 !~ /[ \t]main([ \t]|$)/) next
    print "URIs: " $2
    count = split(options, option, /[ \t]+/)
    for (i = 1; i <= count; i++)
        if (sub(/^signed-by=/, "", option[i])) print "Signed-By: " option[i]
    exit
}'

found=
for file in "$apt"/sources.list.d/*.sources "$apt"/sources.list "$apt"/sources.list.d/*.list; do
    [ -f "$file" ] && [ -z "$found" ] || continue
    case $file in
    *.sources) found=$(awk -v release="$codename" "$deb822" "$file") ;;
    *) found=$(awk -v release="$codename" "$one_line" "$file") ;;
    esac
done
[ -n "$found" ] || exit 1
printf 'Types: deb\nSuites: %s\nComponents: %s\n%s\n' "$suite" "$*" "$found"
