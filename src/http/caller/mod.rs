//! Who asks: the address, the credentials, the page; and how much one may ask for.

pub mod client;
pub(super) mod cors;
pub(super) mod credentials;
pub(super) mod penalty;
pub(super) mod shares;
