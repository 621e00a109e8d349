//! How an instance is made and removed, step by step. **Pure**: no I/O, no clock, no logging. A state machine names the next
//! step; its caller takes the step and passes the answer in; in the end there is an outcome. [`crate::execute`] runs the
//! machines against LXD and GitHub, the simulation against models of both, with faults and crashes between any two steps.

pub mod making;
pub mod removal;

use crate::identity::Maker;
use crate::model::{ConfigMap, InstanceStatus, Phase, RunnerId, Timestamp};
use crate::world::Outcome;

/// How a state machine continues after an answer.
#[derive(Debug)]
pub enum Next<S> {
    Take(S),
    End(Outcome),
}

/// An instance, as a look finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    pub etag: String,
    pub owner: Option<String>,
    pub phase: Phase,
    /// Who provisions it, by its key.
    pub maker: Maker,
    /// True if it belongs to a scope: it has, or gets, a runner.
    pub scoped: bool,
    /// The registration noted on it.
    pub runner: Option<RunnerId>,
    pub status: InstanceStatus,
    pub made_at: Option<Timestamp>,
}

/// Instance config of every instance, unless the class says otherwise. A job does not survive a reboot or an evacuation, so LXD
/// must not start the instance again. `evacuates`: LXD knows `cluster.evacuate`.
pub fn default_config(evacuates: bool) -> ConfigMap {
    let evacuate = evacuates.then_some(("cluster.evacuate", "stop"));
    let all = [("boot.autostart", "false")].into_iter().chain(evacuate);
    all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Why an instance could not be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub fault: Fault,
    /// The problem and its fix.
    pub text: String,
}

/// What keeps an instance from being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The image or template.
    Source,
    /// A profile or pool that the class names.
    Class,
    /// The storage pool is full.
    Storage,
    /// The network gives the instance no address, route or name server.
    Network,
}
