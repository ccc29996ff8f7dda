//! TLS certificate and key from files, in the form that rustls takes.

mod expiry;

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::model::time::UnixMillis;

/// The paths of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// If set, clients must present a certificate that one of these authorities signed.
    pub client_ca: Option<PathBuf>,
}

/// What the TLS files hold.
pub struct Identity {
    pub config: Arc<ServerConfig>,
    /// When the first certificate of the chain expires, if that can be read.
    pub expires: Option<UnixMillis>,
}

/// Changes when a file is replaced or written. The second time in it, ctime, shows changes of owner
/// and permissions, too.
pub type Mark = Option<(u64, u64, [i64; 4])>;

impl Files {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// What is wrong with which file; never the content of a file.
    pub fn load(&self) -> Result<Identity, String> {
        // Each error names the setting: errors of the system do not say what a file was meant for.
        let of = |setting: &'static str| move |error: String| format!("{setting}: {error}");
        let chain = certificates(&self.certificate).map_err(of("tls_certificate"))?;
        let expires = chain.first().and_then(|first| expiry::of(first));
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| format!("tls_key: {}: {error}", self.key.display()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder
                .with_client_cert_verifier(verifier(path, provider).map_err(of("tls_client_ca"))?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            format!("{} and {}: {error}", self.certificate.display(), self.key.display())
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Identity { config: Arc::new(config), expires })
    }

    /// Values that change once a file is written, replaced or gets other permissions or another
    /// owner. Blocks.
    pub fn marks(&self) -> [Mark; 3] {
        let mark = |path: &Path| {
            let times = |file: &Metadata| {
                [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()]
            };
            let of = |file: Metadata| (file.ino(), file.size(), times(&file));
            fs::metadata(path).map(of).ok()
        };
        let client_ca = self.client_ca.as_deref().and_then(mark);
        [mark(&self.certificate), mark(&self.key), client_ca]
    }
}

/// All certificates of a PEM file, at least one. Blocks.
///
/// # Errors
/// What is wrong with the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let certificates = read.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if certificates.is_empty() {
        return Err(format!("{}: no certificate in PEM form", path.display()));
    }
    Ok(certificates)
}

fn verifier(
    path: &Path,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().map_err(|error| wrong(&error))
}
