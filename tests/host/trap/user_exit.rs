//! Reason why a process came back, by its syndrome.

use quarry::addr::VirtAddr;
use quarry::arch::aarch64::esr::Esr;
use quarry::arch::aarch64::user_exit::UserExit;

fn exit(class: u64, iss: u64) -> UserExit {
    UserExit::new(Esr::new(class << 26 | 1 << 25 | iss), VirtAddr::new(0x1000))
}

#[test]
fn each_class_of_exception_has_its_answer() {
    assert_eq!(exit(0x15, 0), UserExit::Syscall(0));
    assert_eq!(exit(0x15, 0xffff), UserExit::Syscall(0xffff));
    assert_eq!(exit(0x3c, 5), UserExit::Breakpoint(5));
    assert_eq!(exit(0x00, 0), UserExit::Undefined);
    assert_eq!(exit(0x07, 0), UserExit::FpTrapped);
    for class in [0x20, 0x24] {
        assert!(matches!(exit(class, 7), UserExit::Abort(_, far) if far == VirtAddr::new(0x1000)));
    }
    for class in [0x22, 0x26] {
        assert!(matches!(exit(class, 0), UserExit::Misaligned(..)));
    }
    // A trapped instruction, a system error, what no process can have: an abort of the kernel, SVC from AArch32.
    for class in [0x01, 0x18, 0x2f, 0x25, 0x21, 0x11, 0x3f] {
        assert!(matches!(exit(class, 0), UserExit::Other(..)), "{class:#x}");
    }
    assert_eq!(UserExit::new(Esr::new(u64::MAX), VirtAddr::ZERO), UserExit::Interrupt);
}

#[test]
fn an_exit_is_printed_in_words() {
    assert_eq!(exit(0x15, 3).to_string(), "system call, immediate 0x3");
    assert_eq!(exit(0x07, 0).to_string(), "FP or vector register");
    let store = exit(0x24, 1 << 6 | 0b00_0111).to_string();
    assert_eq!(store, "data abort from a lower exception level, write: translation fault, level 3, address 0x1000");
}
