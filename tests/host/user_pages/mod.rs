//! The pages of user spaces, on a machine whose TLBs keep what they have.
mod evacuate;
mod faults;
mod fork;
mod freed;
mod given;
mod kept;
mod machine;
mod model;
mod moves;
mod parked;
mod pins;
mod ranges;
mod whole;
mod whole_history;
