//! Last uses of service tokens: noted in memory, recorded in batches.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{App, Result};
use crate::{meta::accounts::TokenUse, model::id::TokenId};

/// Tokens whose use is noted at most; past it, new ones wait for the next batch. JWTs without a
/// record are noted too, so their number is not ours.
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
    /// The last use of a token, recorded or not.
    pub(super) async fn last_use(&self, token: TokenId) -> Result<Option<TokenUse>> {
        let noted = self.uses.lock().get(&token).copied();
        match noted {
            Some(noted) => Ok(Some(noted)),
            None => Ok(self.meta.token_use(token).await?),
        }
    }

    /// Records what was noted, which is noted until then: whoever asks meanwhile is told. Uses that
    /// a crash takes are missed; nothing is decided by them.
    ///
    /// # Errors
    /// What the store says; the next call tries again.
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
