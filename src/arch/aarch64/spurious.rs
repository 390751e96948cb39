//! Translation faults that the tables no longer justify.
//!
//! A CPU without FEAT_ETS2 may walk the tables for a load before it has made the load that published the mapping, and take
//! a fault for an address that has been mapped since (Arm ARM D8.2.6; Linux: `is_spurious_el1_translation_fault`). So may a CPU
//! that has not synchronised since another one changed an entry from invalid to valid. The tables are asked again, and if they
//! now have an answer the instruction is executed once more: the walk of `AT` is behind the fault, so its result is also seen
//! by the retry.
#![forbid(unsafe_code)]

use super::at;
use super::esr::{ExceptionClass, FaultStatus};
use super::exception::Exception;

/// Whether this is such a fault, of the kernel's own access, and the handler only has to return. For the handler of synchronous
/// exceptions.
#[must_use]
pub fn is_spurious(exception: &Exception<'_>) -> bool {
    let own = [ExceptionClass::DATA_ABORT, ExceptionClass::INSTRUCTION_ABORT].contains(&exception.esr.class());
    let missing = exception
        .esr
        .abort()
        .is_some_and(|abort| abort.address_valid && matches!(abort.status, FaultStatus::Translation(_)));
    // Another kind of fault comes again.
    own && missing && !matches!(at::walk(exception.far), Err(FaultStatus::Translation(_)))
}
