//! `token generate`: key ring and clock to the printed block; opens no store.

use std::io::{self, Write};

use super::Failures;
use crate::{
    auth::{jwt, keyring::KeyRing},
    config::Config,
    model::limits::SERVICE_TOKEN_DAYS,
    sys::{
        clock::{Clock, SystemClock},
        data_dir, random,
    },
};

const RULE: &str =
    "================================================================================";

/// A service's name as the command line gives it.
pub fn name(text: &str) -> Result<String, String> {
    let fits = !text.trim().is_empty() && text.len() <= 255 && !text.chars().any(char::is_control);
    if fits { Ok(text.into()) } else { Err("1 to 255 bytes without control characters".into()) }
}

/// A number of days as the command line gives it.
pub fn days(text: &str) -> Result<u64, String> {
    let days = text.parse().ok().filter(|days| SERVICE_TOKEN_DAYS.contains(days));
    days.ok_or_else(|| "a whole number from 1 to 3650".into())
}

pub fn generate(config: &Config, name: &str, days: u64) -> Result<(), Failures> {
    if !config.data_dir.join("keys").exists() {
        let dir = config.data_dir.display();
        eprintln!("streamlined: making the first signing key in {dir}");
    }
    data_dir::prepare(&config.data_dir).map_err(Failures::at("data directory"))?;
    let keys = KeyRing::open(&config.data_dir.join("keys")).map_err(Failures::at("keys"))?;
    let now = SystemClock.now().seconds();
    let claims = jwt::ServiceClaims {
        sub: name,
        roles: "service",
        iat: now,
        exp: now + days * 24 * 3600,
        jti: &random::token_id(),
    };
    let token = jwt::sign(&claims, &keys).map_err(Failures::at("signing"))?;
    let block = format!(
        "{RULE}\nService Token Generated Successfully\n{RULE}\n\n\
         Service Name: {name}\nRole: service\nValid for: {days} days\n\n\
         Token:\n{token}\n\n\
         {RULE}\nUsage in HTTP requests:\n  Authorization: Bearer {token}\n{RULE}\n"
    );
    io::stdout().write_all(block.as_bytes()).map_err(Failures::at("standard output"))
}
