//! The room of a part that was replaced, given back while its upload goes on. Whoever does that is
//! as one who writes a part there: in the assembly before the records are read, and only in a place
//! that is free.

use std::{fs::File, io, sync::Arc};

use async_trait::async_trait;

use super::{Inner, assembly::Member, blocking::blocking, layout::Place};
use crate::{
    blob::{Address, Result, Vacate},
    model::{locator::Locator, range::Slice},
};

/// See [`BlobStore::vacate`](crate::blob::BlobStore::vacate).
pub struct Vacating {
    store: Arc<Inner>,
    member: Arc<Member>,
    place: Place,
    span: Slice,
}

impl Vacating {
    /// `None` for what does not lie in an assembly.
    pub fn begin(store: &Arc<Inner>, locator: &Locator) -> Result<Option<Self>> {
        let place = Place::parse(locator)?;
        let Place::Assembled { upload, offset, size, .. } = place else { return Ok(None) };
        let member = Arc::new(Member::visit(store, upload));
        let span = Slice { start: offset, end: offset.saturating_add(size) };
        Ok(Some(Self { store: Arc::clone(store), member, place, span }))
    }
}

#[async_trait]
impl Vacate for Vacating {
    async fn unless_taken(self: Box<Self>, parts: Vec<Address>) -> Result<()> {
        let Self { store, member, place, span } = *self;
        let Some(berth) = member.take_among(parts.iter(), span) else { return Ok(()) };
        let empty = move || {
            match File::options().write(true).open(store.file(&place)?) {
                Ok(file) => berth.empty(&file, 0, span.len()),
                // The upload came to its end meanwhile, and took all its room along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        };
        blocking(empty).await
    }
}
