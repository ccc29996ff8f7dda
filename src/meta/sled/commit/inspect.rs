//! Reads the whole index and journal while commits go on, to check and to copy them.

use std::{path::Path, sync::atomic::Ordering};

use super::{
    super::{
        check::{Findings, Walk},
        journal::{self, Files},
        records::REMEDY,
    },
    Committer, Shared,
};
use crate::meta::{Error, Exported, Result};

/// Most walks of the index in one check, when commits write records that do not seem to agree.
const WALKS_MAX: u32 = 3;

impl Committer {
    /// See [`crate::meta::Metadata::export`].
    pub async fn export(&self, data_dir: &Path) -> Result<()> {
        let to = Files::new(&data_dir.join("journal"));
        self.blocking(move |shared| shared.export(&to)).await
    }

    /// See [`crate::meta::Metadata::exported`].
    pub async fn exported(&self, data_dir: &Path) -> Result<Option<Exported>> {
        let journal = data_dir.join("journal");
        self.blocking(move |shared| shared.exported(&journal)).await
    }

    /// See [`crate::meta::Upkeep::check`].
    pub async fn check(&self) -> Result<Vec<String>> {
        let mut findings = self.blocking(Shared::check_index).await?;
        let is_good = findings.is_empty();
        findings.extend(self.blocking(move |shared| shared.check_journal(is_good)).await?);
        Ok(findings)
    }
}

impl Shared {
    /// Exports a snapshot and the commits that came while it was taken. If the index cannot be
    /// read, the snapshot is that of the journal.
    fn export(&self, to: &Files) -> Result<()> {
        let _saving = self.saving();
        to.make().map_err(journal::unwritten)?;
        let number = self.records.last();
        let base = match journal::save(to, self.id, number, self.records.iter(), &self.stopping) {
            Err(Error::Corrupt(_)) => self.files.survey()?.copy_snapshot(to)?,
            saved => saved.map(|_| number)?,
        };
        let last = self.records.last();
        self.files.survey()?.copy(self.id, base, last, to)
    }

    fn exported(&self, journal: &Path) -> Result<Option<Exported>> {
        if !journal.exists() {
            return Ok(None);
        }
        let survey = match Files::new(journal).survey() {
            // Files of two stores: at least one is not this one.
            Err(Error::Corrupt(_)) => return Ok(Some(Exported::Foreign)),
            survey => survey?,
        };
        Ok(match survey.id {
            None => None,
            Some(id) if id != self.id => Some(Exported::Foreign),
            Some(_) if survey.end()? > self.records.last() => Some(Exported::Ahead),
            Some(_) => Some(Exported::Before),
        })
    }

    /// Walks the index while commits go on, and returns what does not agree, or why the index
    /// cannot be read. A finding proves nothing if a commit wrote its record meanwhile: for such
    /// records the index is walked again, [`WALKS_MAX`] times in all at most.
    fn check_index(&self) -> Result<Vec<String>> {
        let _saving = self.saving();
        let walk = Walk { records: &self.records, stopping: &self.stopping };
        let mut proven = Findings::default();
        for _ in 0..WALKS_MAX {
            let before = self.records.last();
            let mut findings = match walk.findings() {
                Err(Error::Corrupt(why)) => {
                    let told = format!("the index cannot be read: {why}: {REMEDY}");
                    self.records.distrust(&Error::Corrupt(why));
                    return Ok(vec![told]);
                }
                findings => findings?,
            };
            let last = self.records.last();
            if !findings.is_empty() {
                self.files.survey()?.replay(before, last, |commit| {
                    for (key, _) in commit.writes().into_iter().flatten() {
                        findings.forget(key);
                    }
                    Ok(())
                })?;
            }
            let is_all = findings.forgotten() == 0;
            proven = findings.and(proven);
            if is_all {
                return Ok(proven.told());
            }
        }
        let records = proven.forgotten();
        tracing::info!(records, "records changed at each look, so they are not reported");
        Ok(proven.told())
    }

    /// Reads the journal and returns what is damaged in it. If the index is good, the next commit
    /// mends the journal by saving a snapshot.
    fn check_journal(&self, index_is_good: bool) -> Result<Vec<String>> {
        let _saving = self.saving();
        // A commit that readers see is durable; what follows it may be half-written.
        let last = self.records.last();
        let findings = match self.files.survey() {
            Err(Error::Corrupt(why)) => vec![why],
            survey => survey?.check(last)?,
        };
        if !findings.is_empty() && index_is_good {
            tracing::error!(?findings, "the journal is damaged; the next commit saves it anew");
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        Ok(findings)
    }
}
