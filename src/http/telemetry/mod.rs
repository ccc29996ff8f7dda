//! What is reported about requests: to the log, to the audit log and to monitoring.

pub(super) mod audit;
pub(super) mod exchange;
pub mod metrics;
