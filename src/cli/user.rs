//! `user …`: users, their roles, quotas and tokens, and their removal.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::{
    Failures,
    ask::{self, Asking, members},
    door,
};
use crate::{
    config,
    model::{name::UserId, principal::Role},
};

#[derive(Subcommand)]
pub enum UserCommand {
    /// List users, with the files and bytes that each stores.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Show one user.
    Show {
        /// Id of the user.
        #[arg(value_parser = id)]
        id: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Change a user, effective from the next request; the user is created if there is no record of
    /// it yet.
    Set {
        /// Id of the user.
        #[arg(value_parser = id)]
        id: String,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        asking: Asking,
    },
    /// Delete a user with all files and uploads, and revoke the user's tokens.
    Delete {
        /// Id of the user.
        #[arg(value_parser = id)]
        id: String,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Change {
    /// Highest role that the user's tokens can have: viewer, analyst, researcher or admin; default
    /// removes this limit and revokes the tokens issued before.
    #[arg(long, value_parser = role)]
    role: Option<String>,
    /// How much the user may store, such as 20GiB or 0; default for the setting `quota_bytes`.
    #[arg(long, value_name = "SIZE", value_parser = quota)]
    quota: Option<Quota>,
    /// Lock the user out: every request of the user is refused; false ends this.
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    disabled: Option<bool>,
    /// Exclude the user's files from public read; false ends this.
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    private: Option<bool>,
    /// Revoke all tokens that the user has now.
    #[arg(long)]
    log_out: bool,
}

/// Bytes; `None` for the configured default.
#[derive(Clone, Copy)]
pub struct Quota(Option<u64>);

/// A user's id as the command line gives it.
fn id(text: &str) -> Result<String, String> {
    UserId::parse(text).map(|_| text.into()).map_err(|why| format!("it {why}"))
}

fn role(text: &str) -> Result<String, String> {
    let is_one = text == "default" || Role::parse(text).is_some_and(|role| role < Role::Service);
    let what = "must be viewer, analyst, researcher, admin or default";
    if is_one { Ok(text.into()) } else { Err(what.into()) }
}

fn quota(text: &str) -> Result<Quota, String> {
    if text == "default" {
        Ok(Quota(None))
    } else {
        config::bytes_or_none(text).map(Some).map(Quota)
    }
}

const USERS: &str = "/v1/admin/users";

pub fn run(command: UserCommand) -> Result<(), Failures> {
    match command {
        UserCommand::List { asking } => {
            asking.print(&Value::Array(asking.pages(USERS, "users")?), table)
        }
        UserCommand::Show { id, asking } => {
            asking.ask(&Method::GET, &path(&id), &Value::Null, members)
        }
        UserCommand::Set { id, change, asking } => {
            let mut wanted = json!({ "log_out": change.log_out });
            if let Some(role) = change.role {
                wanted["role"] = if role == "default" { Value::Null } else { role.into() };
            }
            if let Some(Quota(quota)) = change.quota {
                wanted["quota"] = json!(quota);
            }
            if let Some(disabled) = change.disabled {
                wanted["disabled"] = disabled.into();
            }
            if let Some(private) = change.private {
                wanted["private"] = private.into();
            }
            asking.ask(&Method::PATCH, &path(&id), &wanted, members)
        }
        UserCommand::Delete { id, asking } => {
            asking.ask(&Method::DELETE, &path(&id), &Value::Null, members)
        }
    }
}

fn path(id: &str) -> String {
    format!("{USERS}/{}", door::encoded(id))
}

fn table(listed: &Value) -> String {
    ask::table(listed, &["id", "role", "disabled", "files", "bytes", "quota", "created"])
}
