//! `token …`: the life of service tokens.

use std::path::Path;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::{
    Failures, Place,
    ask::{self, Asking, members},
    door, failure, print,
};
use crate::{
    auth::{jwt, keyring::KeyRing},
    config::{self, Config},
    model::{
        grant::{self, Grant},
        limits::SERVICE_TOKEN_DAYS,
        token::is_service_name,
    },
    sys::{
        clock::{Clock, SystemClock},
        random,
    },
};

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Create a service JWT and print it; works also while the daemon runs.
    Generate {
        /// Name of the service, 1 to 255 bytes.
        #[arg(value_parser = name)]
        name: String,
        /// Number of days that the token is valid, 1 to 3650.
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = days)]
        days: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Create a service token, with limits if wanted; it is shown only once.
    Create {
        /// Name of the service, 1 to 255 bytes.
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        limits: Limits,
        /// Create a JWT, which other services can verify, instead of an opaque token.
        #[arg(long)]
        jwt: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// List service tokens: the state of each, and when and from where it was last used.
    List {
        /// Also list tokens that have expired, were revoked or were replaced.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Show one service token.
    Show {
        /// Id of the token, or name of a service for its current token.
        token: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Replace a token by a new one; the old token stays valid for a grace period.
    Rotate {
        /// Id of the token, or name of a service for its current token.
        token: String,
        /// How long the old token stays valid.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
        grace: u64,
        #[command(flatten)]
        asking: Asking,
    },
    /// Revoke tokens, effective from the next request.
    Revoke {
        #[command(flatten)]
        which: Which,
        /// With --service or --all: revoke only tokens issued before this Unix time in seconds.
        #[arg(long, value_name = "SECOND", conflicts_with_all = ["token", "jti"])]
        before: Option<u64>,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Args)]
pub struct Limits {
    /// How long the token is valid, such as 90d; by default an opaque token never expires, and a
    /// JWT expires after 365 days.
    #[arg(long, value_name = "TIME", value_parser = life)]
    expires: Option<u64>,
    /// Accept the token only from this network, such as 10.0.0.0/8; may be repeated.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    allow_ip: Vec<String>,
    /// Limit the token to this scope: read, upload, delete, tokens, admin, user:ID, user:PREFIX* or
    /// folder:PATH; may be repeated.
    #[arg(long, value_name = "SCOPE", value_parser = scope)]
    scope: Vec<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Id of a token, or name of a service for its current token and the replaced ones that are
    /// still valid.
    token: Option<String>,
    /// Revoke the JWT with this `jti`, even if the daemon has no record of it.
    #[arg(long)]
    jti: Option<String>,
    /// Revoke every token of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Revoke every token of every service.
    #[arg(long)]
    all: bool,
}

const TOKENS: &str = "/v1/admin/tokens";
const RULE: &str =
    "================================================================================";

/// A service's name as an argument.
fn name(text: &str) -> Result<String, String> {
    if is_service_name(text) {
        return Ok(text.into());
    }
    Err("1 to 255 bytes without control characters, not ending in /rotate".into())
}

/// A number of days as an argument.
fn days(text: &str) -> Result<u64, String> {
    let days = text.parse().ok().filter(|days| SERVICE_TOKEN_DAYS.contains(days));
    days.ok_or_else(|| "a whole number from 1 to 3650".into())
}

/// A time span in seconds as an argument; `0` for none.
pub fn seconds(text: &str) -> Result<u64, String> {
    config::duration_or_none(text).map(|span| span.as_secs())
}

/// A token's lifetime in seconds as an argument.
fn life(text: &str) -> Result<u64, String> {
    let life = config::duration(text)?.as_secs();
    if life == 0 { Err("must be at least 1s".into()) } else { Ok(life) }
}

/// A scope of a grant as an argument.
fn scope(text: &str) -> Result<String, String> {
    Grant::parse([text], []).map(|_| text.into())
}

fn network(text: &str) -> Result<String, String> {
    grant::network(text).map(|_| text.into())
}

pub fn run(command: TokenCommand) -> Result<(), Failures> {
    match command {
        TokenCommand::Generate { name, days, place } => generate(&place.configure()?, &name, days),
        TokenCommand::Create { name, limits, jwt, asking } => {
            let config = asking.place.configure()?;
            door::prepare(&config)?;
            let new = json!({
                "name": name,
                "kind": if jwt { "jwt" } else { "opaque" },
                "expires_in": limits.expires,
                "scopes": limits.scope,
                "allow_ip": limits.allow_ip,
            });
            let made = door::call(&config, &Method::POST, TOKENS, &new)?;
            asking.print(&made, reveal)
        }
        TokenCommand::List { all, asking } => {
            let mut listed = asking.pages(TOKENS, "tokens")?;
            listed.retain(|token| {
                all || matches!(token["state"].as_str(), Some("active" | "superseding"))
            });
            asking.print(&Value::Array(listed), table)
        }
        TokenCommand::Show { token, asking } => {
            asking.ask(&Method::GET, &path(&token), &Value::Null, members)
        }
        TokenCommand::Rotate { token, grace, asking } => {
            let path = format!("{}/rotate", path(&token));
            asking.ask(&Method::POST, &path, &json!({ "grace": grace }), reveal)
        }
        TokenCommand::Revoke { which, before, asking } => {
            if let Some(token) = &which.token {
                return asking.ask(&Method::DELETE, &path(token), &Value::Null, members);
            }
            let wanted = json!({
                "jti": which.jti, "service": which.service, "all": which.all, "before": before,
            });
            asking.ask(&Method::POST, "/v1/admin/revocations", &wanted, members)
        }
    }
}

fn path(token: &str) -> String {
    format!("{TOKENS}/{}", door::encoded(token))
}

/// Describes a new token; the token itself is alone on its line.
fn reveal(made: &Value) -> String {
    let text = |name: &str| made[name].as_str().unwrap_or("-").to_owned();
    let expires = made["expires"].as_str().unwrap_or("never");
    let before = made["previous_until"].as_str();
    let before = before.map(|until| format!("The token before it is good until: {until}\n"));
    format!(
        "Service Name: {}\nId: {}\nExpires: {expires}\n{}Token (shown once, keep it):\n{}\n",
        text("name"),
        text("id"),
        before.unwrap_or_default(),
        text("token"),
    )
}

fn table(listed: &Value) -> String {
    ask::table(
        listed,
        &["id", "name", "kind", "state", "expires", "last_used", "last_used_from", "scopes"],
    )
}

/// Prints the block that the document on service tokens shows. The daemon, or the store, signs the
/// token and keeps its record; if neither can be reached, the key files are enough.
fn generate(config: &Config, name: &str, days: u64) -> Result<(), Failures> {
    let dir = &config.data_dir;
    let is_first = !dir.join("keys").exists();
    door::prepare(config)?;
    if is_first {
        super::tell(&format!("creating the first signing key in {}", dir.display()));
    }
    let token = if dir.join("journal").exists() {
        recorded(config, name, days).or_else(|Failures(why)| {
            super::tell(&format!("the token is not recorded: {}", why.join(", ")));
            signed(dir, name, days)
        })
    } else {
        signed(dir, name, days)
    }?;
    let block = format!(
        "{RULE}\nService Token Generated Successfully\n{RULE}\n\n\
         Service Name: {name}\nRole: service\nValid for: {days} days\n\n\
         Token:\n{token}\n\n\
         {RULE}\nUsage in HTTP requests:\n  Authorization: Bearer {token}\n{RULE}\n"
    );
    print(block)
}

fn recorded(config: &Config, name: &str, days: u64) -> Result<String, Failures> {
    let new = json!({"name": name, "kind": "jwt", "expires_in": days * 24 * 3600});
    let made = door::call(config, &Method::POST, TOKENS, &new)?;
    let missing = || failure("the daemon answered without a token");
    made["token"].as_str().map(str::to_owned).ok_or_else(missing)
}

fn signed(dir: &Path, name: &str, days: u64) -> Result<String, Failures> {
    let place = dir.join("keys");
    let keys = KeyRing::open(&place).map_err(Failures::of("keys", &place))?;
    let now = SystemClock.now();
    let claims = jwt::ServiceClaims {
        sub: name,
        roles: "service",
        iat: now.seconds(),
        exp: now.seconds() + days * 24 * 3600,
        jti: &random::token_id(),
        limited: false,
    };
    jwt::sign(&claims, &keys, now, claims.exp).map_err(Failures::at("signing"))
}
