//! What a device's driver has goes back in reverse.

use crate::alloc::TheSystem;
use quarry::gfp::Gfp;
use quarry::mm::io::Devres;
use std::sync::{Arc, Mutex};

/// Notes when it is dropped.
struct Noted(u32, Arc<Mutex<Vec<u32>>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[test]
fn what_was_kept_last_goes_first() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut device = Devres::<TheSystem>::new();
    let number = |value: u32| device.keep(Noted(value, Arc::clone(&log)), Gfp::KERNEL).unwrap().0;
    assert_eq!([number(1), number(2)], [1, 2]);
    let first: &Vec<u8> = device.keep(vec![7; 100], Gfp::KERNEL).unwrap();
    let second: &[u64; 3] = device.keep([1, 2, 3], Gfp::KERNEL).unwrap();
    assert_eq!((first.iter().map(|byte| u64::from(*byte)).sum::<u64>(), second), (700, &[1, 2, 3]));

    let mark = device.mark();
    device.keep(Noted(3, Arc::clone(&log)), Gfp::KERNEL).unwrap();
    device.keep(Noted(4, Arc::clone(&log)), Gfp::KERNEL).unwrap();
    device.release_to(mark);
    assert_eq!(*log.lock().unwrap(), [4, 3], "a group");
    device.release_to(mark);
    assert_eq!(device.mark(), mark);
    device.keep(Noted(5, Arc::clone(&log)), Gfp::KERNEL).unwrap();
    drop(device);
    assert_eq!(*log.lock().unwrap(), [4, 3, 5, 2, 1]);
}

#[test]
fn a_long_row_needs_no_stack() {
    let mut device = Devres::<TheSystem>::new();
    for value in 0..if cfg!(miri) { 100 } else { 200_000_u32 } {
        device.keep(value, Gfp::KERNEL).unwrap();
    }
    device.release_all();
    assert_eq!(device.mark(), Devres::<TheSystem>::new().mark());
}
