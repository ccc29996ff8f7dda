//! What is told of requests: to the log, to the audit log and to whoever watches.

pub(super) mod audit;
pub(super) mod exchange;
pub mod metrics;
