#!/bin/sh
# usage: book.sh OUT
# The guide as a book in OUT/html: the pages of docs/, and the README, CONTRIBUTING and CHANGELOG beside them, which are one
# directory higher in the repository. Fails if a link between pages of the book reaches nothing.
set -eu
cd "$(dirname "$0")/.."
out=$1
if ! command -v mdbook >/dev/null; then
    echo "book: this needs mdbook, which is no package of most systems; please type:" >&2
    echo "    cargo install mdbook --locked" >&2
    exit 1
fi
rm -rf "$out/src" "$out/html"
mkdir -p "$out/src"
cp book.toml "$out/"
cp -R docs/*.md docs/pictures docs/families "$out/src/"
mv "$out/src/README.md" "$out/src/index.md"
sed -i 's|(\.\./README\.md|(quarry.md|g; s|(\.\./CONTRIBUTING\.md|(contributing.md|g; s|(\.\./CHANGELOG\.md|(changelog.md|g
    s|(README\.md|(index.md|g' "$out"/src/*.md
# From one directory higher: `docs/` goes, and the three have other names. The index of docs/ is the book's.
for page in README CONTRIBUTING CHANGELOG; do
    name=$(echo "$page" | tr '[:upper:]' '[:lower:]')
    [ "$page" != README ] || name=quarry
    sed 's|(docs/README\.md|(index.md|g; s|(docs/|(|g; s|(CONTRIBUTING\.md|(contributing.md|g' "$page.md" >"$out/src/$name.md"
done
mdbook build "$out"

# Every relative link of every page of the book.
dead=$(cd "$out/html" && for page in *.html; do
    grep -o 'href="[^"#:]*\.html\|src="pictures/[^"]*' "$page" | sed 's/^[a-z]*="//' | sort -u | while read -r target; do
        [ -e "$target" ] || echo "$page: $target"
    done
done)
if [ -n "$dead" ]; then
    echo "book: links to nothing:" >&2
    echo "$dead" >&2
    exit 1
fi
echo "book: $out/html/index.html"
