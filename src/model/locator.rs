//! Where a blob store keeps some bytes, in a form that only that store reads.

use serde::{Deserialize, Serialize};

/// Issued by the blob store and kept by the metadata store. Neither the domain nor the metadata
/// store looks into it. A locator names the same bytes as long as they exist, and is never given to
/// others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Locator(pub Box<[u8]>);
