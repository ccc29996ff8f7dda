//! Content on its way out: whole, in ranges, under conditions, with a proof.

pub mod byteranges;
pub mod conditional;
pub(super) mod content;
pub(super) mod disposition;
pub(super) mod images;
pub(super) mod proof;
