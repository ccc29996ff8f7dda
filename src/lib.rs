//! `streamlined`: a self-contained file daemon. One binary, one data directory.
//!
//! The layers, from the top; each knows only what stands below it:
//!
//! | module | what it is | what it does not know |
//! | --- | --- | --- |
//! | [`cli`] | commands; the only code that names concrete engines | |
//! | [`http`] | the surface, on hyper | engines, file paths, JWT algorithms |
//! | [`app`] | use cases | hyper, headers, status codes, which engine is behind a seam |
//! | [`auth`] | credentials and cryptography | files, uploads, HTTP |
//! | [`meta`] | seam 1: users, tokens, sessions, the index | where bytes lie, permissions, HTTP |
//! | [`blob`] | seam 2: bytes by their hash | keys, users, names, why bytes are wanted |
//! | [`config`] | the knobs | what the values are for |
//! | [`model`] | values and rules | I/O, async, clock, randomness |
//! | [`metrics`] | what any layer may count in | who shows it |
//! | [`zip`] | headers of archives | where contents lie |
//! | [`sys`] | clock, randomness, durable files, signals, log | all of the above but plain values |
//!
//! `docs/ARCHITECTURE.md` has the picture, `docs/DESIGN.md` what is written in which order.

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
