//! An interrupt at every instruction of allocating and freeing. The code is stepped through; before its k-th instruction
//! something happens that an interrupt may do at any moment, which is to allocate and free the same things on the same
//! CPU. This for every k, and from the states in which the ways through the code differ.

mod deeds;
mod objects;
mod rounds;
mod visit;
