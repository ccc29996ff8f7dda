//! A request and its answer, from the first byte to the last: counted, and told in one line.
//!
//! The line (target `streamlined::access`) has no query, which may hold a signature, and of a path
//! nothing that is a credential.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Method, Request, StatusCode, Version, body::Incoming, http::response};

use crate::{
    http::{
        connection::Open,
        message::body::Received,
        route,
        telemetry::{label, metrics},
        v1::admin,
    },
    metrics::Counted,
    model::id::TokenId,
};

/// A request that is not answered yet, and may never be: its client may leave.
pub struct Asked {
    pub request_id: String,
    pub received: Arc<Received>,
    began: Instant,
    method: Method,
    path: String,
    version: Version,
    open: Open,
    is_answered: bool,
    _counted: Counted,
}

/// A request whose answer is on its way. Its end is the end of the answer's body.
pub struct Exchange {
    asked: Asked,
    route: &'static str,
    status: StatusCode,
    principal: Option<String>,
    client: IpAddr,
    ready: Duration,
    sent: u64,
    is_whole: bool,
    _sending: Option<Counted>,
}

impl Asked {
    pub fn new(request: &Request<Incoming>, request_id: String, open: Open) -> Self {
        Self {
            request_id,
            received: Arc::new(Received::of(request.body())),
            began: Instant::now(),
            method: request.method().clone(),
            path: logged(request.uri().path()).into_owned(),
            version: request.version(),
            open,
            is_answered: false,
            _counted: metrics::REQUESTS_OPEN.count(),
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// The answer's head is made.
    pub fn answered(
        mut self,
        head: &response::Parts,
        endpoint: Option<&'static str>,
        principal: Option<String>,
        client: IpAddr,
        streams: bool,
    ) -> Exchange {
        let route = endpoint.unwrap_or(label::NOWHERE);
        let method = label::method(&self.method);
        let ready = self.began.elapsed();
        self.is_answered = true;
        metrics::REQUESTS.of((method, route, head.status.as_u16())).add(1);
        metrics::REQUEST_SECONDS.of((method, route)).took(ready);
        Exchange {
            route,
            status: head.status,
            principal,
            client,
            ready,
            sent: 0,
            is_whole: false,
            _sending: streams.then(|| metrics::SENDING.count()),
            asked: self,
        }
    }
}

impl Exchange {
    /// What came of asking for more; `left` is what is still to come, where that is known.
    pub fn gave<E>(&mut self, polled: &Poll<Option<Result<Bytes, E>>>, left: Option<u64>) {
        match polled {
            Poll::Ready(Some(Ok(bytes))) => {
                self.sent += bytes.len() as u64;
                metrics::BYTES.of("out").add(bytes.len() as u64);
                self.is_whole = left == Some(0);
            }
            Poll::Ready(None) => self.is_whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
    }

    /// There is no body to wait for.
    pub fn finish_without_body(&mut self) {
        self.is_whole = true;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        metrics::ANSWERS_CUT.add(1);
        tracing::info!(
            target: "streamlined::access",
            request_id = self.request_id,
            method = %self.method,
            path = self.path,
            protocol = ?self.version,
            bytes_in = self.received.bytes(),
            bytes_out = 0,
            ms = millis(self.began.elapsed()),
            cut = true,
            peer = %self.open.connection().peer,
            "request",
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Asked { request_id, received, began, method, path, version, open, .. } = &self.asked;
        if !self.is_whole {
            metrics::ANSWERS_CUT.add(1);
        }
        tracing::info!(
            target: "streamlined::access",
            request_id,
            %method,
            path,
            route = self.route,
            protocol = ?version,
            status = self.status.as_u16(),
            bytes_in = received.bytes(),
            bytes_out = self.sent,
            ms = millis(began.elapsed()),
            ready_ms = millis(self.ready),
            cut = (!self.is_whole).then_some(true),
            principal = self.principal,
            peer = %open.connection().peer,
            client = %self.client,
            "request",
        );
    }
}

/// With the microseconds.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A path without the secret that it may end in: that of a batch, or a service token which somebody
/// took for its own id.
fn logged(path: &str) -> Cow<'_, str> {
    // As the router reads it: a secret may be written in another way.
    let Ok(decoded) = route::decode(path) else { return Cow::Borrowed("") };
    // With a slash more, or behind another path, it leads nowhere and is a secret all the same.
    let mut folded = String::with_capacity(decoded.len());
    for segment in decoded.split('/').filter(|segment| !segment.is_empty()) {
        folded.push('/');
        folded.push_str(segment);
    }
    if folded.contains(route::BATCH) {
        return Cow::Borrowed(route::BATCH);
    }
    match folded.split_once(admin::TOKENS) {
        Some((_, token)) if TokenId::parse(token.trim_end_matches("/rotate")).is_none() => {
            Cow::Borrowed(admin::TOKENS)
        }
        _ => Cow::Borrowed(path),
    }
}
