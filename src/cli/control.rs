//! The running daemon's control loop: signals, files that change, the service manager.

use std::{sync::Arc, time::Duration};

use rustix::process::{Resource, getrlimit};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{Failures, serve::register_token};
use crate::{
    app::{App, Policy},
    auth::jwt::Expected,
    config::{Config, reload},
    http::{Server, settings::Settings, telemetry::metrics},
    model::time::UnixMillis,
    sys::{
        audit::Retention,
        log,
        signal::{Signals, Told},
        systemd::Manager,
        tls::{Files, Identity, Mark},
    },
};

/// Open files that are kept for other uses than clients and their requests: stores, upkeep,
/// commands, connections that are being refused.
const FILES_KEPT: usize = 160;

/// How often the TLS files are checked for changes.
const TLS_LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads the configuration in the same way as at the start.
pub type ReadConfig = dyn Fn() -> Result<Config, Failures> + Send + Sync;

/// Everything that may change while the daemon runs.
pub struct Control {
    /// The configuration at the start. Settings that need a restart keep the values in it.
    started: Config,
    config: Config,
    read: Arc<ReadConfig>,
    address: String,
    app: Arc<App>,
    server: Arc<Server>,
    manager: Arc<Manager>,
    /// Marks of the TLS files that are in use. While the files on the disk are faulty, these marks
    /// stay as they are, so that the files are loaded again at the next look.
    marks: [Mark; 3],
    /// The last fault of the TLS files that was logged.
    tls_fault: Option<String>,
}

impl Control {
    /// Loads the TLS files and turns TLS on. Blocks while it reads them.
    pub fn new(
        config: Config,
        read: Arc<ReadConfig>,
        address: String,
        app: Arc<App>,
        server: Arc<Server>,
        manager: Arc<Manager>,
    ) -> Result<Self, Failures> {
        let (marks, identity) = read_tls(&config)?;
        present(&server, identity);
        Ok(Self {
            started: config.clone(),
            config,
            read,
            address,
            app,
            server,
            manager,
            marks,
            tls_fault: None,
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The daemon's URL if `public_url` is not set.
    pub fn url(&self) -> String {
        url(&self.config, &self.address)
    }

    /// Handles signals until one asks to stop; answers the name of that signal.
    pub async fn run(&mut self, signals: &mut Signals) -> &'static str {
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop(signal) => return signal,
                    Told::Reload => self.reload().await,
                },
                () = sleep(TLS_LOOK_EVERY) => self.renew().await,
            }
        }
    }

    /// Reads the configuration again and applies what may change. Any fault leaves everything as it
    /// is.
    async fn reload(&mut self) {
        self.manager.tell_reloading();
        match self.take_over().await {
            Ok(()) => {
                metrics::RELOADS.of(("configuration", "taken")).add(1);
                tracing::info!("the configuration was read again");
            }
            Err(Failures(faults)) => {
                metrics::RELOADS.of(("configuration", "faulty")).add(1);
                for fault in &faults {
                    tracing::error!(fault, "the configuration is faulty; nothing was changed");
                }
            }
        }
        self.manager.tell("READY=1\nSTATUS=serving");
    }

    async fn take_over(&mut self) -> Result<(), Failures> {
        let read = Arc::clone(&self.read);
        let reading = spawn_blocking(move || {
            let config = read()?;
            let tls = read_tls(&config)?;
            Ok::<_, Failures>((config, tls))
        });
        let read = reading.await.map_err(Failures::at("configuration"))?;
        let (config, (marks, identity)) = read?;
        for setting in reload::needs_restart(&self.started, &config) {
            tracing::warn!(setting, "changed, but is only read at the start: restart to apply it");
        }
        if config.service_token != self.config.service_token {
            register_token(&config, &self.app).await?;
        }
        log::change(&config.log).map_err(Failures::at("log"))?;
        self.app.set_policy(policy(&config));
        self.server.set(settings(&config, &self.address));
        present(&self.server, identity);
        (self.config, self.marks, self.tls_fault) = (config, marks, None);
        Ok(())
    }

    /// Loads the certificate and key again if their files were replaced.
    async fn renew(&mut self) {
        let Some(files) = files(&self.config) else { return };
        let known = self.marks;
        let looking = spawn_blocking(move || {
            let marks = files.marks();
            (marks != known).then(|| (marks, files.load()))
        });
        let Ok(Some((marks, loaded))) = looking.await else { return };
        match loaded {
            Ok(identity) => {
                present(&self.server, Some(identity));
                (self.marks, self.tls_fault) = (marks, None);
                metrics::RELOADS.of(("certificate", "taken")).add(1);
                tracing::info!("the new TLS certificate is in use");
            }
            // Logged already: half of the pair is still to be replaced, or may not be read yet.
            Err(fault) if self.tls_fault.as_ref() == Some(&fault) => {}
            Err(fault) => {
                metrics::RELOADS.of(("certificate", "faulty")).add(1);
                tracing::error!(fault, "the new certificate is faulty; the old one stays in use");
                self.tls_fault = Some(fault);
            }
        }
    }
}

/// The TLS files that a configuration names, if it names any.
fn files(config: &Config) -> Option<Files> {
    let (certificate, key) = config.tls_certificate.clone().zip(config.tls_key.clone())?;
    Some(Files { certificate, key, client_ca: config.tls_client_ca.clone() })
}

/// The content of the TLS files, and their marks from before they were read. Blocks.
pub fn read_tls(config: &Config) -> Result<([Mark; 3], Option<Identity>), Failures> {
    let files = files(config);
    let marks = files.as_ref().map_or([None; 3], Files::marks);
    let identity = files.as_ref().map(Files::load).transpose().map_err(Failures::at("TLS"))?;
    Ok((marks, identity))
}

fn present(server: &Server, identity: Option<Identity>) {
    let expires = identity.as_ref().and_then(|identity| identity.expires);
    metrics::CERTIFICATE_EXPIRES.set(expires.map_or(0, UnixMillis::seconds));
    server.set_tls(identity.map(|identity| identity.config));
}

fn url(config: &Config, address: &str) -> String {
    let scheme = if config.tls_certificate.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// The settings that the use cases need.
pub fn policy(config: &Config) -> Policy {
    Policy {
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
    }
}

/// The settings that the HTTP layer needs.
pub fn settings(config: &Config, address: &str) -> Settings {
    let (connections, requests) = within_open_files();
    if connections < config.connections_max || requests < config.requests_max {
        tracing::info!(connections, requests, "limited by how many files the process may open");
    }
    let public_url = config.public_url.clone().unwrap_or_else(|| url(config, address));
    Settings {
        public_url: public_url.trim_end_matches('/').to_owned(),
        metrics: config.metrics,
        allowed_origins: config.allowed_origins.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        connections_max: config.connections_max.min(connections),
        connections_per_address_max: config.connections_per_address_max,
        requests_max: config.requests_max.min(requests),
        requests_per_principal_max: config.requests_per_principal_max,
        requests_per_second_max: config.requests_per_second_max,
        requests_per_connection_max: config.requests_per_connection_max,
        streams_per_connection_max: config.streams_per_connection_max,
        head_bytes_max: config.head_bytes_max,
        header_timeout: config.header_timeout,
        idle_timeout: config.idle_timeout,
        body_idle_timeout: config.body_idle_timeout,
        body_bytes_per_second_min: config.body_bytes_per_second_min,
        drain_timeout: config.drain_timeout,
    }
}

/// The settings of the audit log.
pub fn retention(config: &Config) -> Retention {
    Retention { file_bytes: config.audit_file_bytes, keep: config.audit_keep }
}

/// How many connections, and how many requests in work at two files each, the limit of open files
/// allows. A store that cannot open its next file stops taking writes, so clients must never use up
/// the last descriptors.
fn within_open_files() -> (usize, usize) {
    let allowed = getrlimit(Resource::Nofile).current;
    let allowed = allowed.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let sixth = (allowed.saturating_sub(FILES_KEPT) / 6).max(1);
    (sixth.saturating_mul(4).min(1 << 24), sixth)
}

/// Tells the service manager that the daemon is alive, as long as a write reaches the disk and is
/// answered. A write that is refused has reached it: a full or failing disk is reported by
/// `/healthz`, and reads go on. If the check hangs, the manager is told nothing and ends the
/// process.
pub async fn watchdog(app: Arc<App>, manager: Arc<Manager>) {
    let Some(patience) = manager.watchdog() else { return };
    loop {
        match timeout(patience, app.self_check()).await {
            Ok(Ok(())) => manager.tell("WATCHDOG=1\nSTATUS=serving"),
            Ok(Err(error)) => manager.tell(&format!("WATCHDOG=1\nSTATUS=not healthy: {error}")),
            Err(_) => tracing::error!("the self-check did not finish in time"),
        }
        sleep(patience / 3).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{grant, origins::Origins, principal::Audience};

    /// Each value differs from its default and from all others.
    fn config() -> Config {
        let seconds = Duration::from_secs;
        Config {
            public_url: Some("https://files.example/".into()),
            public_read: true,
            jwt_issuer: "issuer".into(),
            jwt_audience: "audience".into(),
            file_bytes_max: 1001,
            part_bytes_max: Some(1002),
            quota_bytes: 1003,
            upload_ttl: seconds(1004),
            reclaim_grace: seconds(1005),
            scrub_every: seconds(1006),
            scrub_bytes_per_second: 1007,
            metrics: Audience::Anybody,
            connections_max: 4,
            connections_per_address_max: 1008,
            requests_max: 2,
            requests_per_principal_max: 1009,
            requests_per_second_max: Some(1010),
            requests_per_connection_max: 1011,
            streams_per_connection_max: 1012,
            head_bytes_max: 1013,
            header_timeout: seconds(1014),
            idle_timeout: seconds(1015),
            body_idle_timeout: seconds(1016),
            body_bytes_per_second_min: 1017,
            drain_timeout: seconds(1018),
            allowed_origins: Origins::parse("https://app.example").unwrap(),
            trusted_proxies: vec![grant::network("10.0.0.0/8").unwrap()],
            audit_file_bytes: 1019,
            audit_keep: seconds(1020),
            ..Config::new()
        }
    }

    #[test]
    fn every_setting_of_use_cases_is_that_of_its_name() {
        let (config, seconds) = (config(), Duration::from_secs);
        // Destructured, so that a new field does not compile until it is tested here.
        let Policy {
            file_bytes_max,
            part_bytes_max,
            quota_bytes,
            upload_ttl,
            reclaim_grace,
            scrub_every,
            scrub_bytes_per_second,
            public_read,
            tokens: Expected { issuer, audience },
        } = policy(&config);
        assert_eq!((file_bytes_max, part_bytes_max, quota_bytes), (1001, 1002, 1003));
        assert_eq!((upload_ttl, reclaim_grace), (seconds(1004), seconds(1005)));
        assert_eq!((scrub_every, scrub_bytes_per_second), (seconds(1006), 1007));
        assert!(public_read);
        assert_eq!((&*issuer, &*audience), ("issuer", "audience"));
    }

    #[test]
    fn every_setting_of_the_surface_is_that_of_its_name() {
        let (config, seconds) = (config(), Duration::from_secs);
        let set = settings(&config, "127.0.0.1:1");
        assert_eq!(set.public_url, "https://files.example");
        assert_eq!(set.metrics, Audience::Anybody);
        assert!(set.allowed_origins == config.allowed_origins);
        assert_eq!(set.trusted_proxies, config.trusted_proxies);
        assert_eq!((set.connections_max, set.connections_per_address_max), (4, 1008));
        assert_eq!((set.requests_max, set.requests_per_principal_max), (2, 1009));
        assert_eq!(set.requests_per_second_max, Some(1010));
        assert_eq!(set.requests_per_connection_max, 1011);
        assert_eq!((set.streams_per_connection_max, set.head_bytes_max), (1012, 1013));
        assert_eq!((set.header_timeout, set.idle_timeout), (seconds(1014), seconds(1015)));
        assert_eq!(set.body_idle_timeout, seconds(1016));
        assert_eq!((set.body_bytes_per_second_min, set.drain_timeout), (1017, seconds(1018)));
    }

    #[test]
    fn the_audit_log_is_kept_as_its_settings_say() {
        let (config, seconds) = (config(), Duration::from_secs);
        let Retention { file_bytes, keep } = retention(&config);
        assert_eq!((file_bytes, keep), (1019, seconds(1020)));
    }

    #[test]
    fn what_is_not_set_follows_from_the_rest() {
        let config = Config { part_bytes_max: None, public_url: None, ..config() };
        assert_eq!(policy(&config).part_bytes_max, 1001);
        assert_eq!(settings(&config, "127.0.0.1:1").public_url, "http://127.0.0.1:1");
    }
}
