//! What requests and answers are made of: bodies, headers, queries, JSON, refusals.

pub mod body;
pub(super) mod digest;
pub(super) mod fields;
pub(super) mod framing;
pub mod inline;
pub mod json;
pub mod query;
pub(super) mod respond;
pub mod structured;
