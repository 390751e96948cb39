//! How the kernel reads and writes memory of a process.
