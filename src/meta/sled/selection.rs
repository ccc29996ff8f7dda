//! Selections in sled: one record for each thousand files, so that no record is too large for a
//! page. They are ordered by the time at which they expire.

use async_trait::async_trait;

use super::{SledMetadata, codec, index, records::Records, txn::Txn};
use crate::{
    meta::{Result, Selection, Selections},
    model::{id::SelectionId, time::UnixMillis},
};

const FILES_IN_RECORD: usize = 1000;

fn records(selection: Selection) -> Vec<Selection> {
    match selection {
        Selection::Files(files) => {
            files.chunks(FILES_IN_RECORD).map(|files| Selection::Files(files.to_vec())).collect()
        }
        folder @ Selection::Folder { .. } => vec![folder],
    }
}

#[async_trait]
impl Selections for SledMetadata {
    async fn add_selection(&self, id: SelectionId, selection: Selection) -> Result<()> {
        let add = move |txn: &mut Txn<'_>| {
            let records = records(selection);
            (0..)
                .zip(&records)
                .try_for_each(|(at, record)| txn.put(index::selection_record(id, at), record))
        };
        self.committer.commit(add).await
    }

    async fn selection(&self, id: SelectionId) -> Result<Option<Selection>> {
        let read = move |records: &Records| {
            let mut files = None;
            for entry in records.scan_prefix(&index::selection(id)) {
                let (_, record) = entry?;
                match codec::decode(&record)? {
                    Selection::Files(more) => files.get_or_insert_with(Vec::new).extend(more),
                    folder @ Selection::Folder { .. } => return Ok(Some(folder)),
                }
            }
            Ok(files.map(Selection::Files))
        };
        self.scan(read).await
    }

    async fn forget_selections(&self, now: UnixMillis, limit: usize) -> Result<bool> {
        let due = move |records: &Records| records.due(index::SELECTIONS, limit, |at| at <= now);
        let due = self.scan(due).await?;
        if due.is_empty() {
            return Ok(false);
        }
        let more = due.len() == limit;
        let forget = move |txn: &mut Txn<'_>| {
            for key in due {
                txn.delete(key);
            }
            Ok(())
        };
        self.committer.reclaim(forget).await?;
        Ok(more)
    }
}
