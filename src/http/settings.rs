//! What the operator sets of the surface. All of it may change while the daemon serves.

use std::time::Duration;

use ipnet::IpNet;

use super::connection::patience::Patience;
use crate::model::{origins::Origins, principal::Audience};

#[derive(Clone, Debug)]
pub struct Settings {
    /// Base of signed URLs, without a slash at the end.
    pub public_url: String,
    /// Who gets `/metrics` on the port. On the admin socket its operator always does.
    pub metrics: Audience,
    /// Whose pages may ask from a browser.
    pub allowed_origins: Origins,
    /// Proxies whose word on the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Past it: 503 `busy`, and closed.
    pub connections_max: usize,
    /// Of one address that is no trusted proxy; past it: the same.
    pub connections_per_address_max: usize,
    /// Requests in work at a time; past it: 503 `busy`.
    pub requests_max: usize,
    /// Of one principal; past it: 429 `too_many_requests`.
    pub requests_per_principal_max: usize,
    /// Requests of one of them in a second; past it: 429 too.
    pub requests_per_second_max: Option<u32>,
    /// Of one connection, which is closed in good order then.
    pub requests_per_connection_max: u64,
    /// Of one HTTP/2 connection at a time; past it a stream is refused.
    pub streams_per_connection_max: u32,
    /// Bytes of a request's head; past it: 431.
    pub head_bytes_max: u32,
    /// For a TLS handshake with the first request's head, and for the head of each other one.
    pub header_timeout: Duration,
    /// Longest time of a connection without a request.
    pub idle_timeout: Duration,
    /// Longest time without a byte of a request's body, past it: 408; and without a byte taken of
    /// an answer, past it: closed.
    pub body_idle_timeout: Duration,
    /// Of a body, and of an answer as it is taken, over that time; past it: the same. 0: any.
    pub body_bytes_per_second_min: u64,
    /// How long requests in flight may take after a shutdown signal.
    pub drain_timeout: Duration,
}

impl Settings {
    /// With a body, and with an answer.
    pub fn patience(&self) -> Patience {
        Patience::new(self.body_idle_timeout, self.body_bytes_per_second_min)
    }
}
