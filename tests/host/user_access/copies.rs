//! Ranges, zeros, structures with versions, strings.

use super::flat::Flat;
use quarry::addr::{UserAddr, to_usize};
use quarry::hal::user::USER_END;
use quarry::mm::user::access::{
    UserAccessError, UserPtr, check_range, check_zeroed_user, clear_user, cmpxchg_user_u32, cmpxchg_user_u64,
    copy_from_user, copy_struct_from_user, copy_to_user, get_user, put_user, strncpy_from_user,
};

const fn at(raw: u64) -> UserAddr {
    UserAddr::new(raw)
}

const END: u64 = USER_END.get();

// Behaviours 441 and 444: also for addresses with something in the top byte, which bypasses nothing.
#[test]
fn a_range_ends_where_user_memory_ends() {
    assert_eq!(check_range(at(END - 16), 16), Ok(()));
    assert_eq!(check_range(at(END), 0), Ok(()));
    assert_eq!(check_range(at(0), to_usize(END)), Ok(()));
    for (start, bytes) in [
        (END - 16, 17),
        (END, 1),
        (0, to_usize(END) + 1),
        (1, to_usize(END)),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (u64::MAX - 15, 16),
        (0xffff_8000_0000_0000, 8),
        (0x1000, usize::MAX),
        (END - 1, usize::MAX),
        (0x5500_0000_0000_1000, 8),
        (0x0100_0000_0000_1000, 8),
        (0x8000_0000_0000_1000, 8),
    ] {
        assert_eq!(check_range(at(start), bytes), Err(UserAccessError::Fault { left: bytes }), "{start:#x}, {bytes}");
    }
    // No byte is nowhere.
    for start in [0, END, 1 << 55, u64::MAX] {
        assert_eq!(check_range(at(start), 0), Ok(()));
        let user = Flat::new(0x1000, Vec::new());
        assert_eq!(copy_from_user(&user, &mut [], at(start)), Ok(()));
        assert_eq!(copy_to_user(&user, at(start), &[]), Ok(()));
        assert_eq!(clear_user(&user, at(start), 0), Ok(()));
    }
}

#[test]
fn the_kernel_s_memory_is_never_reached() {
    // As if it were mapped.
    let kernel = Flat::new(0xffff_8000_0000_0000, vec![7; 64]);
    let start = at(0xffff_8000_0000_0000);
    let mut buffer = [9; 8];
    assert_eq!(copy_from_user(&kernel, &mut buffer, start), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(buffer, [0; 8], "what was not copied is zero");
    assert_eq!(copy_to_user(&kernel, start, &[1; 8]), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(clear_user(&kernel, start, 8), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(get_user::<_, u32>(&kernel, start), Err(UserAccessError::Fault { left: 4 }));
    assert_eq!(put_user(&kernel, start, 1_u16), Err(UserAccessError::Fault { left: 2 }));
    assert_eq!(cmpxchg_user_u32(&kernel, start, 7, 8), Err(UserAccessError::Fault { left: 4 }));
    assert_eq!(cmpxchg_user_u64(&kernel, start, 7, 8), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(strncpy_from_user(&kernel, &mut buffer, start), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(UserPtr::<u64>::new(start).read(&kernel), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(kernel.bytes(), [7; 64]);
}

// Behaviour 439: every start and end in a window of 1 KiB over the edge of a page.
#[test]
fn zeros_are_told_from_anything_else() {
    const START: u64 = 0x10_0000 + 4096 - 512;
    // Zero from 128 to 896, but one byte.
    let mut window = vec![0; 1024];
    window[..128].fill(1);
    window[896..].fill(1);
    let step = if cfg!(miri) { 61 } else { 1 };
    for wrong in [None, Some(300), Some(511), Some(512)] {
        let mut bytes = window.clone();
        if let Some(wrong) = wrong {
            bytes[wrong] = 0x80;
        }
        // How many of the bytes in front of each are not zero.
        let mut sums = vec![0_u32];
        sums.extend(bytes.iter().scan(0, |sum, byte| {
            *sum += u32::from(*byte != 0);
            Some(*sum)
        }));
        let user = Flat::new(START, bytes);
        let every = if wrong.is_none() { step } else { step * 7 };
        for start in (0..=1024).step_by(every) {
            for end in (start..=1024).step_by(every) {
                let zero = check_zeroed_user(&user, at(START + start as u64), end - start);
                assert_eq!(zero, Ok(sums[start] == sums[end]), "{start}..{end}");
            }
        }
    }
    let user = Flat::new(START, vec![0; 1024]);
    assert_eq!(check_zeroed_user(&user, at(START + 1000), 100), Err(UserAccessError::Fault { left: 76 }));
    let user = Flat::new(START, vec![1; 1024]);
    assert_eq!(check_zeroed_user(&user, at(START + 1000), 100), Ok(false), "found in front of what is not there");
}

// Behaviour 440.
#[test]
fn a_structure_may_be_older_or_newer() {
    let user = Flat::new(0x1000, [vec![5; 24], vec![0; 8], vec![6; 8]].concat());
    let from = at(0x1000);
    let mut same = [9; 24];
    assert_eq!(copy_struct_from_user(&user, &mut same, from, 24), Ok(()));
    assert_eq!(same, [5; 24]);
    // The process is older: what it does not know is zero.
    let mut newer = [9; 24];
    assert_eq!(copy_struct_from_user(&user, &mut newer, from, 16), Ok(()));
    assert_eq!((&newer[..16], &newer[16..]), (&[5; 16][..], &[0; 8][..]));
    // The process is newer, and does not use it.
    let mut older = [9; 24];
    assert_eq!(copy_struct_from_user(&user, &mut older, from, 32), Ok(()));
    assert_eq!(older, [5; 24]);
    // Or does.
    let mut older = [9; 24];
    assert_eq!(copy_struct_from_user(&user, &mut older, from, 33), Err(UserAccessError::UnknownTail));
    assert_eq!(older, [9; 24], "nothing is copied");
    assert!(matches!(copy_struct_from_user(&user, &mut older, from, 41), Err(UserAccessError::UnknownTail)));
    assert_eq!(copy_struct_from_user(&user, &mut older, at(0x1018), 32), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(copy_struct_from_user(&user, &mut older, from, 0), Ok(()));
    assert_eq!(older, [0; 24]);
    assert_eq!(
        copy_struct_from_user(&user, &mut older, from, usize::MAX),
        Err(UserAccessError::Fault { left: usize::MAX })
    );
}

// Behaviour 445: the routine for the target has its own test in the kernel.
#[test]
fn a_string_ends_at_its_nul_and_nowhere_behind_it() {
    let user = Flat::new(0x1000, b"hello\0world\0last\0".to_vec());
    let mut buffer = [9; 16];
    assert_eq!(strncpy_from_user(&user, &mut buffer, at(0x1000)), Ok(5));
    assert!(buffer.starts_with(b"hello\0"));
    assert_eq!(strncpy_from_user(&user, &mut buffer[..5], at(0x1000)), Ok(5), "no NUL in five bytes");
    assert_eq!(strncpy_from_user(&user, &mut buffer[..6], at(0x1000)), Ok(5));
    // The NUL is the last byte there is.
    assert_eq!(strncpy_from_user(&user, &mut buffer, at(0x100c)), Ok(4));
    let open = Flat::new(0x1000, b"open".to_vec());
    let mut buffer = [9; 16];
    assert_eq!(strncpy_from_user(&open, &mut buffer, at(0x1000)), Err(UserAccessError::Fault { left: 12 }));
    assert_eq!(buffer[4..], [0; 12]);
    assert_eq!(strncpy_from_user(&open, &mut [], at(0x1000)), Ok(0));
    // Up to the end of user memory, and not beyond.
    let last = Flat::new(END - 4, b"end\0kernel\0".to_vec());
    assert_eq!(strncpy_from_user(&last, &mut buffer, at(END - 4)), Ok(3));
    let last = Flat::new(END - 4, b"endskernel\0".to_vec());
    assert_eq!(strncpy_from_user(&last, &mut buffer, at(END - 4)), Err(UserAccessError::Fault { left: 12 }));
    assert_eq!(strncpy_from_user(&last, &mut buffer[..4], at(END - 4)), Ok(4));
}

// Behaviour 447: the length of a copy is the length of the kernel's slice, so that no copy can be one byte longer than it.
#[test]
fn the_kernel_s_side_of_a_copy_has_one_length() {
    let user = Flat::new(0x1000, vec![3; 64]);
    let mut object = [0; 32];
    let (inside, behind) = object.split_at_mut(16);
    assert_eq!(copy_from_user(&user, inside, at(0x1000)), Ok(()));
    assert_eq!((&inside[..], &behind[..]), (&[3; 16][..], &[0; 16][..]));
    assert_eq!(copy_to_user(&user, at(0x1010), &object[8..24]), Ok(()));
    assert_eq!(user.bytes()[16..40], [[3; 8], [0; 8], [3; 8]].concat());
}
