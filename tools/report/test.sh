#!/bin/sh
# usage: test.sh PAGE
# Opens the page of run.sh in Chromium without a window: its numbers are the log's, and it is drawn in light and in dark. The
# pictures lie beside it.
set -eu
page=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
host=$(rustc -vV | sed -n 's/^host: //p')
for browser in chromium chromium-browser google-chrome; do
    ! command -v "$browser" >/dev/null || break
done
command -v "$browser" >/dev/null || {
    echo "the page's test opens it in Chromium; please type: apt-get install chromium" >&2
    exit 1
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# No network, and a profile of its own.
open() {
    "$browser" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --user-data-dir="$scratch/profile" \
        --host-resolver-rules="MAP * ~NOTFOUND" --window-size=1040,3700 "$@" "file://$page" 2>"$scratch/said" ||
        { cat "$scratch/said" >&2; return 1; }
}
open --dump-dom >"$scratch/dom"
open --screenshot="${page%.html}-light.png" >/dev/null
open --blink-settings=preferredColorScheme=0 --screenshot="${page%.html}-dark.png" >/dev/null
"$target/report/$host/debug/quarry-report" check "$scratch/dom" "${page%.html}.log" "${page%.html}-light.png" "${page%.html}-dark.png"
