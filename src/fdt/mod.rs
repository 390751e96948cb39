//! L2: reading the device tree: everything that memory discovery needs, and nothing else.
