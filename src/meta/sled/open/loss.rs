//! `fsck --rebuild`: makes a store from what can be read, when that is not everything.

use std::{fs, io, path::PathBuf};

use sled::Db;

use super::{
    Loss, Place, applied, failed, failed_io, has_records, is_half_made, make_anew, mark_applied,
    open_db, prove_durable, replay, save_as, set_aside, unless_panicked,
};
use crate::{
    meta::{
        Error, Result,
        sled::{
            index,
            journal::{Files, JournalId, Survey},
            records::Records,
            runs::Runs,
        },
    },
    sys::durable,
};

/// Rebuilds sled from the journal, and sets the old sled aside. If the journal lacks something,
/// continues from whichever of the two has more, with a new journal that holds just that, and sets
/// the old journal aside. Returns what is missing then.
///
/// A store that lost something is another store from then on, with a journal and an id of its own:
/// its backups must never replace those that have what it lost.
///
/// # Errors
/// As [`super::open`]; [`Error::NotFound`] when there is no journal; [`Error::Corrupt`] when
/// nothing at all can be read.
pub fn rebuild_at_any_loss(place: &Place) -> Result<Option<String>> {
    let survey = place.files.survey()?;
    let new_id = || survey.is_headless.then(JournalId::new);
    let id = survey.id.or_else(new_id).ok_or(Error::NotFound)?;
    let mut pieces = 0;
    let (base, gaps) = survey.load_readable(|piece| {
        pieces += usize::from(!piece.payload().is_empty());
        Ok(())
    })?;
    let replay = survey.replay(base, u64::MAX, |_| Ok(()))?;
    // An index that has this commit has something that the journal lacks.
    let end = replay.last.max(base);
    let more = if gaps.is_some() { base } else { end + 1 };
    let gaps = gaps.map(|gaps| gaps.to_string());
    let missing: Vec<_> = gaps.into_iter().chain(replay.damage.map(|it| it.to_string())).collect();
    let missing = missing.join("; ");
    let index = match Index::find(place, survey.id, more) {
        // The disk does not give the index, but it is not needed.
        Err(Error::Unavailable(_)) if missing.is_empty() => None,
        Err(Error::Unavailable(why)) => {
            return Err(Error::Unavailable(format!(
                "{missing}; whether the index has these changes is unknown: {why}. Move meta/ away \
                 to go on without the index"
            )));
        }
        index => index?,
    };
    if let Some(index) = index {
        return index.go_on(place, &survey);
    }
    if missing.is_empty() {
        make_anew(place, &survey, id, Loss::Refused)?;
        return Ok(None);
    }
    if pieces == 0 && end == base {
        return Err(Error::Corrupt(format!(
            "{missing}; and nothing else can be read either: put journal/ back, or restore a \
             backup into another directory"
        )));
    }
    let made = make_anew(place, &survey, JournalId::new(), Loss::Taken)?;
    replace_journal(place, &made.db, made.journal.id(), made.journal.last())?;
    Ok(Some(missing))
}

/// An index of which every record can be read.
struct Index {
    db: Db,
    id: JournalId,
    last: u64,
}

impl Index {
    /// The index in `meta/`, if it has commit `number` and belongs to journal `id`, or the journal
    /// has no head and so no `id`.
    fn find(place: &Place, id: Option<JournalId>, number: u64) -> Result<Option<Self>> {
        let is_there = fs::read_dir(&place.meta).is_ok_and(|mut entries| entries.next().is_some());
        if !is_there || place.files.is_distrusted() {
            return Ok(None);
        }
        let found = unless_panicked(|| {
            let db = open_db(place)?;
            let lies_in_runs = db.contains_key(index::LIES_IN_RUNS).map_err(failed)?;
            let is_whole = lies_in_runs && has_records(&db)? && !is_half_made(&db)?;
            let is_own = |own: JournalId| id.is_none_or(|id| own == id);
            match applied(&db)? {
                Some((id, last)) if is_whole && is_own(id) && last >= number => {
                    let records = Records::new(Runs::new(&db), last);
                    records.iter().try_for_each(|record| record.map(drop))?;
                    Ok(Some(Self { db, id, last }))
                }
                _ => Ok(None),
            }
        });
        match found {
            Err(Error::Corrupt(_)) => Ok(None),
            found => found,
        }
    }

    /// Takes in the commits that the journal has after the index, and makes a new journal.
    fn go_on(self, place: &Place, survey: &Survey) -> Result<Option<String>> {
        let Self { db, id, last } = self;
        let replay = unless_panicked(|| {
            prove_durable(&db, &place.meta)?;
            replay(&db, survey, id, last)
        })?;
        let missing = replay.damage.map(|damage| damage.to_string());
        let id = if missing.is_some() { JournalId::new() } else { id };
        replace_journal(place, &db, id, replay.last.max(last))?;
        if missing.is_none() {
            tracing::warn!(
                "the journal was damaged, and the index was saved as a new journal; the old one \
                 is kept beside it as journal.damaged-N"
            );
        }
        Ok(missing)
    }
}

/// Where the journal is made that is to replace the existing one.
pub fn new_journal(place: &Place) -> PathBuf {
    place.data_dir.join("journal.new")
}

/// Saves what sled holds as a new journal in the place of the existing one, which is set aside once
/// the new one is whole. Until then nothing has changed, and everything can be done again.
fn replace_journal(place: &Place, db: &Db, id: JournalId, last: u64) -> Result<()> {
    let journal = place.data_dir.join("journal");
    let new = new_journal(place);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed_io(error)),
        _ => {}
    }
    let files = Files::new(&new);
    files.make().map_err(failed_io)?;
    save_as(&files, db, id, last)?;
    set_aside(&journal).map_err(failed_io)?;
    let renamed = fs::rename(&new, &journal);
    renamed.and_then(|()| durable::sync_dir(&place.data_dir)).map_err(failed_io)?;
    // Until this is done, an open rebuilds the index, because it names the other journal.
    mark_applied(db, id, last)?;
    db.flush().map(drop).map_err(failed)
}
