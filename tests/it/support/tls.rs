//! A certificate authority made for a test, and the certificates that it signs.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        // Two authorities of the same name would be taken for one another.
        let name = blake3::hash(key.public_key_raw()).to_hex();
        params.distinguished_name.push(DnType::CommonName, &name[..16]);
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key in PEM. `name` is the common name, to tell certificates apart.
    pub fn sign(&self, name: &str) -> (String, String) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes `ca.pem`, and `NAME.pem` with `NAME.key` for a new certificate.
    pub fn write(&self, dir: &Path, name: &str) {
        let (certificate, key) = self.sign(name);
        fs::write(dir.join("ca.pem"), self.pem()).unwrap();
        fs::write(dir.join(format!("{name}.pem")), certificate).unwrap();
        fs::write(dir.join(format!("{name}.key")), key).unwrap();
    }
}
