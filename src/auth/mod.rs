//! Credentials and cryptography. Knows no stored record and no HTTP carrier.

pub mod batch_token;
pub mod jwks;
pub mod jwt;
pub mod keyring;
pub mod link;
pub mod receipt;
pub mod service_token;
