//! `/v1/…`: one thin module for each family of endpoints.

pub mod admin;
pub mod batch;
pub mod complete;
pub mod files;
pub mod links;
pub mod parts;
pub mod receive;
pub mod resumable;
pub mod tokens;
pub mod tus;
pub mod uploads;
