//! `serve`: reads the configuration, opens the engines, builds the app, listens and drains.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    process,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, UnixListener},
    time::{sleep, timeout},
};

use super::{
    Failures, Place,
    control::{Control, ReadConfig, policy, retention, settings, watchdog},
    door, failure, keep_private,
};
use crate::{
    app::{
        App,
        service_tokens::{Listed, Standing},
    },
    auth::{keyring::KeyRing, link::LinkKey, service_token},
    blob::disk::DiskBlobs,
    config::Config,
    http::{
        Server,
        connection::listener::{Listener, Serves, Socket},
        operator::Door,
    },
    meta::sled::SledMetadata,
    sys::{
        audit::AuditLog,
        clock::SystemClock,
        data_dir, durable, log,
        signal::{Hangups, Signals, Told},
        systemd::{self, Inherited, Manager},
    },
};

const UPKEEP_EVERY: Duration = Duration::from_mins(1);
/// The longest time between two looks at the scrub, also after one that failed: its due time is
/// wall time, which may step.
const SCRUB_LOOK_EVERY: Duration = Duration::from_mins(10);
const USAGE_EVERY: Duration = Duration::from_mins(10);
/// How long work on the blocking pool may take after the last request has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub fn serve(place: Place, listen: Option<String>) -> Result<(), Failures> {
    let runtime = door::runtime()?;
    // SIGHUP is caught first: a start may take minutes, and whoever replaces a certificate
    // meanwhile must not end the process by it.
    let hangups = {
        let _entered = runtime.enter();
        Hangups::install().map_err(Failures::at("signals"))?
    };
    let read: Arc<ReadConfig> =
        Arc::new(move || place.explain(listen.clone()).map(|(config, _)| config));
    let config = read()?;
    log::start(&config.log).map_err(Failures::at("log"))?;
    harden();
    let manager = Manager::find().map_err(Failures::at("NOTIFY_SOCKET"))?;
    manager.tell("STATUS=opening the data directory");
    let dir = &config.data_dir;
    if data_dir::prepare(dir).map_err(Failures::of("data directory", dir))? {
        // If a disk is not mounted, this line is the only sign of it.
        tracing::info!("a new, empty store was begun in {}", dir.display());
    }
    let lock = data_dir::patiently(|| data_dir::lock(dir));
    let _lock = lock.map_err(Failures::of("data directory", dir))?;
    // A process that held the lock until now may have been of a newer version.
    data_dir::check(dir).map_err(Failures::of("data directory", dir))?;
    // The address that a killed daemon left there would mislead clients.
    let _ = fs::remove_file(dir.join("listen"));
    let app = open(&config)?;
    let outcome = runtime.block_on(run(config, read, Arc::clone(&app), manager, hangups));
    runtime.shutdown_timeout(STOP_TIMEOUT);
    // Dropped here and not on the runtime, whose shutdown waits for `STOP_TIMEOUT` only: closing
    // the index may take longer.
    drop(app);
    outcome
}

/// Opens everything below the app. Blocks.
pub fn open(config: &Config) -> Result<Arc<App>, Failures> {
    let dir = &config.data_dir;
    let place = dir.join("keys");
    let (signs_tokens, signs_links) = has_keys(&place);
    let keys = KeyRing::open(&place).map_err(Failures::of("keys", &place))?;
    let links = LinkKey::open(&place).map_err(Failures::of("keys", &place))?;
    let meta = SledMetadata::open(dir, config.meta_cache_bytes, config.journal_bytes);
    let meta = meta.map_err(Failures::at(format!("meta of {}", dir.display())))?;
    let pack_bytes_max = usize::try_from(config.pack_bytes_max).unwrap_or(usize::MAX);
    let blobs = DiskBlobs::open(dir, pack_bytes_max).map_err(Failures::of("blobs", dir))?;
    if meta.is_new().map_err(Failures::at("meta"))? {
        // Otherwise an empty store would be served on top of the content. Its space would never be
        // freed, because `gc` touches nothing that is older than the index.
        if !blobs.is_empty().map_err(Failures::of("blobs", dir))? {
            return Err(failure(format!(
                "{} holds content but no record of its owners: journal/ and meta/ are lost. Put \
                 journal/ back, or restore a backup into another directory; a new store needs an \
                 empty directory",
                dir.display(),
            )));
        }
    } else {
        tell_lost_keys(signs_tokens, signs_links);
    }
    let (meta, blobs) = (Arc::new(meta), Arc::new(blobs));
    Ok(App::new(meta, blobs, Arc::new(keys), links, Arc::new(SystemClock), policy(config)))
}

/// Whether there are keys that sign tokens, and one that signs links.
fn has_keys(place: &Path) -> (bool, bool) {
    let is_pem = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "pem"))
    };
    let signs_tokens = fs::read_dir(place).is_ok_and(|mut entries| entries.any(is_pem));
    (signs_tokens, place.join("link.key").exists())
}

/// Warns if a store that is not new had no keys: they have been lost.
fn tell_lost_keys(signs_tokens: bool, signs_links: bool) {
    if !signs_tokens {
        tracing::warn!(
            "keys/ had no signing key, so one was made: no token that was signed before is valid; \
             put keys/ back from a backup and restart"
        );
    }
    if !signs_links {
        tracing::warn!(
            "keys/ had no link.key, so one was made: no URL that was signed before is valid; put \
             link.key back from a backup and restart"
        );
    }
}

/// Opens the audit log. The caller must hold the directory's lock. Blocks.
pub fn open_audit(config: &Config) -> Result<Arc<AuditLog>, Failures> {
    let dir = config.data_dir.join("audit");
    let opened = AuditLog::open(&dir, retention(config));
    opened.map(Arc::new).map_err(Failures::of("audit log", &dir))
}

async fn run(
    config: Config,
    read: Arc<ReadConfig>,
    app: Arc<App>,
    manager: Manager,
    hangups: Hangups,
) -> Result<(), Failures> {
    let mut signals = Signals::install(hangups).map_err(Failures::at("signals"))?;
    let listeners = listen(&config.listen).await?;
    let bound = listeners.iter().find_map(Listener::address);
    check_links(&config, bound);
    // Without a TCP socket there is no bound address; links then use the configured `listen`.
    let address = bound.map_or_else(|| config.listen.clone(), |address| address.to_string());
    let audit = open_audit(&config)?;
    let server = Server::new(Arc::clone(&app), settings(&config, &address), Arc::clone(&audit));
    let dir = config.data_dir.clone();
    let manager = Arc::new(manager);
    let mut control = Control::new(
        config,
        read,
        address.clone(),
        Arc::clone(&app),
        Arc::clone(&server),
        Arc::clone(&manager),
    )?;
    // A new token is shown only once, so this follows everything that may fail the start.
    register_tokens(control.config(), &app).await?;
    let sweeping = tokio::spawn(sweep(Arc::clone(&app)));
    let answering = Arc::new(Door { app: Arc::clone(&app), data_dir: dir.clone(), audit });
    let admin = match door::Socket::of(&dir).and_then(|socket| socket.bind()) {
        Ok(listener) => Some(tokio::spawn(answering.serve(listener))),
        Err(error) => {
            // Files must be served even without the socket.
            tracing::warn!(%error, "no admin socket: commands work only without a running daemon");
            None
        }
    };
    let announced = dir.join("listen");
    let place = if bound.is_some() {
        // Lets other programs find the daemon.
        if let Err(error) = durable::write_file(&announced, format!("{address}\n").as_bytes()) {
            // No reason to stop either: the disk may have run out of inodes.
            tracing::warn!(%error, "{} could not be written", announced.display());
        }
        control.url()
    } else {
        "the socket that it inherited".to_owned()
    };
    // Whoever started the daemon may not read its output.
    let _ = writeln!(io::stdout(), "streamlined listens on {place}");
    let address = bound.map(tracing::field::display);
    tracing::info!(address, version = env!("CARGO_PKG_VERSION"), "ready");
    manager.tell("READY=1\nSTATUS=serving");
    let watching = tokio::spawn(watchdog(Arc::clone(&app), Arc::clone(&manager)));
    let stop = async {
        let signal = control.run(&mut signals).await;
        tracing::info!(signal, "stopping");
        manager.tell("STOPPING=1\nSTATUS=letting requests finish");
        drop(tokio::spawn(end_at_once(signals)));
    };
    server.run(listeners, stop).await;
    sweeping.abort();
    // The task ends at its next await point. If it outlived the runtime, it would report a failure.
    let _ = sweeping.await;
    if let Some(admin) = admin {
        admin.abort();
    }
    let _ = fs::remove_file(dir.join(door::SOCKET));
    if timeout(control.config().drain_timeout, app.finish()).await.is_err() {
        tracing::warn!("completions did not finish in time; their uploads stay open");
    }
    if let Err(error) = app.record_uses().await {
        tracing::warn!(%error, "the last uses of tokens were not recorded");
    }
    if bound.is_some()
        && let Err(error) = fs::remove_file(&announced)
    {
        tracing::debug!(%error, "the listen file was not removed");
    }
    watching.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Warns if signed links would lead nowhere.
fn check_links(config: &Config, bound: Option<SocketAddr>) {
    let why = match bound {
        _ if config.public_url.is_some() => return,
        None => "the daemon listens on no network address",
        Some(address) if address.ip().is_unspecified() => "the daemon listens on every address",
        Some(_) => return,
    };
    tracing::warn!(why, "signed URLs do not work for other machines: set public_url");
}

/// The name of an inherited socket on which only metrics and health are served.
const WATCHING: &str = "metrics";

/// The inherited sockets if there are any, else a new one. Inherited sockets stay open while the
/// daemon restarts, and clients that connect meanwhile wait in their queues.
async fn listen(address: &str) -> Result<Vec<Listener>, Failures> {
    let inherited = systemd::inherited().map_err(Failures::at("socket activation"))?;
    if inherited.is_empty() {
        let bound = TcpListener::bind(address).await;
        let bound = bound.map_err(Failures::at(format!("listen on {address}")))?;
        return Ok(vec![Listener { socket: Socket::Tcp(bound), serves: Serves::Everything }]);
    }
    let take = |Inherited { name, socket }| {
        let serves = if name == WATCHING { Serves::Watching } else { Serves::Everything };
        let socket = match socket {
            systemd::Socket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Socket::Tcp(TcpListener::from_std(socket)?)
            }
            systemd::Socket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Socket::Unix(UnixListener::from_std(socket)?)
            }
        };
        Ok::<_, io::Error>(Listener { socket, serves })
    };
    let listeners: io::Result<Vec<_>> = inherited.into_iter().map(take).collect();
    let listeners = listeners.map_err(Failures::at("socket activation"))?;
    if listeners.iter().all(|listener| listener.serves == Serves::Watching) {
        return Err(Failures::at("socket activation")("all inherited sockets only serve metrics"));
    }
    Ok(listeners)
}

/// Ends the process at a second stop signal, whose sender does not want to wait. Everything that
/// was acknowledged is on the disk already.
async fn end_at_once(mut signals: Signals) {
    while signals.next().await == Told::Reload {}
    tracing::warn!("told to stop twice: requests in flight are cut off");
    process::exit(1);
}

/// Registers the configured token. On the very first start without one, makes one and shows it.
async fn register_tokens(config: &Config, app: &Arc<App>) -> Result<(), Failures> {
    register_token(config, app).await?;
    if app.has_service_tokens().await.map_err(Failures::at("service tokens"))? {
        return Ok(());
    }
    // Shown before it is stored: a token that was stored but never shown would lock everybody out.
    let token = service_token::generate();
    writeln!(io::stderr(), "service token (shown once, keep it): {}", *token)
        .map_err(Failures::at("the first service token could not be shown, so none was made"))?;
    let registered = app.register_service_token(&token, "first").await;
    registered.map(drop).map_err(Failures::at("service token"))
}

/// Registers the configured token, if there is one. Warns if a token is in use that everybody
/// knows.
pub async fn register_token(config: &Config, app: &Arc<App>) -> Result<(), Failures> {
    if let Some(token) = &config.service_token {
        let registered = app.register_service_token(token, "configured").await;
        let Listed { token, standing, .. } = registered.map_err(Failures::at("service token"))?;
        match (standing, token.ends()) {
            (Standing::Active, _) => {}
            (Standing::Superseding, Some(until)) => {
                tracing::warn!(
                    "the configured service token was rotated: it is valid until {until}; \
                     configure its successor instead"
                );
            }
            (standing, _) => {
                let standing = standing.as_str();
                tracing::warn!("the configured service token was {standing}: it is refused");
            }
        }
    }
    if app.admits_public_token().await.map_err(Failures::at("service tokens"))? {
        tracing::warn!("the service token printed in the public document is in use: change it");
    }
    Ok(())
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
                tracing::warn!(%error, "the scrub failed; it continues later");
                SCRUB_LOOK_EVERY
            });
            sleep(wait.min(SCRUB_LOOK_EVERY)).await;
        }
    };
    let usage = async {
        loop {
            if let Err(error) = app.survey_usage().await {
                tracing::warn!(%error, "the usage of users could not be counted");
            }
            sleep(USAGE_EVERY).await;
        }
    };
    tokio::join!(upkeep, scrub, usage);
}

/// Keeps files and memory of the process private, and raises its limit of open files to the hard
/// limit.
fn harden() {
    if let Err(error) = keep_private() {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
