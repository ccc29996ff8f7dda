//! Downloads of content: whole, in ranges, under preconditions, with a proof.

pub mod byteranges;
pub mod conditional;
pub(super) mod content;
pub(super) mod disposition;
pub(super) mod images;
pub(super) mod proof;
