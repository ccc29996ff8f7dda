//! What a running daemon takes over of a configuration that was read again, and what it does not.

use super::Config;

/// Names of settings that differ but are only read at the start.
pub fn needs_restart(running: &Config, read: &Config) -> Vec<&'static str> {
    // A new setting has to be put into one of the two groups.
    let Config {
        data_dir,
        listen,
        audit_file_bytes,
        audit_keep,
        meta_cache_bytes,
        journal_bytes,
        pack_bytes_max,
        public_url: _,
        public_read: _,
        jwt_issuer: _,
        jwt_audience: _,
        service_token: _,
        log: _,
        file_bytes_max: _,
        part_bytes_max: _,
        quota_bytes: _,
        upload_ttl: _,
        reclaim_grace: _,
        scrub_every: _,
        scrub_bytes_per_second: _,
        metrics: _,
        tls_certificate: _,
        tls_key: _,
        tls_client_ca: _,
        connections_max: _,
        connections_per_address_max: _,
        requests_max: _,
        requests_per_principal_max: _,
        requests_per_second_max: _,
        requests_per_connection_max: _,
        streams_per_connection_max: _,
        head_bytes_max: _,
        header_timeout: _,
        idle_timeout: _,
        body_idle_timeout: _,
        body_bytes_per_second_min: _,
        drain_timeout: _,
        allowed_origins: _,
        trusted_proxies: _,
    } = read;
    let changed = [
        ("data_dir", *data_dir != running.data_dir),
        ("listen", *listen != running.listen),
        ("audit_file_bytes", *audit_file_bytes != running.audit_file_bytes),
        ("audit_keep", *audit_keep != running.audit_keep),
        ("meta_cache_bytes", *meta_cache_bytes != running.meta_cache_bytes),
        ("journal_bytes", *journal_bytes != running.journal_bytes),
        ("pack_bytes_max", *pack_bytes_max != running.pack_bytes_max),
    ];
    changed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_and_cannot_be_taken_over_is_named() {
        let running = Config::new();
        assert!(needs_restart(&running, &running).is_empty());
        let read =
            Config { quota_bytes: 1, journal_bytes: 1, listen: "h:1".into(), ..Config::new() };
        assert_eq!(needs_restart(&running, &read), ["listen", "journal_bytes"]);
    }
}
