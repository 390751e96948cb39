//! Squeezing out `FDT_NOP` tokens. A boot loader blanks nodes and properties with them (QEMU's raspi4b has hundreds),
//! and the `fdt` crate does not expect them.

use super::error::FdtError;
use super::header::{Header, SIZE_DT_STRUCT};
use super::token::Token;

/// Moves the tokens of the structure block together, in place, and shortens the block. The space behind the new end is zeroed.
/// Needs a blob that passed [`precheck`](super::precheck()); time linear in the block.
pub(super) fn compact(blob: &mut [u8], header: &mut Header) -> Result<(), FdtError> {
    if header.counts.nops == 0 {
        return Ok(());
    }
    let block = header.structure_range();
    let (mut from, mut to) = (block.start, block.start);
    loop {
        let bytes = blob.get(..block.end).ok_or(FdtError::UnexpectedEnd { offset: from })?;
        let (token, next) = Token::read(bytes, from)?;
        let (keep, last) = (token != Token::Nop, token == Token::End);
        if keep {
            blob.copy_within(from..next, to);
            to += next - from;
        }
        from = next;
        if last {
            break;
        }
    }
    blob.get_mut(to..block.end).ok_or(FdtError::UnexpectedEnd { offset: to })?.fill(0);
    // The block only shrank, so FDT-1 still holds; dropping NOPs keeps the grammar of FDT-2.
    let squeezed = u32::try_from(to - block.start).map_err(|_| FdtError::UnexpectedEnd { offset: to })?;
    header.structure.1 = squeezed;
    header.counts.nops = 0;
    if let Some(field) = blob.get_mut(SIZE_DT_STRUCT..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *field = squeezed.to_be_bytes();
    }
    Ok(())
}
