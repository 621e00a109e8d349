//! State shared by all connections.

use std::sync::Arc;

use crate::webhook::limits::Limits;
use crate::webhook::peers::Peers;
use crate::webhook::throttled_log::ThrottledLog;
use crate::webhook::tls::Tls;

pub(in crate::webhook) struct Shared {
    pub(in crate::webhook) limits: Limits,
    pub(in crate::webhook) peers: Arc<Peers>,
    pub(in crate::webhook) tls: Option<Arc<Tls>>,
    pub(in crate::webhook) log: Arc<ThrottledLog>,
}
