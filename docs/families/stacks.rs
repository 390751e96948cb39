use quarry::prelude::*;

/// The stack of a thread, guarded below.
pub fn example() -> Result<(), Error> {
    let mut stack = KernelStack::new("families")?;
    let mut sum = 0;
    stack.run(|| sum = (1..=100).sum());
    assert_eq!(sum, 5050);
    Ok(())
}
