//! `serve`: configuration to engines to app to listener to drain.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::Mode,
    process::{
        DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
    },
};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    time::{sleep, timeout},
};

use super::{Failures, door};
use crate::{
    app::{App, Policy},
    auth::{jwt::Expected, keyring::KeyRing, link::LinkKey, service_token},
    blob::disk::DiskBlobs,
    config::Config,
    http::{Limits, Server, admin::Door},
    meta::sled::SledMetadata,
    sys::{
        audit::{AuditLog, Retention},
        clock::SystemClock,
        data_dir, durable, log, signal,
    },
};

/// Open files that are neither clients' nor their requests': stores, upkeep, commands, whoever is
/// being turned away.
const FILES_KEPT: usize = 160;
const UPKEEP_EVERY: Duration = Duration::from_mins(1);
/// For a scrub that failed, and for one that waits: its time is wall time, which may step.
const SCRUB_LOOK_EVERY: Duration = Duration::from_mins(10);
/// Time for work on the blocking pool to end after the last request did.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub fn serve(config: &Config) -> Result<(), Failures> {
    log::start(&config.log).map_err(Failures::at("log"))?;
    harden();
    let dir = &config.data_dir;
    data_dir::prepare(dir).map_err(Failures::at("data directory"))?;
    let _lock = data_dir::lock(dir).map_err(Failures::at("data directory"))?;
    // What a killed daemon left would lead others astray.
    let _ = fs::remove_file(dir.join("listen"));
    let app = open(config)?;
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failures::at("runtime"))?;
    let outcome = runtime.block_on(run(config, app));
    runtime.shutdown_timeout(STOP_TIMEOUT);
    outcome
}

/// Opens everything below the app. Blocks.
pub fn open(config: &Config) -> Result<Arc<App>, Failures> {
    let dir = &config.data_dir;
    let keys = KeyRing::open(&dir.join("keys")).map_err(Failures::at("keys"))?;
    let links = LinkKey::open(&dir.join("keys")).map_err(Failures::at("keys"))?;
    let meta = SledMetadata::open(dir, config.meta_cache_bytes, config.journal_bytes);
    let meta = meta.map_err(Failures::at("meta"))?;
    data_dir::stamp(dir).map_err(Failures::at("data directory"))?;
    let pack_bytes_max = usize::try_from(config.pack_bytes_max).unwrap_or(usize::MAX);
    let blobs = DiskBlobs::open(dir, pack_bytes_max).map_err(Failures::at("blobs"))?;
    let policy = Policy {
        file_bytes_max: config.file_bytes_max,
        part_bytes_max: config.part_bytes_max.unwrap_or(config.file_bytes_max),
        quota_bytes: config.quota_bytes,
        upload_ttl: config.upload_ttl,
        reclaim_grace: config.reclaim_grace,
        scrub_every: config.scrub_every,
        scrub_bytes_per_second: config.scrub_bytes_per_second,
        public_read: config.public_read,
        tokens: Expected {
            issuer: config.jwt_issuer.clone(),
            audience: config.jwt_audience.clone(),
        },
    };
    let (meta, blobs) = (Arc::new(meta), Arc::new(blobs));
    Ok(App::new(meta, blobs, Arc::new(keys), links, Arc::new(SystemClock), policy))
}

/// Opens the audit log; whoever has the directory's lock may. Blocks.
pub fn open_audit(config: &Config) -> Result<Arc<AuditLog>, Failures> {
    let retention = Retention { file_bytes: config.audit_file_bytes, keep: config.audit_keep };
    let opened = AuditLog::open(&config.data_dir.join("audit"), retention);
    opened.map(Arc::new).map_err(Failures::at("audit log"))
}

async fn run(config: &Config, app: Arc<App>) -> Result<(), Failures> {
    register_tokens(config, &app).await?;
    let shutdown = signal::shutdown().map_err(Failures::at("signals"))?;
    let listening = TcpListener::bind(&config.listen).await;
    let listener = listening.map_err(Failures::at(&format!("listen on {}", config.listen)))?;
    let address = listener.local_addr().map_err(Failures::at("listen"))?;
    let url = format!("http://{address}");
    let (connections, requests) = within_open_files();
    if connections < config.connections_max || requests < config.requests_max {
        tracing::info!(connections, requests, "limited by the open files that are allowed");
    }
    let limits = Limits {
        connections_max: config.connections_max.min(connections),
        requests_max: config.requests_max.min(requests),
        requests_per_principal_max: config.requests_per_principal_max,
        requests_per_second_max: config.requests_per_second_max,
        header_timeout: config.header_timeout,
        body_idle_timeout: config.body_idle_timeout,
        drain_timeout: config.drain_timeout,
        trusted_proxies: config.trusted_proxies.clone(),
    };
    let base = config.public_url.as_deref().unwrap_or(&url);
    let audit = open_audit(config)?;
    let server = Server::new(Arc::clone(&app), base, limits, Arc::clone(&audit));
    let sweeping = tokio::spawn(sweep(Arc::clone(&app)));
    let answering =
        Arc::new(Door { app: Arc::clone(&app), data_dir: config.data_dir.clone(), audit });
    let admin = match door::bind(&config.data_dir) {
        Ok(listener) => Some(tokio::spawn(answering.serve(listener))),
        Err(error) => {
            // Paths of sockets are short; files must be served all the same.
            tracing::warn!(%error, "no admin socket: commands need the daemon to be stopped");
            None
        }
    };
    let announced = config.data_dir.join("listen");
    announce(&announced, &address.to_string()).map_err(Failures::at("listen file"))?;
    // Whoever started the daemon may not care to read it.
    let _ = writeln!(io::stdout(), "streamlined listens on {url}");
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");
    let stop = async {
        let signal = shutdown.await;
        tracing::info!(signal, "stopping");
    };
    server.run(listener, stop).await;
    sweeping.abort();
    // It ends at its next step; one that found the runtime gone would report a failure.
    let _ = sweeping.await;
    if let Some(admin) = admin {
        admin.abort();
    }
    let _ = fs::remove_file(door::socket(&config.data_dir));
    if timeout(config.drain_timeout, app.finish()).await.is_err() {
        tracing::warn!("completions did not finish in time; their uploads stay open");
    }
    if let Err(error) = app.record_uses().await {
        tracing::warn!(%error, "the last uses of tokens were not recorded");
    }
    if let Err(error) = fs::remove_file(&announced) {
        tracing::debug!(%error, "the listen file was not removed");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Writes the bound address where other programs find it: `DATA_DIR/listen`.
fn announce(path: &Path, address: &str) -> io::Result<()> {
    durable::write_file(path, format!("{address}\n").as_bytes())
}

/// Registers the configured token; on the very first start without one, makes one and shows it.
async fn register_tokens(config: &Config, app: &Arc<App>) -> Result<(), Failures> {
    if let Some(token) = &config.service_token {
        let registered = app.register_service_token(token, "configured").await;
        if !registered.map_err(Failures::at("service token"))? {
            tracing::warn!("the configured service token was revoked or rotated: it is not good");
        }
    }
    let public = app.meta.service_token(&service_token::digest(service_token::PUBLIC)).await;
    if public.map_err(Failures::at("service tokens"))?.is_some() {
        tracing::warn!("the service token printed in the public document is in use: change it");
    }
    if app.meta.has_service_tokens().await.map_err(Failures::at("service tokens"))? {
        return Ok(());
    }
    // Shown before it is kept: one that was kept but never shown would lock everybody out.
    let token = service_token::generate();
    eprintln!("service token (shown once, keep it): {}", *token);
    let registered = app.register_service_token(&token, "first").await;
    registered.map(drop).map_err(Failures::at("service token"))
}

async fn sweep(app: Arc<App>) {
    let upkeep = async {
        loop {
            app.upkeep().await;
            sleep(UPKEEP_EVERY).await;
        }
    };
    let scrub = async {
        loop {
            let wait = app.scrub_when_due().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "scrub failed; it goes on later");
                SCRUB_LOOK_EVERY
            });
            sleep(wait.min(SCRUB_LOOK_EVERY)).await;
        }
    };
    tokio::join!(upkeep, scrub);
}

/// Nothing we make is for others to read; no core dumps, which would hold keys and tokens; as
/// many open files as are allowed.
fn harden() {
    umask(Mode::RWXG | Mode::RWXO);
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// How many connections, and requests in work with two files each, there are descriptors for. A
/// store that cannot open its next file stops taking writes, so clients must not get at the last.
fn within_open_files() -> (usize, usize) {
    let allowed = getrlimit(Resource::Nofile).current;
    let allowed = allowed.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let sixth = (allowed.saturating_sub(FILES_KEPT) / 6).max(1);
    (sixth.saturating_mul(4).min(1 << 24), sixth)
}
