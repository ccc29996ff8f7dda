//! fsck: finds the faults that are known or that show without reading the contents. Scrub reads
//! them.

use super::{App, Result};
use crate::{
    blob::upkeep::Seen,
    meta::{self, BlobRecord},
    model::digest::ContentHash,
};

/// Blobs whose places are looked at together.
const PAGE: usize = 1000;
/// Most faulty contents that are reported; the rest are only counted.
const TOLD_MAX: usize = 100;

impl App {
    /// The disagreements between the index, the journal and the disk, one line each. Empty when all
    /// of them agree.
    pub async fn check(&self) -> Result<Vec<String>> {
        let mut findings = self.meta.check().await?;
        let (mut told, mut more, mut after) = (0, 0_u64, None);
        loop {
            let page = match self.meta.blobs_after(after, PAGE).await {
                // The findings say already that the index cannot be read.
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

    /// What is wrong with a blob, given its record and what was seen of its bytes.
    async fn fault(
        &self,
        hash: &ContentHash,
        blob: &BlobRecord,
        seen: Seen,
    ) -> Result<Option<String>> {
        if seen == Seen::Whole && blob.damaged.is_none() {
            return Ok(None);
        }
        // Bytes that were removed or moved meanwhile are no longer named by the record.
        let now = self.meta.blob(hash).await?.filter(|now| now.locator == blob.locator);
        let Some(now) = now else { return Ok(None) };
        let fault = match (seen, now.damaged) {
            (Seen::Missing, _) => "is missing".to_owned(),
            (Seen::Short, _) => "is cut short".to_owned(),
            (Seen::Unreadable(why), _) => format!("cannot be accessed: {why}"),
            (Seen::Whole, Some(since)) => format!("is known to be damaged since {since}"),
            (Seen::Whole, None) => return Ok(None),
        };
        Ok(Some(format!("the content {hash}, of {} files, {fault}", now.references)))
    }
}
