//! The daemon from outside: a module for each capability, all against the real binary.

mod support;

mod auth;
mod batch;
mod clients;
mod complete;
mod config;
mod download;
mod format;
mod full_disk;
mod images;
mod kill;
mod limits;
mod links;
mod listing;
mod malformed;
mod openapi;
mod parts;
mod public_read;
mod shutdown;
mod token_generate;
mod upkeep;
