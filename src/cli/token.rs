//! `token generate`: key ring and clock to the printed block; opens no store.

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

pub fn generate(config: &Config, name: &str, days: u64) -> Result<(), Failures> {
    if !SERVICE_TOKEN_DAYS.contains(&days) {
        return Err(Failures(vec!["--days must be 1 to 3650".into()]));
    }
    let fits = !name.trim().is_empty() && name.len() <= 255 && !name.chars().any(char::is_control);
    if !fits {
        let why = "the service name must be 1 to 255 bytes without control characters";
        return Err(Failures(vec![why.into()]));
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
    println!(
        "{RULE}\nService Token Generated Successfully\n{RULE}\n\n\
         Service Name: {name}\nRole: service\nValid for: {days} days\n\n\
         Token:\n{token}\n\n\
         {RULE}\nUsage in HTTP requests:\n  Authorization: Bearer {token}\n{RULE}"
    );
    Ok(())
}
