//! Children that each do a part of their parent's job, known by their numbers.

use crate::call::{self, Ended};
use crate::println;

/// Forks `count` children, numbered from 1, each of which runs `child` and ends with its number as status; then waits for
/// them all, with a call of `before_wait` before each wait.
///
/// # Errors
///
/// The status for the parent to end with, when the reason has been printed: 2 if there was no fork, 3 if a child ended in
/// another way.
pub fn run(count: u8, child: impl Fn(u8), before_wait: impl Fn()) -> Result<(), i32> {
    for number in 1..=count {
        match call::fork() {
            Ok(0) => {
                child(number);
                call::exit_group(number.into());
            }
            Ok(_) => {}
            Err(error) => {
                println!("fork: {error:?}");
                return Err(2);
            }
        }
    }
    let mut sum = 0;
    for _ in 0..count {
        before_wait();
        match call::wait(None) {
            Ok((_, Ended::Exited(number))) => sum += number,
            other => {
                println!("a child: {other:?}");
                return Err(3);
            }
        }
    }
    assert_eq!(sum, (1..=count).map(i32::from).sum());
    Ok(())
}
