//! What a running daemon is told, and tells: signals, files that change, the service manager.

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

/// Open files that are neither clients' nor their requests': stores, upkeep, commands, whoever is
/// being turned away.
const FILES_KEPT: usize = 160;

/// How often the files of TLS are looked at.
const TLS_LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads the configuration as at the start.
pub type ReadConfig = dyn Fn() -> Result<Config, Failures> + Send + Sync;

/// Everything that may change while the daemon runs.
pub struct Control {
    /// As it was at the start, where much of it stays in force.
    started: Config,
    config: Config,
    read: Arc<ReadConfig>,
    address: String,
    app: Arc<App>,
    server: Arc<Server>,
    manager: Arc<Manager>,
    /// Of what is shown over TLS. As long as what lies there is not good, it is looked at again.
    marks: [Mark; 3],
    /// What is wrong with it, as it was told.
    tls_fault: Option<String>,
}

impl Control {
    /// Brings TLS up. Blocks for as long as it takes to read its files.
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

    /// What is in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the daemon is reached when nobody says otherwise.
    pub fn url(&self) -> String {
        url(&self.config, &self.address)
    }

    /// Does what it is told until it is told to stop; by which signal.
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

    /// Takes over what may change. A fault anywhere changes nothing.
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
            tracing::warn!(setting, "changed, but is only read at the start: restart for it");
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

    /// Takes over a certificate that was replaced.
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
                tracing::info!("a new certificate is shown");
            }
            // Half of a pair is still to be replaced, or may not be read yet.
            Err(fault) if self.tls_fault.as_ref() == Some(&fault) => {}
            Err(fault) => {
                metrics::RELOADS.of(("certificate", "faulty")).add(1);
                tracing::error!(fault, "the new certificate is not good; the old one is shown");
                self.tls_fault = Some(fault);
            }
        }
    }
}

/// The certificate and key that a configuration names, where it names any.
fn files(config: &Config) -> Option<Files> {
    let (certificate, key) = config.tls_certificate.clone().zip(config.tls_key.clone())?;
    Some(Files { certificate, key, client_ca: config.tls_client_ca.clone() })
}

/// What those hold, and their marks from before they were read. Blocks.
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

/// What the configuration says of use cases.
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

/// What it says of the surface.
pub fn settings(config: &Config, address: &str) -> Settings {
    let (connections, requests) = within_open_files();
    if connections < config.connections_max || requests < config.requests_max {
        tracing::info!(connections, requests, "limited by the open files that are allowed");
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

/// What it says of the audit log.
pub fn retention(config: &Config) -> Retention {
    Retention { file_bytes: config.audit_file_bytes, keep: config.audit_keep }
}

/// How many connections, and requests in work with two files each, there are descriptors for. A
/// store that cannot open its next file stops taking writes, so clients must not get at the last.
fn within_open_files() -> (usize, usize) {
    let allowed = getrlimit(Resource::Nofile).current;
    let allowed = allowed.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let sixth = (allowed.saturating_sub(FILES_KEPT) / 6).max(1);
    (sixth.saturating_mul(4).min(1 << 24), sixth)
}

/// Tells the service manager that the daemon lives, as long as a write gets to the disk and back.
/// One that is refused has got there: a disk that is full or failing is told in `/healthz`, and
/// reads go on. Who hangs is silent, and is ended for it.
pub async fn watchdog(app: Arc<App>, manager: Arc<Manager>) {
    let Some(patience) = manager.watchdog() else { return };
    loop {
        match timeout(patience, app.self_check()).await {
            Ok(Ok(())) => manager.tell("WATCHDOG=1\nSTATUS=serving"),
            Ok(Err(error)) => manager.tell(&format!("WATCHDOG=1\nSTATUS=not all is well: {error}")),
            Err(_) => tracing::error!("the self-check does not come to its end"),
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
        // Written out, so that what is added does not go unseen.
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
