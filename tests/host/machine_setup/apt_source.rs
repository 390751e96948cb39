//! A further source for apt is derived from those that the machine has, in either format.

use super::{Dir, run, script};
use std::process::Command;

/// Result for `bookworm-backports main` when apt's files are these.
fn derived(name: &str, files: &[(&str, &str)]) -> Option<String> {
    let dir = Dir::new(name);
    for (path, text) in files {
        dir.write(path, text);
    }
    let os_release = dir.write("os-release", "ID=debian\nVERSION_CODENAME=bookworm\n");
    let (ok, source, _) = run(Command::new(script("apt-source.sh"))
        .args(["bookworm-backports", "main"])
        .env("APT_DIR", &dir.0)
        .env("OS_RELEASE", os_release));
    ok.then_some(source)
}

const WANTED: &str = "Types: deb\nSuites: bookworm-backports\nComponents: main\nURIs: http://mirror.example/debian\n";

#[test]
fn deb822_gives_mirror_and_key() {
    let source = derived(
        "deb822",
        &[(
            "sources.list.d/debian.sources",
            "# first of all, security\nTypes: deb\nURIs: http://security.example/debian-security\nSuites: bookworm-security\n\
             Components: main\n\nTypes: deb deb-src\n# a remark\nURIs: http://mirror.example/debian http://other.example\n\
             Suites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n",
        )],
    );
    assert_eq!(source, Some(format!("{WANTED}Signed-By: /usr/share/keyrings/k.gpg\n")));
}

#[test]
fn a_key_written_out_is_kept_whole() {
    let key = " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----";
    let text = format!(
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n{key}\n"
    );
    let source = derived("key", &[("sources.list.d/debian.sources", &text)]);
    assert_eq!(source, Some(format!("{WANTED}Signed-By: \n{key}\n")));
}

#[test]
fn what_is_disabled_is_passed_over() {
    let source = derived(
        "disabled",
        &[
            (
                "sources.list.d/a.sources",
                "Enabled: no\nTypes: deb\nURIs: http://old.example\nSuites: bookworm\nComponents: main\n",
            ),
            (
                "sources.list",
                "#deb http://older.example bookworm main\ndeb http://mirror.example/debian bookworm main\n",
            ),
        ],
    );
    assert_eq!(source.as_deref(), Some(WANTED));
}

#[test]
fn one_line_format_gives_mirror_and_key() {
    let source = derived(
        "line",
        &[(
            "sources.list",
            "deb-src http://wrong.example bookworm main\ndeb http://wrong.example bookworm-updates main\n\
             deb http://wrong.example bookworm contrib\n\
             deb [ arch=amd64 signed-by=/usr/share/keyrings/k.gpg ] http://mirror.example/debian bookworm contrib main\n",
        )],
    );
    assert_eq!(source, Some(format!("{WANTED}Signed-By: /usr/share/keyrings/k.gpg\n")));
}

#[test]
fn without_a_mirror_of_the_release_there_is_no_answer() {
    let stranger = "deb http://wrong.example trixie main\n";
    assert_eq!(derived("none", &[("sources.list.d/x.list", stranger)]), None);
}
