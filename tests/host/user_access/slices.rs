//! Readers and writers, pointers with types.

use super::flat::Flat;
use quarry::addr::UserAddr;
use quarry::hal::user::USER_END;
use quarry::mm::user::access::{UserAccessError, UserPtr, UserSlice};

fn slice(start: u64, bytes: usize) -> UserSlice {
    UserSlice::new(UserAddr::new(start), bytes)
}

/// A test's machine, by reference, so that the reader has a copy.
struct Shared<'f>(&'f Flat);

// SAFETY: that of `Flat`.
unsafe impl quarry::hal::user::UserAccess for Shared<'_> {
    unsafe fn copy_in(&self, to: &mut [u8], from: UserAddr) -> usize {
        raw!(self.0.copy_in(to, from))
    }
    unsafe fn copy_out(&self, to: UserAddr, from: &[u8]) -> usize {
        raw!(self.0.copy_out(to, from))
    }
    unsafe fn clear(&self, to: UserAddr, bytes: usize) -> usize {
        raw!(self.0.clear(to, bytes))
    }
    unsafe fn copy_string(&self, to: &mut [u8], from: UserAddr) -> (usize, quarry::hal::user::StringEnd) {
        raw!(self.0.copy_string(to, from))
    }
    unsafe fn load(&self, from: UserAddr, size: usize) -> Option<u64> {
        raw!(self.0.load(from, size))
    }
    unsafe fn store(&self, to: UserAddr, size: usize, value: u64) -> bool {
        raw!(self.0.store(to, size, value))
    }
    unsafe fn compare_exchange_u32(&self, at: UserAddr, old: u32, new: u32) -> quarry::hal::user::Exchange<u32> {
        raw!(self.0.compare_exchange_u32(at, old, new))
    }
    unsafe fn compare_exchange_u64(&self, at: UserAddr, old: u64, new: u64) -> quarry::hal::user::Exchange<u64> {
        raw!(self.0.compare_exchange_u64(at, old, new))
    }
}

// Behaviour 446.
#[test]
fn a_reader_says_exactly_what_is_left() {
    let user = Flat::new(0x1000, (0..100).collect());
    let mut reader = slice(0x1000, 100).reader(Shared(&user));
    let mut buffer = [0; 10];
    assert_eq!((reader.read_slice(&mut buffer), reader.remaining()), (Ok(()), 90));
    assert_eq!(buffer, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!((reader.skip(10), reader.remaining()), (Ok(()), 80));
    assert_eq!(reader.read::<u16>(), Ok(u16::from_le_bytes([20, 21])));
    assert_eq!(reader.position(), UserAddr::new(0x1016));
    assert_eq!(reader.skip(79), Err(UserAccessError::BeyondEnd { available: 78 }));
    assert_eq!(reader.skip(usize::MAX), Err(UserAccessError::BeyondEnd { available: 78 }));
    assert_eq!(reader.remaining(), 78);
    let mut reader = reader.limit(6).limit(100);
    assert_eq!(reader.remaining(), 6);
    assert_eq!(reader.read::<u64>(), Err(UserAccessError::BeyondEnd { available: 6 }));
    assert_eq!(reader.read_slice(&mut buffer), Err(UserAccessError::BeyondEnd { available: 6 }));
    assert_eq!((reader.read_some(&mut buffer), reader.is_empty()), (Ok(6), true));
    assert_eq!(buffer[..7], [22, 23, 24, 25, 26, 27, 6]);
    assert_eq!((reader.read_some(&mut buffer), reader.skip(0)), (Ok(0), Ok(())));
    assert_eq!(reader.read::<u8>(), Err(UserAccessError::BeyondEnd { available: 0 }));
}

// Behaviour 446: a fault in the middle.
#[test]
fn a_reader_stands_at_the_byte_that_it_cannot_read() {
    let user = Flat::new(0x1000, vec![1; 20]);
    let mut reader = slice(0x1000, 100).reader(Shared(&user));
    let mut buffer = [9; 32];
    assert_eq!(reader.read_slice(&mut buffer), Err(UserAccessError::Fault { left: 12 }));
    assert_eq!((reader.remaining(), reader.position()), (80, UserAddr::new(0x1014)));
    assert_eq!((&buffer[..20], &buffer[20..]), (&[1; 20][..], &[0; 12][..]));
    assert_eq!(reader.read::<u32>(), Err(UserAccessError::Fault { left: 4 }));
    assert_eq!(reader.remaining(), 80);
    let mut wild = slice(u64::MAX - 3, 100).reader(Shared(&user));
    assert_eq!(wild.read::<u8>(), Err(UserAccessError::Fault { left: 1 }));
    assert_eq!((wild.skip(50), wild.position(), wild.remaining()), (Ok(()), USER_END, 50));
    assert_eq!(wild.read::<u8>(), Err(UserAccessError::Fault { left: 1 }));
}

// Behaviour 446: the same for writers.
#[test]
fn a_writer_fills_what_it_is_given_and_no_more() {
    let user = Flat::new(0x1000, vec![0xee; 64]);
    let mut writer = slice(0x1000, 24).writer(Shared(&user));
    assert_eq!(writer.write_slice(b"abcd"), Ok(()));
    assert_eq!(writer.write(&0x0102_0304_u32), Ok(()));
    assert_eq!(writer.write(&[7_u16, 8]), Ok(()));
    assert_eq!(writer.fill_zero(4), Ok(()));
    assert_eq!(writer.fill_zero(9), Err(UserAccessError::BeyondEnd { available: 8 }));
    assert_eq!(writer.write_slice(&[1; 9]), Err(UserAccessError::BeyondEnd { available: 8 }));
    assert_eq!(writer.write_some(&[1; 9]), Ok(8));
    assert!(writer.is_empty());
    assert_eq!(user.bytes()[..24], *b"abcd\x04\x03\x02\x01\x07\0\x08\0\0\0\0\0\x01\x01\x01\x01\x01\x01\x01\x01");
    assert_eq!(user.bytes()[24..], [0xee; 40]);
    let mut writer = slice(0x1030, 64).writer(Shared(&user));
    assert_eq!(writer.fill_zero(32), Err(UserAccessError::Fault { left: 16 }));
    assert_eq!((writer.remaining(), writer.position()), (48, UserAddr::new(0x1040)));
}

#[test]
fn strings_of_a_row_are_read_one_after_the_other() {
    let user = Flat::new(0x1000, b"one\0three\0and more".to_vec());
    let mut reader = slice(0x1000, 18).reader(Shared(&user));
    let mut buffer = [0; 6];
    assert_eq!((reader.read_string(&mut buffer), reader.remaining()), (Ok(3), 14));
    assert_eq!((reader.read_string(&mut buffer), reader.remaining()), (Ok(5), 8));
    assert_eq!((reader.read_string(&mut buffer), reader.remaining()), (Ok(6), 2));
    assert_eq!((reader.read_string(&mut buffer), reader.remaining()), (Ok(2), 0));
}

#[test]
fn elements_of_a_row_have_addresses_that_do_not_wrap() {
    let user = Flat::new(0x1000, vec![0; 32]);
    let pointer = UserPtr::<u64>::new(UserAddr::new(0x1000));
    assert!(!pointer.is_null() && UserPtr::<u8>::new(UserAddr::ZERO).is_null());
    let third = pointer.element(2).unwrap();
    assert_eq!(third.write(&Shared(&user), &u64::MAX), Ok(()));
    assert_eq!(third.cast::<[u8; 8]>().read(&Shared(&user)), Ok([0xff; 8]));
    assert_eq!(pointer.read(&Shared(&user)), Ok(0));
    assert_eq!(pointer.element(u64::MAX / 8 + 1), None);
    assert_eq!(UserPtr::<u64>::new(UserAddr::new(u64::MAX - 7)).element(1), None);
    assert_eq!(pointer.slice(3).map(UserSlice::len), Some(24));
    assert_eq!(pointer.slice(usize::MAX), None);
}
