//! The operator's settings of the HTTP surface. All of them may change while the daemon serves.

use std::time::Duration;

use ipnet::IpNet;

use super::connection::patience::Patience;
use crate::model::{origins::Origins, principal::Audience};

#[derive(Clone, Debug)]
pub struct Settings {
    /// Base of signed URLs, without a slash at the end.
    pub public_url: String,
    /// Who gets `/metrics` on the port. On the admin socket, the operator always gets it.
    pub metrics: Audience,
    /// Origins whose pages may send requests from a browser (CORS).
    pub allowed_origins: Origins,
    /// Proxies that are believed about the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// Open connections; past it: 503 `busy`, and closed.
    pub connections_max: usize,
    /// Open connections of one address that is not a trusted proxy; past it: 503 `busy`, and
    /// closed.
    pub connections_per_address_max: usize,
    /// Requests in work at a time; past it: 503 `busy`.
    pub requests_max: usize,
    /// Requests of one principal in work at a time; past it: 429 `too_many_requests`.
    pub requests_per_principal_max: usize,
    /// Requests of one principal in a second; past it: 429 `too_many_requests`.
    pub requests_per_second_max: Option<u32>,
    /// Requests on one connection; past it, the connection is closed in good order.
    pub requests_per_connection_max: u64,
    /// Requests at a time on one HTTP/2 connection; past it, a stream is refused.
    pub streams_per_connection_max: u32,
    /// Bytes of a request's head; past it: 431.
    pub head_bytes_max: u32,
    /// Longest time for the first request's head, TLS handshake included, and for each later head.
    pub header_timeout: Duration,
    /// How long a connection without a request stays open.
    pub idle_timeout: Duration,
    /// Longest pause in a request body; past it: 408. Also the longest pause in the taking of an
    /// answer; past it: closed.
    pub body_idle_timeout: Duration,
    /// Least speed of a request body, and of an answer as it is taken, over `body_idle_timeout`;
    /// below it: 408 for a body, closed for an answer. 0: any speed.
    pub body_bytes_per_second_min: u64,
    /// How long requests in flight may take after a shutdown signal.
    pub drain_timeout: Duration,
}

impl Settings {
    /// The patience with a request body, and with an answer.
    pub fn patience(&self) -> Patience {
        Patience::new(self.body_idle_timeout, self.body_bytes_per_second_min)
    }
}
