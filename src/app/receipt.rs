//! Receipts of stored files.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{App, Error, Result};
use crate::{auth::receipt::Receipt, model::file::FileRecord};

impl App {
    /// What this daemon, known as `server`, signs to have stored: the same for the same file.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub async fn receipt(&self, file: &FileRecord, server: &str) -> Result<String> {
        let receipt = Receipt::of(file, &self.policy().tokens.issuer, server);
        let (keys, now) = (Arc::clone(&self.keys), self.clock.now());
        let signed = spawn_blocking(move || receipt.sign(&keys, now)).await;
        let signed = signed.map_err(|error| Error::Internal(error.to_string()))?;
        signed.map_err(|error| Error::Internal(error.to_string()))
    }
}
