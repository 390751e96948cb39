//! A redistributor that wakes and sleeps, on machines where its register does what it says, does it late, never does it, or
//! belongs to the secure state.

use quarry::driver::waker::{CHILDREN_ASLEEP, PROCESSOR_SLEEP, Power, Unresponsive, WakeRegister, set_power};
use std::cell::Cell;

/// A redistributor whose children follow after a number of reads, if at all.
struct Fake {
    register: Cell<u32>,
    /// Reads until `ChildrenAsleep` follows `ProcessorSleep`; `None` for never.
    delay: Cell<Option<u32>>,
    /// Whether writes have no effect and reads give zero: a machine with two security states.
    secure: bool,
    writes: u32,
}

impl Fake {
    fn new(register: u32, delay: Option<u32>) -> Self {
        Self { register: Cell::new(register), delay: Cell::new(delay), secure: false, writes: 0 }
    }
}

impl WakeRegister for Fake {
    fn read(&self) -> u32 {
        if self.secure {
            return 0;
        }
        let register = self.register.get();
        match self.delay.get() {
            Some(0) => {
                let children = if register & PROCESSOR_SLEEP != 0 { CHILDREN_ASLEEP } else { 0 };
                self.register.set(register & !CHILDREN_ASLEEP | children);
            }
            Some(left) => self.delay.set(Some(left - 1)),
            None => {}
        }
        self.register.get()
    }

    fn write(&mut self, value: u32) {
        self.writes += 1;
        if !self.secure {
            self.register.set(self.register.get() & !PROCESSOR_SLEEP | value & PROCESSOR_SLEEP);
        }
    }
}

/// Patience for so many looks.
fn looks(mut left: u32) -> impl FnMut() -> bool {
    move || {
        assert_ne!(left, 0, "nobody asks for patience after it has run out");
        left -= 1;
        left != 0
    }
}

const ASLEEP: u32 = PROCESSOR_SLEEP | CHILDREN_ASLEEP;

#[test]
fn a_redistributor_is_awake_when_it_says_so_and_asleep_when_it_says_so() {
    for delay in [0, 1, 7] {
        let mut fake = Fake::new(ASLEEP, Some(delay));
        assert_eq!(set_power(&mut fake, Power::Awake, looks(100)), Ok(()));
        assert_eq!(fake.register.get(), 0, "after {delay} reads");
        fake.delay.set(Some(delay));
        assert_eq!(set_power(&mut fake, Power::Asleep, looks(100)), Ok(()));
        assert_eq!(fake.register.get(), ASLEEP);
        // Where it is already it stays.
        assert_eq!(set_power(&mut fake, Power::Asleep, looks(1)), Ok(()));
        assert_eq!(fake.register.get(), ASLEEP);
    }
}

// A secure state's register reads as zero and ignores writes: what cannot change is not waited for.
#[test]
fn a_register_that_ignores_writes_is_not_waited_for() {
    for wanted in [Power::Awake, Power::Asleep] {
        let mut fake = Fake { secure: true, ..Fake::new(0, None) };
        assert_eq!(set_power(&mut fake, wanted, || panic!("waits for what cannot come")), Ok(()));
        assert_eq!(fake.writes, 1);
    }
}

#[test]
fn a_redistributor_that_does_not_answer_is_named() {
    let mut fake = Fake::new(ASLEEP, None);
    let refused = set_power(&mut fake, Power::Awake, looks(10));
    assert_eq!(refused, Err(Unresponsive { wanted: Power::Awake, register: CHILDREN_ASLEEP }));
    assert_eq!(refused.unwrap_err().to_string(), "the redistributor does not wake: GICR_WAKER is 0x4");
    let mut fake = Fake::new(0, None);
    let refused = set_power(&mut fake, Power::Asleep, looks(10));
    assert_eq!(refused, Err(Unresponsive { wanted: Power::Asleep, register: PROCESSOR_SLEEP }));
}
