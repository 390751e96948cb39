//! Sleep of a CPU without threads while it waits for memory, and how the last one notices that no CPU is left that could free
//! some.
//!
//! A CPU that sleeps frees nothing. So the last one that would fall asleep waiting for memory must not: its allocation goes to
//! the OOM hook, or fails. Each marks itself asleep before it checks the others; of those that fall asleep at the same moment
//! at least one sees all the others asleep, in every order. It tells no other waiter: an event would end its own sleep too (Arm
//! ARM D1.6.1: SEV sets the event register of all PEs), and two that wait would wake each other for ever. Only a CPU that goes
//! to rest without waiting for memory sends one, since those that wait have counted on it.
#![forbid(unsafe_code)]

/// Interface to the sleep of the running CPU.
pub trait Sleeper {
    /// Publishes whether this CPU sleeps, in one total order with the other CPUs' statements.
    fn set_asleep(&self, asleep: bool);

    /// Whether another CPU is awake, which may free memory.
    fn others_are_awake(&self) -> bool;

    /// Ends the sleep of all CPUs in [`Sleeper::wait_for_event`], or their next one: this one's, too.
    fn send_event(&self);

    /// Sleeps until an event.
    fn wait_for_event(&self);
}

/// A CPU that waits for memory sleeps until an event, unless no CPU is left to send one. Returns whether it slept.
/// `may_be_woken` is whether anything but the running contexts of CPUs may free memory, such as the handler of an interrupt.
#[must_use]
pub fn sleep_for_memory(cpu: &impl Sleeper, may_be_woken: bool) -> bool {
    // Before the other CPUs are checked.
    cpu.set_asleep(true);
    let sleeps = may_be_woken || cpu.others_are_awake();
    if sleeps {
        cpu.wait_for_event();
    }
    cpu.set_asleep(false);
    sleeps
}

/// A CPU that has nothing to do and waits for nothing runs `sleep`, in which it sleeps until something happens: an interrupt,
/// since an event comes from here.
pub fn rest(cpu: &impl Sleeper, sleep: impl FnOnce()) {
    cpu.set_asleep(true);
    // CPUs that wait for memory check again whether any CPU is left that could free some.
    cpu.send_event();
    sleep();
    cpu.set_asleep(false);
}
