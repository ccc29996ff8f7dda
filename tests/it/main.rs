//! The daemon from outside: a module for each capability, all against the real binary.

mod support;

mod assembly;
mod audit;
mod auth;
mod batch;
mod client;
mod clients;
mod complete;
mod config;
mod download;
mod format;
mod full_disk;
mod get;
mod images;
mod keys;
mod kill;
mod known;
mod limits;
mod links;
mod listing;
mod malformed;
mod matrix;
mod openapi;
mod parts;
mod public_read;
mod receipts;
mod shutdown;
mod token_generate;
mod tokens;
mod tus;
mod upkeep;
mod users;
