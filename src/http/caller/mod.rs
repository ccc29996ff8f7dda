//! Who sends a request: the client's address, its credentials, the page. And how much one caller
//! may ask for.

pub mod client;
pub(super) mod cors;
pub(super) mod credentials;
pub(super) mod penalty;
pub(super) mod shares;
