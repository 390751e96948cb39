//! L4: the boards that the reference kernel knows by name.
