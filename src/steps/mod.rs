//! How an action that must be careful is carried out, step by step. **Pure**: no I/O, no clock, no logging. A machine
//! names the next [`Step`](removal::Step); whoever runs it takes the step and tells what came of it; in the end there is an
//! outcome. [`crate::execute`] runs it against LXD and GitHub, the simulation against its models of them, with faults and
//! crashes between any two steps: what is proved there is what runs here.

pub mod removal;
