//! L2: containers.
