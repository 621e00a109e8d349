//! Stand-ins for GitHub and LXD that speak the real wire protocols, for the demo and the tests.

pub mod farm;
pub mod github;
pub mod lxd;
pub mod package;
pub mod testing;
