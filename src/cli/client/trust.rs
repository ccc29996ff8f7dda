//! Which authorities the client trusts over TLS: those of `--ca`, else those of the machine. None
//! are built in: they would be wrong in a closed network, and outdated elsewhere after a while.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use rustls::crypto::aws_lc_rs;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use zeroize::Zeroizing;

use super::failure;
use crate::cli::Failures;

#[derive(Args)]
pub struct Trust {
    /// PEM file with the certificate authorities to trust, instead of those of the system.
    #[arg(long, value_name = "FILE", env = "STREAMLINED_CA")]
    ca: Option<PathBuf>,
    /// PEM file with a client certificate and its private key, if the daemon requires one.
    #[arg(long, value_name = "FILE", env = "STREAMLINED_CLIENT_CERTIFICATE")]
    client_certificate: Option<PathBuf>,
}

impl Trust {
    /// The TLS configuration for `urls`. No file is read unless one of them uses https.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn config(&self, urls: &[&str]) -> Result<TlsConfig, Failures> {
        if !urls.iter().any(|url| url.starts_with("https://")) {
            return Ok(TlsConfig::default());
        }
        let roots = match &self.ca {
            Some(path) => read(path)?.0,
            None => of_machine()?,
        };
        let shown = self.client_certificate.as_deref().map(own).transpose()?;
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .client_cert(shown)
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .build())
    }
}

/// The authorities in `$SSL_CERT_FILE` and `$SSL_CERT_DIR`, else those of the system.
fn of_machine() -> Result<Vec<Certificate<'static>>, Failures> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(failure(format!(
            "this machine has no certificate authorities{why}; name the daemon's with --ca FILE"
        )));
    }
    Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
}

fn own(path: &Path) -> Result<ClientCert, Failures> {
    let (chain, key) = read(path)?;
    let key = key.ok_or_else(|| failure(format!("{}: it holds no private key", path.display())))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// Reads a PEM file: at least one certificate, and a private key if there is one.
fn read(path: &Path) -> Result<(Vec<Certificate<'static>>, Option<PrivateKey<'static>>), Failures> {
    let place = path.display();
    let pem = fs::read(path).map(Zeroizing::new).map_err(Failures::at(&place))?;
    let (mut certificates, mut key) = (Vec::new(), None);
    for item in parse_pem(&pem) {
        match item.map_err(Failures::at(&place))? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            PemItem::PrivateKey(found) => key = Some(found),
            _ => {}
        }
    }
    if certificates.is_empty() {
        return Err(failure(format!("{place}: no certificate in PEM form")));
    }
    Ok((certificates, key))
}
