#!/bin/sh
# usage: coverage.sh [PATH...]
# Runs the host tests and prints every `?` and every line with `Err(` in the library that none of them took an error
# through, below the PATHs if there are some (src/mm/zone). Status 1 if there is one. COVERAGE_TESTS chooses tests.
# Not counted: what passes on an error of the formatter it writes to, and what tools/unreachable.txt gives a reason for.
# Needs the component llvm-tools of rustup, which brings the reader that fits the compiler.
set -eu
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
[ -x "$tools/llvm-cov" ] || { echo "coverage: rustup component add llvm-tools" >&2; exit 2; }
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
out=$target/coverage
mkdir -p "$out"

# Only this package is counted, and so compiled anew; the crates below it are as they always are.
wrapper=$out/rustc
printf '#!/bin/sh\nexec "$@" -C instrument-coverage\n' >"$wrapper"
chmod +x "$wrapper"
in_coverage() {
    RUSTC_WORKSPACE_WRAPPER=$wrapper LLVM_PROFILE_FILE="$out/%p-%m.profraw" \
        cargo test --quiet --target "$host" --no-default-features --features host --test host "$@"
}
binary=$(in_coverage --no-run --message-format json | sed -n 's/.*"name":"host".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
rm -f "$out"/*.profraw
# A test that compares the sources with themselves says nothing here, and a failure elsewhere is no reason to stop.
in_coverage -- ${COVERAGE_TESTS:-} >"$out/tests.log" 2>&1 || tail -n 30 "$out/tests.log" >&2
"$tools/llvm-profdata" merge --sparse "$out"/*.profraw -o "$out/tests.profdata"

# A region is [line, column, end line, end column, count, ...]; a generic function is there once for each set of types.
# A `?` has a region of its own, which is counted when an error goes through.
"$tools/llvm-cov" export "$binary" --instr-profile "$out/tests.profdata" |
    grep -o '"filenames":\["[^]]*\],"mcdc_records":[^"]*"name":"[^"]*","regions":\[\[[^{}"]*\]\]' |
    sed 's/^"filenames":\["\([^"]*\)".*"regions":\[\[/\1,/; s/\]\]$//; s/\],\[/;/g' |
    awk -F, -v root="$PWD/" -v wanted="$*" '
        BEGIN {
            # PATH: LINE OF THE SOURCE, after a line "# reason".
            while ((getline text < (root "tools/unreachable.txt")) > 0) if (text !~ /^#/ && text != "") excused[text] = 1
        }
        # Whether the function that a line lies in answers with fmt::Result.
        function formats(file, line,    text, more) {
            for (; line > 0; line--) {
                text = source(file, line)
                if (text !~ /(^| )fn [a-z_0-9]+[<(]/) continue
                for (more = 0; more < 12 && text !~ /[{;]$/ && text !~ /[{] .*[}]$/; more++) text = text source(file, ++line)
                return text ~ /-> (core::)?fmt::Result/
            }
            return 0
        }
        function source(file, line) {
            if (!(file in read)) {
                read[file] = 1
                while ((getline text < (root file)) > 0) sources[file, ++lines[file]] = text
                close(root file)
            }
            return sources[file, line]
        }
        index($0, root "src/") == 1 {
            file = substr($1, length(root) + 1)
            regions = substr($0, length($1) + 2)
            many = split(regions, each, ";")
            for (i = 1; i <= many; i++) {
                split(each[i], at, ",")
                # Counters behind expansions belong to another file; what is skipped has none.
                if (at[6] != 0 || at[8] != 0) continue
                key = file SUBSEP at[1] SUBSEP at[2] SUBSEP at[3] SUBSEP at[4]
                if (at[5] + 0 > count[key] + 0) count[key] = at[5]
                seen[key] = 1
            }
        }
        END {
            paths = split(wanted, path, " ")
            for (key in seen) {
                if (count[key] + 0 != 0) continue
                split(key, at, SUBSEP)
                ours = paths == 0
                for (i = 1; i <= paths; i++) if (index(at[1], path[i]) == 1) ours = 1
                if (!ours) continue
                text = source(at[1], at[2])
                piece = substr(text, at[3], at[2] == at[4] ? at[5] - at[3] : length(text))
                if (piece == "?" || piece ~ /Err\(/) {
                    sub(/^ +/, "", text)
                    if (formats(at[1], at[2])) { formatting++; continue }
                    if ((at[1] ": " text) in excused) { reasoned[at[1] ": " text] = 1; continue }
                    printf "%s:%05d:%d: %s\n", at[1], at[2], at[3], text
                }
            }
            for (key in reasoned) reasons++
            printf "coverage: not counted: %d in formatting, %d with a reason\n", formatting, reasons > "/dev/stderr"
        }' | sort -u | sed 's/:0*\([0-9]\)/:\1/' >"$out/uncovered.txt"
cat "$out/uncovered.txt"
count=$(wc -l <"$out/uncovered.txt")
echo "coverage: $count error returns that no host test takes" >&2
[ "$count" = 0 ]
