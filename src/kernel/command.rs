//! A command of the prompt: a row of a family's table. `prompt/table.rs` lists the families.
#![forbid(unsafe_code)]

use super::machine::Machine;
use super::symbol;

/// Offers every word that may stand where the cursor is. The text is that of the arguments before that word.
pub(super) type Words = fn(before: &str, offer: &mut dyn FnMut(&str));

/// A command.
pub(super) struct Command {
    pub(super) name: &'static str,
    /// Its arguments, as `help` shows them: capitals for a value, brackets for words that may be left out.
    pub(super) arguments: &'static str,
    /// Its effect, in a line.
    pub(super) help: &'static str,
    /// A line that does something useful on every machine.
    pub(super) example: &'static str,
    /// Words that complete its arguments.
    pub(super) words: Words,
    /// Runs it with the text behind its name.
    pub(super) run: fn(&Machine, &str),
}

/// For an address as the only argument.
pub(super) fn addresses(before: &str, offer: &mut dyn FnMut(&str)) {
    if before.is_empty() {
        ["phys:0x", "pfn:"].iter().for_each(|form| offer(form));
        symbol::names(offer);
    }
}

/// For a command whose arguments nothing completes.
pub(super) fn no_words(_: &str, _: &mut dyn FnMut(&str)) {}
