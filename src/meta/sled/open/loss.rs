//! `fsck --rebuild`: a store made of what can be read, when that is not all.

use std::fs;

use super::{
    Loss, Opened, Place, applied, failed, failed_io, has_records, is_half_made, make_anew, open_db,
    set_aside, unless_panicked,
};
use crate::meta::{
    Error, Result,
    sled::{
        index,
        journal::{Journal, JournalId},
    },
};

/// Makes sled anew from what the journal holds, also without what cannot be read of it, and keeps
/// the one before aside. Answers what is missing.
///
/// What lost something is another store from then on, with a journal and an id of its own: its
/// backups must never take the place of those that have what it lost.
///
/// # Errors
/// As [`open`]; [`Error::NotFound`] when there is no journal; [`Error::Corrupt`] when the index has
/// what the journal lost.
pub fn rebuild_at_any_loss(place: &Place) -> Result<Option<String>> {
    let survey = place.files.survey()?;
    let new_id = || survey.is_headless.then(JournalId::new);
    let id = survey.id.or_else(new_id).ok_or(Error::NotFound)?;
    let (base, gaps) = survey.load_readable(|_| Ok(()))?;
    let damage = survey.replay(base, u64::MAX, |_| Ok(()))?.damage;
    let needed = damage.as_ref().map(|damage| *damage.unreadable().end());
    let gaps = gaps.map(|gaps| gaps.to_string());
    let missing: Vec<_> = gaps.into_iter().chain(damage.map(|it| it.to_string())).collect();
    if missing.is_empty() {
        make_anew(place, &survey, id, Loss::Refused)?;
        return Ok(None);
    }
    let missing = missing.join("; ");
    if index_reaches(place, survey.id, needed.unwrap_or(base).max(base)) {
        return Err(Error::Corrupt(format!(
            "{missing}; but the index in meta/ has it: a start, or `fsck` alone, mends the journal \
             by it. Where that index is not to be trusted, move meta/ away first"
        )));
    }
    let made = make_anew(place, &survey, JournalId::new(), Loss::Taken)?;
    let Opened { db, journal, file } = made;
    set_aside(&place.data_dir.join("journal")).map_err(failed_io)?;
    // From here on an open takes the index for all there is, as below.
    place.files.make().map_err(failed_io)?;
    let journal = Journal::after(place.files.clone(), journal.id(), journal.last(), 0);
    Opened { db, journal, file }.save()?;
    Ok(Some(missing))
}

/// Whether there is an index which has every commit up to `number` of this journal, or of one
/// without a head.
fn index_reaches(place: &Place, id: Option<JournalId>, number: u64) -> bool {
    let is_there = fs::read_dir(&place.meta).is_ok_and(|mut entries| entries.next().is_some());
    let reaches = || {
        let db = open_db(place)?;
        let lies_in_runs = db.contains_key(index::LIES_IN_RUNS).map_err(failed)?;
        let is_whole = lies_in_runs && has_records(&db)? && !is_half_made(&db)?;
        let applied = applied(&db)?.filter(|(own, _)| id.is_none_or(|id| *own == id));
        Ok(is_whole && applied.is_some_and(|(_, applied)| applied >= number))
    };
    // One that cannot be read has nothing.
    is_there && !place.files.is_distrusted() && unless_panicked(reaches).unwrap_or(false)
}
