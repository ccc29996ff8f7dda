//! Last uses of service tokens: noted in memory, recorded in batches.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{App, Result};
use crate::{meta::accounts::TokenUse, model::id::TokenId};

/// Most tokens whose use is noted at a time; further ones wait for the next batch. JWTs without a
/// record are noted too, and nothing else bounds their number.
const NOTED_MAX: usize = 4_096;

/// Uses since the last batch.
#[derive(Default)]
pub struct Uses(Mutex<HashMap<TokenId, TokenUse>>);

impl Uses {
    fn lock(&self) -> MutexGuard<'_, HashMap<TokenId, TokenUse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, token: TokenId, used: TokenUse) {
        let mut noted = self.lock();
        if noted.len() < NOTED_MAX || noted.contains_key(&token) {
            noted.insert(token, used);
        }
    }
}

impl App {
    /// The last use of a token, whether it was recorded yet or not.
    pub(super) async fn last_use(&self, token: TokenId) -> Result<Option<TokenUse>> {
        let noted = self.uses.lock().get(&token).copied();
        match noted {
            Some(noted) => Ok(Some(noted)),
            None => Ok(self.meta.token_use(token).await?),
        }
    }

    /// Records the uses noted so far. They stay noted until they are recorded, so that they are
    /// visible at any time. Uses that are lost in a crash are missed; nothing is decided by them.
    ///
    /// # Errors
    /// Those of the store; the next call tries again.
    pub async fn record_uses(&self) -> Result<()> {
        let noted = self.uses.lock().clone();
        if noted.is_empty() {
            return Ok(());
        }
        self.meta.record_uses(noted.iter().map(|(token, used)| (*token, *used)).collect()).await?;
        self.uses.lock().retain(|token, used| noted.get(token) != Some(used));
        Ok(())
    }
}
