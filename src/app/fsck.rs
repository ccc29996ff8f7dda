//! fsck: what is known or shows of faults without reading the contents; reading them is scrub's.

use super::{App, Result};
use crate::{
    blob::upkeep::Seen,
    meta::{self, BlobRecord},
    model::digest::ContentHash,
};

/// Blobs that are looked at together.
const PAGE: usize = 1000;
/// Contents that are told; more are only counted.
const TOLD_MAX: usize = 100;

impl App {
    /// What does not agree in the index, the journal and what lies on the disk, a line each;
    /// nothing when all of it does.
    pub async fn check(&self) -> Result<Vec<String>> {
        let mut findings = self.meta.check().await?;
        let (mut told, mut more, mut after) = (0, 0_u64, None);
        loop {
            let page = match self.meta.blobs_after(after, PAGE).await {
                // Of an index that cannot be read it is told already.
                Err(meta::Error::Corrupt(_)) if !findings.is_empty() => break,
                page => page?,
            };
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let places = page.iter().map(|(_, blob)| blob.locator.clone()).collect();
            let seen = self.blobs.look(places).await?;
            for ((hash, blob), seen) in page.iter().zip(seen) {
                match self.fault(hash, blob, seen).await? {
                    Some(_) if told == TOLD_MAX => more += 1,
                    Some(fault) => {
                        told += 1;
                        findings.push(fault);
                    }
                    None => {}
                }
            }
        }
        if more > 0 {
            findings.push(format!("and {more} more contents"));
        }
        Ok(findings)
    }

    /// What is wrong with a blob that looked like this when its record was this.
    async fn fault(
        &self,
        hash: &ContentHash,
        blob: &BlobRecord,
        seen: Seen,
    ) -> Result<Option<String>> {
        if seen == Seen::Whole && blob.damaged.is_none() {
            return Ok(None);
        }
        // Bytes that are let go, or move, are named by no record any more when they go.
        let now = self.meta.blob(hash).await?.filter(|now| now.locator == blob.locator);
        let Some(now) = now else { return Ok(None) };
        let fault = match (seen, now.damaged) {
            (Seen::Missing, _) => "is not there".to_owned(),
            (Seen::Short, _) => "is cut short".to_owned(),
            (Seen::Unreadable(why), _) => format!("cannot be looked at: {why}"),
            (Seen::Whole, Some(since)) => format!("is known to be damaged since {since}"),
            (Seen::Whole, None) => return Ok(None),
        };
        Ok(Some(format!("the content {hash}, of {} files, {fault}", now.references)))
    }
}
