//! `serve`: configuration to engines to app to listener to drain.

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
/// For a scrub that failed, and for one that waits: its time is wall time, which may step.
const SCRUB_LOOK_EVERY: Duration = Duration::from_mins(10);
const USAGE_EVERY: Duration = Duration::from_mins(10);
/// Time for work on the blocking pool to end after the last request did.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub fn serve(place: Place, listen: Option<String>) -> Result<(), Failures> {
    let runtime = door::runtime()?;
    // First of all: a start may take minutes, and who replaced a certificate knows nothing of it.
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
        // Of a disk that is not mounted it is the one sign.
        tracing::info!("a new, empty store was begun in {}", dir.display());
    }
    let lock = data_dir::patiently(|| data_dir::lock(dir));
    let _lock = lock.map_err(Failures::of("data directory", dir))?;
    // Whoever had it until now may be of a newer version.
    data_dir::check(dir).map_err(Failures::of("data directory", dir))?;
    // What a killed daemon left would lead others astray.
    let _ = fs::remove_file(dir.join("listen"));
    let app = open(&config)?;
    let outcome = runtime.block_on(run(config, read, Arc::clone(&app), manager, hangups));
    runtime.shutdown_timeout(STOP_TIMEOUT);
    // Here and not with the runtime, which waits for so long only: closing the index may take more.
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
        // An empty store would be served over it, and that room would never come back: `gc` touches
        // nothing from before the index was begun.
        if !blobs.is_empty().map_err(Failures::of("blobs", dir))? {
            return Err(failure(format!(
                "{} holds content and nothing that says whose it is: journal/ and meta/ are lost. \
                 Put journal/ back, or restore a backup into another directory; a new store needs \
                 an empty one",
                dir.display(),
            )));
        }
    } else {
        tell_lost_keys(signs_tokens, signs_links);
    }
    let (meta, blobs) = (Arc::new(meta), Arc::new(blobs));
    Ok(App::new(meta, blobs, Arc::new(keys), links, Arc::new(SystemClock), policy(config)))
}

/// Whether there are keys that sign tokens and links.
fn has_keys(place: &Path) -> (bool, bool) {
    let is_pem = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "pem"))
    };
    let signs_tokens = fs::read_dir(place).is_ok_and(|mut entries| entries.any(is_pem));
    (signs_tokens, place.join("link.key").exists())
}

/// A store that is no new one had keys.
fn tell_lost_keys(signs_tokens: bool, signs_links: bool) {
    if !signs_tokens {
        tracing::warn!(
            "keys/ had no signing key, so one was made: no token that was signed before is good; \
             put keys/ back from a backup and start again"
        );
    }
    if !signs_links {
        tracing::warn!(
            "keys/ had no link.key, so one was made: no URL that was signed before is good; put \
             it back from a backup and start again"
        );
    }
}

/// Opens the audit log; whoever has the directory's lock may. Blocks.
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
    // Without one of a network, what the configuration says is as good as anything for links.
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
    // Shown once, so not before all that may stop a start.
    register_tokens(control.config(), &app).await?;
    let sweeping = tokio::spawn(sweep(Arc::clone(&app)));
    let answering = Arc::new(Door { app: Arc::clone(&app), data_dir: dir.clone(), audit });
    let admin = match door::Socket::of(&dir).and_then(|socket| socket.bind()) {
        Ok(listener) => Some(tokio::spawn(answering.serve(listener))),
        Err(error) => {
            // Files must be served all the same.
            tracing::warn!(%error, "no admin socket: commands need the daemon to be stopped");
            None
        }
    };
    let announced = dir.join("listen");
    let place = if bound.is_some() {
        // For other programs to find it.
        if let Err(error) = durable::write_file(&announced, format!("{address}\n").as_bytes()) {
            // As with the socket: of inodes there may be none left.
            tracing::warn!(%error, "{} could not be written", announced.display());
        }
        control.url()
    } else {
        "the socket that it was handed".to_owned()
    };
    // Whoever started the daemon may not care to read it.
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
    // It ends at its next step; one that found the runtime gone would report a failure.
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

/// Warns of links that lead nowhere.
fn check_links(config: &Config, bound: Option<SocketAddr>) {
    let why = match bound {
        _ if config.public_url.is_some() => return,
        None => "it listens on no address of a network",
        Some(address) if address.ip().is_unspecified() => "it listens on every address",
        Some(_) => return,
    };
    tracing::warn!(why, "links lead nowhere that others reach: set public_url");
}

/// The name of a handed-over socket by which only metrics and health are served.
const WATCHING: &str = "metrics";

/// The sockets that were handed over, else a new one. Those that were handed over stay open while
/// the daemon is started again, and whoever connects meanwhile waits in them.
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
        return Err(Failures::at("socket activation")("by its sockets only metrics are served"));
    }
    Ok(listeners)
}

/// Whoever asks a second time does not want to wait. What is acknowledged is on the disk already.
async fn end_at_once(mut signals: Signals) {
    while signals.next().await == Told::Reload {}
    tracing::warn!("told to stop twice: requests in flight are cut");
    process::exit(1);
}

/// Registers the configured token; on the very first start without one, makes one and shows it.
async fn register_tokens(config: &Config, app: &Arc<App>) -> Result<(), Failures> {
    register_token(config, app).await?;
    if app.has_service_tokens().await.map_err(Failures::at("service tokens"))? {
        return Ok(());
    }
    // Shown before it is kept: one that was kept but never shown would lock everybody out.
    let token = service_token::generate();
    writeln!(io::stderr(), "service token (shown once, keep it): {}", *token)
        .map_err(Failures::at("the first service token could not be shown, so none was made"))?;
    let registered = app.register_service_token(&token, "first").await;
    registered.map(drop).map_err(Failures::at("service token"))
}

/// Registers the configured token, where there is one; warns of one that everybody knows.
pub async fn register_token(config: &Config, app: &Arc<App>) -> Result<(), Failures> {
    if let Some(token) = &config.service_token {
        let registered = app.register_service_token(token, "configured").await;
        let Listed { token, standing, .. } = registered.map_err(Failures::at("service token"))?;
        match (standing, token.ends()) {
            (Standing::Active, _) => {}
            (Standing::Superseding, Some(until)) => {
                tracing::warn!(
                    "the configured service token was rotated: it is good until {until}, put its \
                     successor in its place"
                );
            }
            (standing, _) => {
                let standing = standing.as_str();
                tracing::warn!("the configured service token was {standing}: it is not good");
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
                tracing::warn!(%error, "scrub failed; it goes on later");
                SCRUB_LOOK_EVERY
            });
            sleep(wait.min(SCRUB_LOOK_EVERY)).await;
        }
    };
    let usage = async {
        loop {
            if let Err(error) = app.survey_usage().await {
                tracing::warn!(%error, "what users hold was not counted");
            }
            sleep(USAGE_EVERY).await;
        }
    };
    tokio::join!(upkeep, scrub, usage);
}

/// Nothing we make is for others to read, and we may have as many open files as are allowed.
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
