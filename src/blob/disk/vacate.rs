//! Frees the space of a replaced part while its upload goes on. The rules are those for writing a
//! part there: the assembly is entered before the records are read, and only a free place is
//! touched.

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
    /// `None` for a part that does not lie in an assembly.
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
                // The upload has ended meanwhile, and all its space was freed with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        };
        blocking(empty).await
    }
}
