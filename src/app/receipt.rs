//! Receipts of stored files.

use super::{App, Result};
use crate::{auth::receipt::Receipt, model::file::FileRecord};

impl App {
    /// The signed statement that this daemon, known as `server`, has stored a file. The same file
    /// gives the same statement.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub async fn receipt(&self, file: &FileRecord, server: &str) -> Result<String> {
        let receipt = Receipt::of(file, &self.policy().tokens.issuer, server);
        self.with_keys(move |keys, now| receipt.sign(keys, now)).await
    }
}
