//! The page tables of a user address space and the frames behind them.
