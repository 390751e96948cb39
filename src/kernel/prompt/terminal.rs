//! The person's terminal, as far as the boot argument `term=` describes it. Without one it gets no escape sequence, as nobody knows
//! whether it understands any.
#![forbid(unsafe_code)]

use crate::kernel::machine::Machine;
use crate::kernel::screen::knows_escapes;
use crate::kprint;

/// Asks the terminal to mark the text that is pasted, or no longer to do so.
pub(super) fn mark_pastes(machine: &Machine, marked: bool) {
    if knows_escapes(machine) {
        kprint!("\x1b[?2004{}", if marked { 'h' } else { 'l' });
    }
}
