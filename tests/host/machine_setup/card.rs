//! The SD card's image: made without root, with a sound file system that holds every file.

use super::{Dir, run, script};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn the_card_is_made_without_root() {
    let dir = Dir::new("card");
    // Copies, because somebody who is not root may not be allowed to look into the package's directory.
    for name in ["rpi4-sd.sh", "apt-source.sh"] {
        fs::copy(script(name), dir.0.join(name)).unwrap();
    }
    dir.write("rpi4/kernel8.img", &"kernel ".repeat(100_000));
    dir.write("rpi4/config.txt", "arm_64bit=1\n");
    dir.write("rpi4/README.txt", "read\n");
    // In place of what the script would fetch.
    for name in ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "LICENCE.txt"] {
        dir.write(&format!("firmware/{name}"), name);
    }
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o777)).unwrap();

    let (_, user, _) = run(Command::new("id").arg("-u"));
    let mut command = Command::new(if user.trim() == "0" { "setpriv" } else { "env" });
    if user.trim() == "0" {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    let image = dir.0.join("card.img");
    let (ok, listing, errors) = run(command.args(["sh", "./rpi4-sd.sh", "rpi4"]).arg(&image).current_dir(&dir.0));
    assert!(ok, "{errors}");
    for name in ["kernel8.img", "config.txt", "start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "LICENCE.txt"] {
        assert!(listing.contains(&format!("::/{name}\n")), "no {name} in:\n{listing}");
    }

    let bytes = fs::read(&image).unwrap();
    assert_eq!(bytes[510..512], [0x55, 0xaa], "no partition table");
    let entry = &bytes[446..462];
    assert_eq!((entry[0], entry[4]), (0x80, 0x0c), "the first partition is not an active FAT32 one");
    assert_eq!(entry[8..12], (4_u32 << 11).to_le_bytes(), "it does not start at 4 MiB");
    // Name under which the kernel is read back.
    let (ok, kernel, _) =
        run(Command::new("mtype").arg("-i").arg(format!("{}@@4M", image.display())).arg("::/kernel8.img"));
    assert!(ok);
    assert_eq!(kernel, "kernel ".repeat(100_000));
}
