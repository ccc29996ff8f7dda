//! Room for a commit: in the journal, and for sled.

use super::{Step, Writer};
use crate::meta::{
    Error, Result,
    sled::room::{self, Effect, Spare},
};

impl Writer {
    /// Makes room if any of `steps` takes some, and returns the least effect of the steps that may
    /// run. Steps that take room run only while the ballast is whole.
    pub(super) fn make_room(&mut self, steps: &[Step]) -> Result<Effect> {
        let effects = steps.iter().map(|step| step.effect);
        if self.ballast.refill() && effects.clone().any(|effect| effect == Effect::Takes) {
            let reserved = self.journal.reserve(0).and_then(|has_room| {
                self.make_room_for_sled(0, room::AMPLE, Effect::Takes).map(|()| has_room)
            });
            match reserved {
                Ok(true) => return Ok(Effect::Takes),
                Ok(false) | Err(Error::NoSpace) => {}
                Err(error) => return Err(error),
            }
        }
        let least = effects.filter(|effect| *effect != Effect::Takes).min();
        Ok(least.unwrap_or(Effect::Releases))
    }

    /// Makes room for a commit, as a last resort from the share of the ballast that `effect` has.
    pub(super) fn make_room_for(
        &mut self,
        effect: Effect,
        bytes: usize,
        writes: usize,
    ) -> Result<()> {
        loop {
            let reserved = self.journal.reserve(bytes);
            let made = reserved.and_then(|_| self.make_room_for_sled(writes, room::SCANT, effect));
            if made != Err(Error::NoSpace) || !self.ballast.shrink(effect) {
                return made;
            }
        }
    }

    /// Makes sure that sled has room for the writes that wait and for `writes` more.
    fn make_room_for_sled(&mut self, writes: usize, spare: Spare, effect: Effect) -> Result<()> {
        match self.reserve_for_sled(writes, spare) {
            // The waiting writes need less room once they are in sled.
            Err(Error::NoSpace) if self.shared.records.waiting().writes > 0 => {
                self.make_room_for_waiting(effect)?;
                self.shared.settle()?;
                self.reserve_for_sled(writes, spare)
            }
            reserved => reserved,
        }
    }

    /// Makes sure that sled has room for the writes that wait. Each was given its room, but sled
    /// frees what was allocated past its file's end whenever it makes the file shorter, and others
    /// may have taken it. Then it comes from the share of the ballast that `effect` has.
    pub(super) fn make_room_for_waiting(&mut self, effect: Effect) -> Result<()> {
        // What is being settled uses up its room before it stops waiting for it.
        self.shared.records.wait_for_settling();
        loop {
            let reserved = self.reserve_for_sled(0, room::NONE);
            if reserved != Err(Error::NoSpace) || !self.ballast.shrink(effect) {
                return reserved;
            }
        }
    }

    fn reserve_for_sled(&self, writes: usize, spare: Spare) -> Result<()> {
        let waiting = self.shared.records.waiting().writes;
        room::reserve(&self.shared.file, waiting + writes, spare)
    }
}
