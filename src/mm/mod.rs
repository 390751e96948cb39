//! L3: the algorithms and policy of memory management, generic over the machine.

pub mod pgtable;
