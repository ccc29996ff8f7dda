//! Receipts of stored files.

use super::{App, Result};
use crate::{auth::receipt::Receipt, model::file::FileRecord};

impl App {
    /// What this daemon, known as `server`, signs to have stored: the same for the same file.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub async fn receipt(&self, file: &FileRecord, server: &str) -> Result<String> {
        let receipt = Receipt::of(file, &self.policy().tokens.issuer, server);
        self.with_keys(move |keys, now| receipt.sign(keys, now)).await
    }
}
