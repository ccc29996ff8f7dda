//! `/metrics`: what the HTTP surface counts, and the page with everything that is counted.
//!
//! Labels are routes, statuses, codes and limits of this program, so their number is bounded
//! whatever clients send. `docs/monitoring/` has a dashboard and alerts that use these names.

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

/// Requests that were answered, by method, route and status.
pub static REQUESTS: Family<(&str, &str, u16), Counter, 1024> = Family::counters();
/// The time from the head of a request to the head of its answer, by method and route.
pub static REQUEST_SECONDS: Family<(&str, &str), Histogram, 256> = Family::seconds();
pub static REQUESTS_OPEN: Gauge = Gauge::new();
/// Bytes of request bodies (`in`) and of answers (`out`).
pub static BYTES: Family<&str, Counter, 2> = Family::counters();
/// Requests whose body is being received, and answers that are made while they are sent.
pub static RECEIVING: Gauge = Gauge::new();
pub static SENDING: Gauge = Gauge::new();
/// Answers that were not sent to their end.
pub static ANSWERS_CUT: Counter = Counter::new();
/// Refused requests, by the code of the problem document.
pub static REFUSALS: Family<&str, Counter, 256> = Family::counters();
/// How often a limit was met, by its name.
pub static LIMITS: Family<&str, Counter, 32> = Family::counters();
pub static CONNECTIONS: Counter = Counter::new();
pub static CONNECTIONS_OPEN: Gauge = Gauge::new();
/// TLS handshakes, `done` and `failed`.
pub static TLS_HANDSHAKES: Family<&str, Counter, 2> = Family::counters();
/// Reloads while the daemon ran: what was read, `configuration` or `certificate`, and whether it
/// was `taken` or `faulty`.
pub static RELOADS: Family<(&str, &str), Counter, 4> = Family::counters();
/// When the TLS certificate expires, in seconds after 1970; 0 without TLS.
pub static CERTIFICATE_EXPIRES: Gauge = Gauge::new();

/// Shows the counters that alerts watch before they are first counted: to Prometheus, a counter
/// that first appears with the value one has not increased.
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
        "Version of the running daemon; always 1.",
        [([("version", env!("CARGO_PKG_VERSION"))], 1)],
    );
    surface(&mut page);
    stores(&mut page);
    health(&mut page, &app.health().await);
    match app.scrub_state().await {
        Ok(state) => scrub(&mut page, &state),
        Err(error) => tracing::warn!(%error, "the progress of the scrub cannot be read"),
    }
    page.gauge(
        "streamlined_quota_default_bytes",
        "Quota of a user whose record sets no other.",
        app.policy().quota_bytes,
    );
    if let Some(found) = app.usage() {
        usage(&mut page, &found);
    }
    match process::Figures::read() {
        Ok(figures) => process(&mut page, &figures),
        Err(error) => tracing::warn!(%error, "the figures of this process cannot be read"),
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
        "Time from the head of a request to the head of its response.",
        times.map(|((method, route), times)| ([("method", method), ("route", route)], times)),
    );
    page.gauge(
        "streamlined_http_requests_open",
        "Requests whose response is not sent yet.",
        &REQUESTS_OPEN,
    );
    page.counter_family(
        "streamlined_http_body_bytes_total",
        "Bytes of bodies: in from requests, out in responses.",
        "direction",
        &BYTES,
    );
    page.gauges(
        "streamlined_transfers_open",
        "Request bodies being received (in), and streamed responses being sent (out).",
        [([("direction", "in")], &RECEIVING), ([("direction", "out")], &SENDING)],
    );
    page.counter(
        "streamlined_http_answers_cut_total",
        "Responses that were cut: the client left, or the stored content is damaged.",
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
        "How often a limit on connections or requests was met.",
        "limit",
        &LIMITS,
    );
    page.counter("streamlined_connections_total", "Connections that were accepted.", &CONNECTIONS);
    page.gauge("streamlined_connections_open", "Connections that are open.", &CONNECTIONS_OPEN);
    page.counter_family(
        "streamlined_tls_handshakes_total",
        "TLS handshakes that were done or failed.",
        "outcome",
        &TLS_HANDSHAKES,
    );
    let reloads = RELOADS.all();
    page.counters(
        "streamlined_reloads_total",
        "Reloads of the configuration and the certificate, by whether they were taken or faulty.",
        reloads.map(|((what, outcome), count)| ([("what", what), ("outcome", outcome)], count)),
    );
    if CERTIFICATE_EXPIRES.get() > 0 {
        page.gauge(
            "streamlined_tls_certificate_expiry_timestamp_seconds",
            "When the TLS certificate in use expires, in seconds after 1970.",
            &CERTIFICATE_EXPIRES,
        );
    }
}

fn stores(page: &mut text::Text) {
    page.histograms(
        "streamlined_sync_duration_seconds",
        "Time from a write to the end of its sync, by what was written.",
        stores::SYNC_SECONDS.all().map(|(store, times)| ([("store", store)], times)),
    );
    page.histograms(
        "streamlined_commit_batch_size",
        "How many steps of the index, or blobs of a pack, one sync made durable.",
        [([("store", "index")], &stores::COMMIT_STEPS), ([("store", "pack")], &stores::PACK_BLOBS)],
    );
    page.gauges(
        "streamlined_queue_waiting",
        "Steps that wait for a commit, and blobs that wait for a pack; 4096 each at most.",
        [
            ([("queue", "index")], &stores::COMMITS_WAITING),
            ([("queue", "pack")], &stores::PACKS_WAITING),
        ],
    );
    page.counter_family(
        "streamlined_damage_found_total",
        "Contents that were found damaged, by what found the damage.",
        "during",
        &stores::DAMAGE_FOUND,
    );
    page.counter(
        "streamlined_audit_lines_lost_total",
        "Lines that could not be written to the audit log.",
        &stores::AUDIT_LINES_LOST,
    );
}

fn health(page: &mut text::Text, health: &Health) {
    page.gauge(
        "streamlined_disk_free_bytes",
        "Free space on the disk of the data directory.",
        health.free_bytes,
    );
    page.gauges(
        "streamlined_store_writable",
        "1 if the store takes writes, 0 if it takes none until a restart.",
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
            "1 if a scrub should have read all content again by now.",
            u8::from(content.scrub_overdue),
        );
    }
}

fn scrub(page: &mut text::Text, state: &ScrubState) {
    page.gauge(
        "streamlined_scrub_running",
        "1 while a scrub pass reads all content again.",
        u8::from(state.running.is_some()),
    );
    // Blobs are read in the order of their hashes, which are evenly distributed.
    let position = state.running.and_then(|pass| pass.position);
    let progress = position.map_or(0.0, |hash| {
        f64::from(u16::from_be_bytes([hash.0[0], hash.0[1]])) / f64::from(u16::MAX)
    });
    page.gauge(
        "streamlined_scrub_progress_ratio",
        "Completed share of the running scrub pass, 0 to 1.",
        progress,
    );
    let passes = [("running", state.running), ("last", state.last)];
    let of = |number: fn(&ScrubPass) -> u64| {
        passes.into_iter().filter_map(move |(name, pass)| Some(([("pass", name)], number(&pass?))))
    };
    page.gauges("streamlined_scrub_blobs", "Blobs read by a scrub pass.", of(|pass| pass.blobs));
    page.gauges("streamlined_scrub_bytes", "Bytes read by a scrub pass.", of(|pass| pass.bytes));
    page.gauges(
        "streamlined_scrub_damaged",
        "Blobs found damaged by a scrub pass.",
        of(|pass| pass.damaged),
    );
    page.gauges(
        "streamlined_scrub_unreadable",
        "Blobs that a scrub pass could not read to the end.",
        of(|pass| pass.unreadable),
    );
    let completed = state.last.and_then(|pass| pass.completed).map_or(0, UnixMillis::seconds);
    page.gauge(
        "streamlined_scrub_last_completed_timestamp_seconds",
        "When the last scrub pass completed, in seconds after 1970; 0 for never.",
        completed,
    );
}

fn usage(page: &mut text::Text, usage: &Usage) {
    page.gauge("streamlined_users", "Users, as of the last survey.", usage.users);
    page.gauge("streamlined_files", "Files of all users.", usage.files);
    page.gauge("streamlined_file_bytes", "Bytes of all files.", usage.bytes);
    page.gauge(
        "streamlined_reserved_bytes",
        "Bytes that open uploads reserve of their users' quotas.",
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
        "CPU time in user and system mode.",
        figures.cpu_seconds,
    );
    page.gauge("process_resident_memory_bytes", "Resident memory.", figures.resident_bytes);
    page.gauge("process_virtual_memory_bytes", "Virtual memory.", figures.virtual_bytes);
    page.gauge("process_threads", "Threads.", figures.threads);
    page.gauge("process_open_fds", "Open file descriptors.", figures.open_fds);
    if let Some(max) = figures.max_fds {
        page.gauge("process_max_fds", "Maximum number of open file descriptors.", max);
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
