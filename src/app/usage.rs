//! What all users hold together, counted now and then for monitoring.

use std::sync::Arc;

use tokio::task::yield_now;

use super::{App, Result};
use crate::{meta::UserRecord, model::name::Folder};

/// Users read at a time; other tasks get their turn in between.
const PAGE: usize = 100;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub users: u64,
    pub files: u64,
    /// Bytes of files. Each file counts with its full size, even where its content is shared.
    pub bytes: u64,
    /// Bytes that open uploads may still turn into files.
    pub reserved: u64,
    /// Users who hold or reserve nine tenths of their quota, or more. A user whose quota is 0 does
    /// not count.
    pub near_quota: u64,
}

impl App {
    /// The result of the last [`App::survey_usage`].
    pub fn usage(&self) -> Option<Arc<Usage>> {
        self.usage.load_full()
    }

    /// Surveys all users, a few at a time.
    ///
    /// # Errors
    /// Those of the index; the result of the last survey stays then.
    pub async fn survey_usage(&self) -> Result<()> {
        let (mut usage, mut page) = (Usage::default(), self.meta.users(None, PAGE).await?);
        while let Some(last) = page.last().map(|user| user.id.clone()) {
            for user in &page {
                self.count_usage(user, &mut usage).await?;
            }
            yield_now().await;
            page = self.meta.users(Some(&last), PAGE).await?;
        }
        self.usage.store(Some(Arc::new(usage)));
        Ok(())
    }

    async fn count_usage(&self, user: &UserRecord, usage: &mut Usage) -> Result<()> {
        let stored = self.meta.totals(&user.id, &Folder::default()).await?;
        let quota = user.quota.unwrap_or(self.policy().quota_bytes);
        usage.users += 1;
        usage.files = usage.files.saturating_add(stored.files);
        usage.bytes = usage.bytes.saturating_add(stored.bytes);
        usage.reserved = usage.reserved.saturating_add(user.reserved);
        let held = stored.bytes.saturating_add(user.reserved);
        usage.near_quota += u64::from(quota > 0 && held >= quota - quota / 10);
        Ok(())
    }
}
