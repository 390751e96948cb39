//! The public names of the library, as `cargo doc` sees them, compared with a list in the repository: every name that becomes
//! public, or ceases to be, is a change of that list.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::scratch;

/// Holds the documentation in `docs` against the list at `path`, or writes the list.
pub(crate) fn run(docs: &Path, path: &Path, is_written: bool) -> Result<(), String> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut names = BTreeSet::new();
    for (name, page) in items(&read(&docs.join("all.html"))?) {
        names.extend(parts(&read(&docs.join(page))?).into_iter().map(|part| format!("{name}::{part}")));
        names.insert(name);
    }
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    if is_written {
        return scratch::write(path, text.as_bytes());
    }
    let known = if path.exists() { read(path)? } else { String::new() };
    let known: BTreeSet<String> = known.lines().map(str::to_owned).collect();
    let differences: Vec<String> = names
        .difference(&known)
        .map(|name| format!("+ {name}"))
        .chain(known.difference(&names).map(|name| format!("- {name}")))
        .collect();
    if differences.is_empty() {
        println!("{} public names, as listed", names.len());
        return Ok(());
    }
    let path = path.display();
    Err(format!("not as in {path} (`make public-names` writes it):\n{}", differences.join("\n")))
}

/// The items of the page that lists all: kind and path, and the item's own page.
fn items(all: &str) -> Vec<(String, String)> {
    let links = all.split("<li><a href=\"").skip(1);
    links
        .filter_map(|link| {
            // The page's own headings are links too.
            let (page, rest) = link.split_once("\">").filter(|(page, _)| page.ends_with(".html"))?;
            let (path, _) = rest.split_once("</a>")?;
            let kind = page.rsplit('/').next()?.split('.').next()?;
            Some((format!("{kind} {path}"), page.to_owned()))
        })
        .collect()
}

/// Members of an item: fields, variants, methods and constants; not those of the traits that it implements.
fn parts(page: &str) -> BTreeSet<String> {
    const KINDS: [&str; 6] = ["structfield", "variant", "method", "tymethod", "associatedconstant", "associatedtype"];
    // The sections behind those of the item itself.
    const ENDS: [&str; 3] = ["deref-methods", "trait-implementations", "implementors"];
    let ids = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next());
    ids.take_while(|id| !ENDS.iter().any(|end| id.starts_with(end)))
        .filter_map(|id| {
            let (kind, name) = id.split_once('.')?;
            // Two of one name: the second has a number.
            let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
            KINDS.contains(&kind).then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_have_kind_and_path() {
        let all = r##"<li><a href="#fns" title="F">F</a><ul><li><a href="addr/struct.Pfn.html">addr::Pfn</a></li><li><a href="fn.vmap.html">vmap</a>"##;
        let expected = [("struct addr::Pfn", "addr/struct.Pfn.html"), ("fn vmap", "fn.vmap.html")];
        assert_eq!(items(all), expected.map(|(name, page)| (name.to_owned(), page.to_owned())));
    }

    #[test]
    fn what_a_trait_gives_is_no_part() {
        let page = r#"<section id="variant.Free"> <section id="method.new-1"> <h3 id="errors"> <h2 id="trait-implementations">
            <section id="method.fmt">"#;
        assert_eq!(parts(page), ["Free", "new"].map(str::to_owned).into());
    }

    #[test]
    fn a_name_more_or_less_is_a_difference() {
        let docs = scratch::Scratch::new().unwrap();
        docs.write("all.html", br#"<li><a href="fn.vmap.html">vmap</a>"#).unwrap();
        docs.write("fn.vmap.html", b"").unwrap();
        let list = docs.path("names");
        let directory = list.parent().unwrap();
        run(directory, &list, true).unwrap();
        run(directory, &list, false).unwrap();
        docs.write("names", b"fn vunmap\n").unwrap();
        let why = run(directory, &list, false).unwrap_err();
        assert!(why.ends_with("\n+ fn vmap\n- fn vunmap"), "{why}");
    }
}
