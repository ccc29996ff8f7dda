//! `/metrics`: what the surface counts, and what is shown of all that is counted.
//!
//! Labels are routes, statuses, codes and limits of this program: their number is bounded whatever
//! clients send. `docs/monitoring/` has a dashboard and alerts over these names.

use hyper::{
    Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};

use crate::{
    app::{App, health::Health, usage::Usage},
    http::message::body::Body,
    meta::upkeep::{ScrubPass, ScrubState},
    metrics::{Counter, Family, Gauge, Histogram, stores, text},
    model::time::UnixMillis,
    sys::process,
};

/// By method, route and status.
pub static REQUESTS: Family<(&str, &str, u16), Counter, 1024> = Family::counters();
/// By method and route: from the head of a request to the head of its answer.
pub static REQUEST_SECONDS: Family<(&str, &str), Histogram, 256> = Family::seconds();
pub static REQUESTS_OPEN: Gauge = Gauge::new();
/// Bodies of requests and of answers, by `in` and `out`.
pub static BYTES: Family<&str, Counter, 2> = Family::counters();
/// Requests whose body is received, and answers that are made while they are sent.
pub static RECEIVING: Gauge = Gauge::new();
pub static SENDING: Gauge = Gauge::new();
/// Answers that did not come to their end.
pub static ANSWERS_CUT: Counter = Counter::new();
/// By the code of the problem document.
pub static REFUSALS: Family<&str, Counter, 256> = Family::counters();
/// How often a limit was met, by its name.
pub static LIMITS: Family<&str, Counter, 32> = Family::counters();
pub static CONNECTIONS: Counter = Counter::new();
pub static CONNECTIONS_OPEN: Gauge = Gauge::new();
/// `done` and `failed`.
pub static TLS_HANDSHAKES: Family<&str, Counter, 2> = Family::counters();
/// What was read again while the daemon ran, `configuration` or `certificate`, and whether it was
/// `taken` or `faulty`.
pub static RELOADS: Family<(&str, &str), Counter, 4> = Family::counters();
/// In seconds after 1970; 0 without TLS.
pub static CERTIFICATE_EXPIRES: Gauge = Gauge::new();

/// What alerts look at is shown before there is any of it: from nothing to one is no increase to
/// Prometheus.
fn begin() {
    for code in ["no_space", "unauthenticated"] {
        REFUSALS.of(code);
    }
    for limit in ["connections", "requests"] {
        LIMITS.of(limit);
    }
    for what in ["configuration", "certificate"] {
        for outcome in ["taken", "faulty"] {
            RELOADS.of((what, outcome));
        }
    }
    for finder in ["read", "scrub", "complete", "compact"] {
        stores::DAMAGE_FOUND.of(finder);
    }
}

/// The answer to `GET /metrics`.
pub async fn page(app: &App) -> Response<Body> {
    begin();
    let mut page = text::Text::default();
    page.gauges(
        "streamlined_build_info",
        "What is running; always 1.",
        [([("version", env!("CARGO_PKG_VERSION"))], 1)],
    );
    surface(&mut page);
    stores(&mut page);
    health(&mut page, &app.health().await);
    match app.scrub_state().await {
        Ok(state) => scrub(&mut page, &state),
        Err(error) => tracing::warn!(%error, "the index does not tell how far the scrub is"),
    }
    page.gauge(
        "streamlined_quota_default_bytes",
        "What a user may hold whose record says nothing else.",
        app.policy().quota_bytes,
    );
    if let Some(found) = app.usage() {
        usage(&mut page, &found);
    }
    match process::Figures::read() {
        Ok(figures) => process(&mut page, &figures),
        Err(error) => tracing::warn!(%error, "the kernel tells nothing of this process"),
    }
    let mut response = Response::new(Body::full(page.into_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(text::MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn surface(page: &mut text::Text) {
    let requests = REQUESTS.all().map(|((method, route, status), count)| {
        let (method, route) = (method.to_owned(), route.to_owned());
        ([("method", method), ("route", route), ("status", status.to_string())], count)
    });
    page.counters("streamlined_http_requests_total", "Requests that were answered.", requests);
    let times = REQUEST_SECONDS.all();
    page.histograms(
        "streamlined_http_request_duration_seconds",
        "From the head of a request to the head of its answer.",
        times.map(|((method, route), times)| ([("method", method), ("route", route)], times)),
    );
    page.gauge(
        "streamlined_http_requests_open",
        "Requests whose answer is not out yet.",
        &REQUESTS_OPEN,
    );
    page.counter_family(
        "streamlined_http_body_bytes_total",
        "Bytes of bodies, in from requests and out in answers.",
        "direction",
        &BYTES,
    );
    page.gauges(
        "streamlined_transfers_open",
        "Bodies that are received, and answers that are made while they are sent.",
        [([("direction", "in")], &RECEIVING), ([("direction", "out")], &SENDING)],
    );
    page.counter(
        "streamlined_http_answers_cut_total",
        "Answers that did not come to their end: the client left, or what was stored is damaged.",
        &ANSWERS_CUT,
    );
    page.counter_family(
        "streamlined_refusals_total",
        "Refused requests, by the code of the problem document.",
        "code",
        &REFUSALS,
    );
    page.counter_family(
        "streamlined_limits_hit_total",
        "How often a limit on connections and requests was met.",
        "limit",
        &LIMITS,
    );
    page.counter("streamlined_connections_total", "Connections that were taken.", &CONNECTIONS);
    page.gauge("streamlined_connections_open", "Connections that are open.", &CONNECTIONS_OPEN);
    page.counter_family(
        "streamlined_tls_handshakes_total",
        "TLS handshakes, done and failed.",
        "outcome",
        &TLS_HANDSHAKES,
    );
    let reloads = RELOADS.all();
    page.counters(
        "streamlined_reloads_total",
        "What was read again while the daemon ran, and whether it was taken or faulty.",
        reloads.map(|((what, outcome), count)| ([("what", what), ("outcome", outcome)], count)),
    );
    if CERTIFICATE_EXPIRES.get() > 0 {
        page.gauge(
            "streamlined_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that is shown expires.",
            &CERTIFICATE_EXPIRES,
        );
    }
}

fn stores(page: &mut text::Text) {
    page.histograms(
        "streamlined_sync_duration_seconds",
        "From a write to the end of its sync, by what was written.",
        stores::SYNC_SECONDS.all().map(|(store, times)| ([("store", store)], times)),
    );
    page.histograms(
        "streamlined_commit_batch_size",
        "What became durable by one sync: steps of the index, blobs of a pack.",
        [([("store", "index")], &stores::COMMIT_STEPS), ([("store", "pack")], &stores::PACK_BLOBS)],
    );
    page.gauges(
        "streamlined_queue_waiting",
        "What waits for a commit or for a pack; 4096 at most.",
        [
            ([("queue", "index")], &stores::COMMITS_WAITING),
            ([("queue", "pack")], &stores::PACKS_WAITING),
        ],
    );
    page.counter_family(
        "streamlined_damage_found_total",
        "Contents found not to be what was stored, by who found it.",
        "during",
        &stores::DAMAGE_FOUND,
    );
    page.counter(
        "streamlined_audit_lines_lost_total",
        "Lines that the audit log could not take.",
        &stores::AUDIT_LINES_LOST,
    );
}

fn health(page: &mut text::Text, health: &Health) {
    page.gauge(
        "streamlined_disk_free_bytes",
        "Room on the disk of the data directory.",
        health.free_bytes,
    );
    page.gauges(
        "streamlined_store_writable",
        "1 when a store takes writes, 0 when it stopped until a restart.",
        [
            ([("store", "index")], u8::from(health.index)),
            ([("store", "blobs")], u8::from(health.blobs)),
        ],
    );
    if let Some(content) = &health.content {
        page.gauge(
            "streamlined_damaged_blobs",
            "Blobs that are known to be damaged.",
            content.damaged_blobs,
        );
        page.gauge(
            "streamlined_scrub_overdue",
            "1 when everything should have been read again by now.",
            u8::from(content.scrub_overdue),
        );
    }
}

fn scrub(page: &mut text::Text, state: &ScrubState) {
    page.gauge(
        "streamlined_scrub_running",
        "1 while a pass reads everything again.",
        u8::from(state.running.is_some()),
    );
    // Blobs are read in the order of their hashes, which are spread evenly.
    let position = state.running.and_then(|pass| pass.position);
    let progress = position.map_or(0.0, |hash| {
        f64::from(u16::from_be_bytes([hash.0[0], hash.0[1]])) / f64::from(u16::MAX)
    });
    page.gauge("streamlined_scrub_progress_ratio", "How much of it is done.", progress);
    let passes = [("running", state.running), ("last", state.last)];
    let of = |number: fn(&ScrubPass) -> u64| {
        passes.into_iter().filter_map(move |(name, pass)| Some(([("pass", name)], number(&pass?))))
    };
    page.gauges("streamlined_scrub_blobs", "Blobs a pass has read.", of(|pass| pass.blobs));
    page.gauges("streamlined_scrub_bytes", "Bytes a pass has read.", of(|pass| pass.bytes));
    page.gauges(
        "streamlined_scrub_damaged",
        "Blobs a pass has found damaged.",
        of(|pass| pass.damaged),
    );
    page.gauges(
        "streamlined_scrub_unreadable",
        "Blobs a pass could not read to the end.",
        of(|pass| pass.unreadable),
    );
    let completed = state.last.and_then(|pass| pass.completed).map_or(0, UnixMillis::seconds);
    page.gauge(
        "streamlined_scrub_last_completed_timestamp_seconds",
        "When the last pass came to its end; 0 for never.",
        completed,
    );
}

fn usage(page: &mut text::Text, usage: &Usage) {
    page.gauge("streamlined_users", "Users, as of the last survey.", usage.users);
    page.gauge("streamlined_files", "Files of all users.", usage.files);
    page.gauge("streamlined_file_bytes", "Bytes of all files.", usage.bytes);
    page.gauge(
        "streamlined_reserved_bytes",
        "Bytes that open uploads may still turn into files.",
        usage.reserved,
    );
    page.gauge(
        "streamlined_users_near_quota",
        "Users who hold nine tenths of their quota or more.",
        usage.near_quota,
    );
}

fn process(page: &mut text::Text, figures: &process::Figures) {
    page.counter(
        "process_cpu_seconds_total",
        "Time on processors, in user and system mode.",
        figures.cpu_seconds,
    );
    page.gauge("process_resident_memory_bytes", "Resident memory.", figures.resident_bytes);
    page.gauge("process_virtual_memory_bytes", "Virtual memory.", figures.virtual_bytes);
    page.gauge("process_threads", "Threads.", figures.threads);
    page.gauge("process_open_fds", "Open file descriptors.", figures.open_fds);
    if let Some(max) = figures.max_fds {
        page.gauge("process_max_fds", "How many may be open.", max);
    }
    page.gauge(
        "process_start_time_seconds",
        "When the process started, in seconds after 1970.",
        figures.started,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_of_users_is_that_of_its_name() {
        let mut page = text::Text::default();
        let found = Usage { users: 1, files: 2, bytes: 3, reserved: 4, near_quota: 5 };
        usage(&mut page, &found);
        let page = page.into_string();
        let lines: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "streamlined_users 1",
                "streamlined_files 2",
                "streamlined_file_bytes 3",
                "streamlined_reserved_bytes 4",
                "streamlined_users_near_quota 5",
            ]
        );
    }
}
