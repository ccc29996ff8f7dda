//! Where a blob store keeps some bytes, in words only that store understands.

use serde::{Deserialize, Serialize};

/// Handed out by the blob store, kept by the metadata store, never looked into by either the
/// domain or the metadata. A locator names the same bytes as long as they exist and is never
/// given to others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Locator(pub Box<[u8]>);
