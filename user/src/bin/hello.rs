//! Says who it is, its arguments, and its own `/proc/self/maps`.
#![no_std]
#![no_main]

use quarry_user::{Arguments, Errno, call, println};

quarry_user::program!(main);

static DATA: [u64; 3] = [1, 2, 3];

fn main(arguments: Arguments) -> i32 {
    println!("hello from process {}", call::getpid());
    let mut count = 0;
    while let Some(text) = arguments.get(count) {
        println!("argument {count}: {text}");
        count += 1;
    }
    assert_eq!(core::hint::black_box(&DATA).iter().sum::<u64>(), 6);
    assert_eq!(call::open(c"/etc/passwd"), Err(Errno::NOENT));
    let Ok(file) = call::open(c"/proc/self/maps") else { return 1 };
    let mut line = [0; 160];
    let (mut used, mut lines) = (0, 0);
    // In small pieces, put together to lines.
    loop {
        let mut piece = [0; 37];
        let Ok(bytes) = call::read(file, &mut piece) else { return 2 };
        if bytes == 0 {
            break;
        }
        for &byte in piece.iter().take(bytes) {
            if byte == b'\n' {
                println!("{}", core::str::from_utf8(line.get(..used).unwrap_or_default()).unwrap_or("?"));
                (used, lines) = (0, lines + 1);
            } else if let Some(place) = line.get_mut(used) {
                *place = byte;
                used += 1;
            }
        }
    }
    assert!(lines >= 3 && call::close(file).is_ok() && call::close(file) == Err(Errno::BADF));
    i32::try_from(count).unwrap_or(-1)
}
