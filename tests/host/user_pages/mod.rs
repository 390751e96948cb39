//! The pages of user spaces, on a machine whose TLBs keep what they have.
mod evacuate;
mod faults;
mod fork;
mod machine;
mod model;
mod moves;
mod ranges;
