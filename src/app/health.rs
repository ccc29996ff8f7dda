//! Whether the daemon can do its work.

use super::App;

/// What `/healthz` says.
pub struct Health {
    pub free_bytes: u64,
    /// Both stores take writes.
    pub writable: bool,
}

impl App {
    pub async fn health(&self) -> Health {
        let indexed = self.meta.ready().await.is_ok();
        match self.blobs.space().await {
            Ok(space) => {
                Health { free_bytes: space.free_bytes, writable: space.writable && indexed }
            }
            Err(error) => {
                tracing::warn!(%error, "the blob store does not tell its space");
                Health { free_bytes: 0, writable: false }
            }
        }
    }
}
