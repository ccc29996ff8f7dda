//! Use cases: every rule that needs more than one seam. Knows no HTTP and no engine.
//!
//! Everything here keeps one order: bytes are durable before the record that names them; on removal
//! the record goes first, then the bytes. A crash leaves litter for [`gc`], never a name without
//! bytes.
//!
//! Every use case can fail with the errors of its stores; *Errors* lists only what it refuses
//! besides.

pub mod access;
pub mod append;
pub mod archive;
pub mod backup;
pub mod catalog;
pub mod checksum;
mod compact;
pub mod complete;
pub mod concatenate;
mod dating;
mod epochs;
pub mod error;
pub mod fsck;
pub mod gc;
pub mod health;
pub mod import;
pub mod incoming;
pub mod keys;
mod lease;
pub mod link;
pub mod possession;
pub mod publish;
pub mod read;
mod receipt;
pub mod scrub;
pub mod service_tokens;
pub mod sweep;
pub mod upkeep;
pub mod upload;
pub mod usage;
pub mod user_tokens;
pub mod users;
mod uses;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use self::error::{Error, Result};
use self::usage::Usage;
use crate::{
    auth::{jwt, keyring::KeyRing, link::LinkKey},
    blob::BlobStore,
    meta::Metadata,
    model::{id::UploadId, time::UnixMillis},
    sys::{clock::Clock, counts::Counts, random::FileIds},
};

/// Bounds and rules that the operator sets.
#[derive(Clone, Debug)]
pub struct Policy {
    pub file_bytes_max: u64,
    pub part_bytes_max: u64,
    /// The quota of a user whose record sets none.
    pub quota_bytes: u64,
    /// How long a session lives without progress, and a completed one for repeated requests.
    pub upload_ttl: Duration,
    /// How long a blob stays that no file refers to.
    pub reclaim_grace: Duration,
    /// From the start of one scrub to the start of the next, and how fast a scrub reads.
    pub scrub_every: Duration,
    pub scrub_bytes_per_second: u64,
    pub public_read: bool,
    pub tokens: jwt::Expected,
}

/// Everything a use case needs.
pub struct App {
    meta: Arc<dyn Metadata>,
    blobs: Arc<dyn BlobStore>,
    keys: Arc<KeyRing>,
    links: LinkKey,
    clock: Arc<dyn Clock>,
    policy: ArcSwap<Policy>,
    ids: FileIds,
    verified: access::Verifications,
    /// The latest second to which tokens of a service may have been dated after some were revoked.
    last_end: AtomicU64,
    uses: uses::Uses,
    completing: lease::Leases,
    appending: lease::Leases,
    /// Requests that send bytes or make a file of them, by session. A session expires after a time
    /// without progress. These requests are progress, so it does not expire before they have ended.
    arrivals: Arc<Counts<UploadId>>,
    detached: TaskTracker,
    epochs: epochs::Epochs,
    /// Permits to hold the records of all parts of an upload; see [`App::look`].
    looks: Semaphore,
    /// One permit for each byte of memory that the plans of archives take.
    archives: Arc<Semaphore>,
    removals: gc::Removals,
    upkeep: upkeep::Schedule,
    scrubbing: tokio::sync::Mutex<()>,
    backing_up: Arc<tokio::sync::Mutex<()>>,
    usage: ArcSwapOption<Usage>,
}

impl App {
    pub fn new(
        meta: Arc<dyn Metadata>,
        blobs: Arc<dyn BlobStore>,
        keys: Arc<KeyRing>,
        links: LinkKey,
        clock: Arc<dyn Clock>,
        policy: Policy,
    ) -> Arc<Self> {
        Arc::new(Self {
            meta,
            blobs,
            keys,
            links,
            clock,
            policy: ArcSwap::from_pointee(policy),
            ids: FileIds::default(),
            verified: access::Verifications::default(),
            last_end: AtomicU64::default(),
            uses: uses::Uses::default(),
            completing: lease::Leases::default(),
            appending: lease::Leases::default(),
            arrivals: Arc::default(),
            detached: TaskTracker::new(),
            epochs: epochs::Epochs::default(),
            looks: Semaphore::new(incoming::LOOKS_MAX),
            archives: Arc::new(Semaphore::new(archive::PLANS_BYTES_MAX)),
            removals: gc::Removals::default(),
            upkeep: upkeep::Schedule::default(),
            scrubbing: tokio::sync::Mutex::default(),
            backing_up: Arc::default(),
            usage: ArcSwapOption::empty(),
        })
    }

    /// The rules as they are now; the operator may change them at any time.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        // Other tokens may be good under the new policy.
        self.verified.forget();
    }

    /// The time that every use case works with.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Runs a step to its end even when the client is gone and nobody waits: a commit and the
    /// clean-up after it must not stop half-way. Every step that seals bytes and then records them
    /// runs here, from before the seal on, because garbage collection waits for such steps
    /// ([`gc`]).
    async fn detached<T, F>(self: &Arc<Self>, step: impl FnOnce(Arc<Self>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let token = self.epochs.enter();
        self.to_its_end(|app| {
            let step = step(app);
            async move {
                let _token = token;
                step.await
            }
        })
        .await
    }

    /// Runs a change of who is admitted, as a step of [`App::detached`]. Once the change is
    /// answered, nothing that was verified before it counts.
    async fn changing_access<T, F>(
        self: &Arc<Self>,
        change: impl FnOnce(Arc<Self>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.detached(|app| {
            let change = change(Arc::clone(&app));
            async move {
                let outcome = change.await;
                app.verified.forget();
                outcome
            }
        })
        .await
    }

    /// Runs work to its end even when the caller is gone. Garbage collection does not wait for it,
    /// since the work may wait for its client.
    async fn to_its_end<T, F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.detached.spawn(work(Arc::clone(self))).await?
    }

    /// Waits for steps that go on without their client. Steps that wait for their client record
    /// what came until now.
    pub async fn finish(&self) {
        self.appending.end();
        self.detached.close();
        self.detached.wait().await;
    }
}
