//! A request and its answer, from the first byte to the last: counted, and logged in one line.
//!
//! The line (target `streamlined::access`) omits the query, which may hold a signature, and
//! everything in the path that is a credential.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body as _, Incoming},
};

use crate::{
    http::{
        connection::Open,
        message::body::{Body, Received},
        route,
        telemetry::metrics,
        v1::admin,
    },
    metrics::Counted,
    model::id::TokenId,
};

/// A request, until the end of its answer's body. It may never be answered, because its client may
/// leave.
pub struct Exchange {
    pub request_id: String,
    pub received: Arc<Received>,
    began: Instant,
    method: Method,
    path: String,
    version: Version,
    open: Open,
    answer: Option<Answer>,
    _counted: Counted,
}

/// An answer that is on its way.
struct Answer {
    route: &'static str,
    status: StatusCode,
    principal: Option<String>,
    client: IpAddr,
    ready: Duration,
    sent: u64,
    is_whole: bool,
    _sending: Option<Counted>,
}

/// The route of a request that reached no endpoint.
const NOWHERE: &str = "none";

impl Exchange {
    pub fn new(request: &Request<Incoming>, request_id: String, open: Open) -> Self {
        Self {
            request_id,
            received: Arc::new(Received::of(request.body())),
            began: Instant::now(),
            method: request.method().clone(),
            path: logged(request.uri().path()).into_owned(),
            version: request.version(),
            open,
            answer: None,
            _counted: metrics::REQUESTS_OPEN.count(),
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Records that the head of the answer is made. An answer without a body is then complete.
    pub fn answered(
        &mut self,
        answer: &Response<Body>,
        endpoint: Option<&'static str>,
        principal: Option<String>,
        client: IpAddr,
    ) {
        let (route, status) = (endpoint.unwrap_or(NOWHERE), answer.status());
        let (method, ready) = (method(&self.method), self.began.elapsed());
        metrics::REQUESTS.of((method, route, status.as_u16())).add(1);
        metrics::REQUEST_SECONDS.of((method, route)).took(ready);
        self.answer = Some(Answer {
            route,
            status,
            principal,
            client,
            ready,
            sent: 0,
            is_whole: answer.body().is_end_stream(),
            _sending: answer.body().streams().then(|| metrics::SENDING.count()),
        });
    }

    /// Records what came of polling the body; `left` is how many bytes are still to come, if known.
    pub fn gave<E>(&mut self, polled: &Poll<Option<Result<Bytes, E>>>, left: Option<u64>) {
        let Some(answer) = &mut self.answer else { return };
        match polled {
            Poll::Ready(Some(Ok(bytes))) => {
                answer.sent += bytes.len() as u64;
                metrics::BYTES.of("out").add(bytes.len() as u64);
                answer.is_whole = left == Some(0);
            }
            Poll::Ready(None) => answer.is_whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let answer = self.answer.as_ref();
        let is_whole = answer.is_some_and(|answer| answer.is_whole);
        if !is_whole {
            metrics::ANSWERS_CUT.add(1);
        }
        tracing::info!(
            target: "streamlined::access",
            request_id = self.request_id,
            method = %self.method,
            path = self.path,
            route = answer.map(|answer| answer.route),
            protocol = ?self.version,
            status = answer.map(|answer| answer.status.as_u16()),
            bytes_in = self.received.bytes(),
            bytes_out = answer.map_or(0, |answer| answer.sent),
            ms = millis(self.began.elapsed()),
            ready_ms = answer.map(|answer| millis(answer.ready)),
            cut = (!is_whole).then_some(true),
            principal = answer.and_then(|answer| answer.principal.as_deref()),
            peer = %self.open.connection().peer,
            client = answer.map(|answer| tracing::field::display(answer.client)),
            "request",
        );
    }
}

/// A method as a label, which clients cannot choose freely.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// Milliseconds, with the microseconds as decimals.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A path without the secret that it may end in: the token of a batch, or a service token that
/// somebody took for its id.
fn logged(path: &str) -> Cow<'_, str> {
    // Decoded as the router does: a secret may be percent-encoded.
    let Ok(decoded) = route::decode(path) else { return Cow::Borrowed("") };
    // A path with an extra slash, or behind another path, leads nowhere, but its token is still a
    // secret.
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
