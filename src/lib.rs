//! `streamlined`: a self-contained file daemon. One binary, one data directory.
//!
//! `docs/ARCHITECTURE.md` has a picture of the layers below, lists what each does not know, and
//! describes paths through them; `docs/DESIGN.md` says what is written in which order.

pub mod app;
pub mod auth;
pub mod blob;
pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod meta;
pub mod metrics;
pub mod model;
pub mod sys;
pub mod zip;
