//! Stand-ins for the two outside worlds, speaking their real wire protocols: for tests and for the demo.

pub mod lxd;
