//! L2: locks and their relax strategy.
