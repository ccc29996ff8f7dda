//! Pure values and rules: no I/O, no async, no clock, no randomness.
//!
//! Every name that a client sends becomes one of these types at the edge and stays one. What a type
//! refuses can therefore not exist further down.

pub mod digest;
pub mod file;
pub mod grant;
pub mod id;
pub mod key;
pub mod limits;
pub mod locator;
pub mod name;
pub mod origins;
pub mod principal;
pub mod range;
pub mod time;
pub mod token;
pub mod upload;
