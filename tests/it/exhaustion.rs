//! Many connections, stalled bodies, sessions and much JSON at a time. The daemon's memory and open
//! files are watched, and a well-behaved client is still served.
//!
//! `cargo nextest run --run-ignored only -E 'test(ten_thousand)' --no-capture` runs larger forms,
//! which also print the latency for that client; only the figures of a release build mean
//! something.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    Client, Daemon, bytes, connect, daemon::TOKEN, eventually, raw::await_continue,
};

/// A well-behaved client and its file.
struct Reader {
    user: Client,
    key: String,
}

impl Reader {
    fn of(daemon: &Daemon) -> Self {
        let user = daemon.user("u");
        let key = user.store("f", "", b"hello")["key"].as_str().unwrap().to_owned();
        Self { user, key }
    }

    fn look(&self) -> Duration {
        let began = Instant::now();
        assert_eq!(self.user.content(&self.key).body, b"hello");
        began.elapsed()
    }

    /// Reads the file for long enough that what was sent before has reached the daemon's buffers.
    fn looks_on(&self) {
        for _ in 0..100 {
            self.look();
        }
    }

    /// The 99th percentile of the times of 500 reads of the file.
    fn p99(&self) -> Duration {
        let mut times: Vec<_> = (0..500).map(|_| self.look()).collect();
        times.sort();
        times[times.len() * 99 / 100]
    }
}

/// Prints the p99 of a client of another, idle daemon and that of this daemon's client. Each is the
/// median of nine rounds; the rounds alternate, so that other work of the machine affects both.
fn say_p99s(reader: &Reader) {
    let calm = Daemon::start();
    let calm = Reader::of(&calm);
    let (mut before, mut among): (Vec<_>, Vec<_>) =
        (0..9).map(|_| (calm.p99(), reader.p99())).unzip();
    before.sort();
    among.sort();
    let (before, among) = (before[before.len() / 2], among[among.len() / 2]);
    let ratio = among.as_secs_f64() / before.as_secs_f64();
    eprintln!("p99 {before:?} calm, {among:?} among them: {ratio:.1} times");
}

fn gauge(daemon: &Daemon, name: &str) -> usize {
    let metrics = daemon.operator("GET", "/metrics");
    let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(sample, _)| *sample == name).unwrap().1.parse().unwrap()
}

/// Opens connections, each of which sends what `said` returns for its number.
fn hold(daemon: &Daemon, count: usize, said: impl Fn(usize) -> String) -> Vec<TcpStream> {
    let open = |at| {
        let mut socket = connect(daemon);
        socket.write_all(said(at).as_bytes()).unwrap();
        socket
    };
    (0..count).map(open).collect()
}

/// However many descriptors clients hold, some are left for the stores: a store that cannot open
/// its next file takes no writes until a restart.
#[test]
fn clients_do_not_get_at_the_last_open_files() {
    let settings = [("header_timeout", "10m"), ("journal_bytes", "64KiB")];
    let daemon = Daemon::with_open_files(300, &settings);
    let user = daemon.user("u");
    user.store("f", "", b"hello");
    let held = hold(&daemon, 320, |_| "GET / HTTP/1.1\r\n".into());
    // The files of the journal are small here, so these commits open many of them.
    for at in 0..150 {
        user.store(&format!("f{at}"), "", format!("content {at}").as_bytes());
    }
    user.store("large", "", &bytes(1, 1 << 20));
    assert!(daemon.open_files() < 300 - 50);
    drop(held);
    eventually(|| daemon.open_files() < 60);
    user.store("after", "", b"x");
}

fn idle_connections(count: usize, among_them: fn(&Reader)) {
    let settings = [("header_timeout", "10m"), ("connections_per_address_max", "16384")];
    let daemon = Daemon::with(&settings);
    let reader = Reader::of(&daemon);
    let (before, files) = (daemon.peak_memory_kib(), daemon.open_files());
    let said =
        ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /healthz HTTP/1.1\r\nhost: x\r\n"];
    let held = hold(&daemon, count, |at| said[at % said.len()].into());
    eventually(|| gauge(&daemon, "streamlined_connections_open") >= count);
    among_them(&reader);
    let after = daemon.peak_memory_kib();
    eprintln!("{count} idle: {before} to {after} KiB");
    assert!(after - before < count as u64 * 16, "{before} to {after} KiB");
    drop(held);
    eventually(|| daemon.open_files() < files + 10);
}

#[test]
fn idle_connections_cost_little_and_are_let_go() {
    idle_connections(1000, Reader::looks_on);
}

#[test]
#[ignore = "takes twenty thousand open files"]
fn ten_thousand_idle_connections() {
    idle_connections(10_000, say_p99s);
}

fn half_open_uploads(sessions: usize, bodies: usize, among_them: fn(&Reader)) {
    let settings = [("requests_per_principal_max", "16384"), ("body_idle_timeout", "10m")];
    let daemon = Daemon::with(&settings);
    let reader = Reader::of(&daemon);
    let (user, before) = (&reader.user, daemon.peak_memory_kib());
    let open = |at| {
        let id = user.init("half", 1000);
        if at % 2 == 0 {
            user.part(&id, 1, &[7; 100]).ok();
        }
        id
    };
    let ids: Vec<_> = (0..sessions).map(open).collect();
    let held = hold(&daemon, bodies, |at| {
        let upload = &ids[at % ids.len()];
        let body = "x".repeat(100);
        format!(
            "PUT /v1/files/{upload}/parts/2 HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\n\
             content-length: 900\r\n\r\n{body}"
        )
    });
    eventually(|| gauge(&daemon, "streamlined_http_requests_open") >= bodies);
    among_them(&reader);
    let after = daemon.peak_memory_kib();
    eprintln!("{sessions} sessions, {bodies} bodies: {before} to {after} KiB");
    assert!(after < (64 << 10) + bodies as u64 * 256, "{after} KiB");
    // None of the cut bodies became a part, and every upload can continue.
    drop(held);
    let status = user.get(&format!("/v1/files/{}", ids[0])).ok();
    assert_eq!(status["received"], json!([{"partNumber": 1, "size": 100}]));
    user.part(&ids[0], 2, &[7; 900]).ok();
    user.complete(&ids[0]).ok();
}

#[test]
fn half_open_uploads_cost_their_buffers_and_keep_nobody() {
    half_open_uploads(200, 200, Reader::looks_on);
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_half_open_uploads() {
    half_open_uploads(10_000, 3000, say_p99s);
}

/// A body takes no more memory when the upload has many parts already.
#[test]
fn bodies_for_an_upload_of_many_parts_cost_as_much_as_any() {
    const PARTS: usize = 2000;
    const BODIES: usize = 300;
    let settings = [("requests_per_principal_max", "16384"), ("body_idle_timeout", "10m")];
    let daemon = Daemon::with(&settings);
    let user = daemon.user("u");
    let init = json!({"mode": "chunked", "files": [{"name": "f", "size": 1 << 30}]});
    let id = user.post("/v1/files/init", init).ok()["uploadId"].as_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        for lane in 0..16 {
            let (user, id) = (user.clone(), &id);
            scope.spawn(move || {
                for number in (1..=PARTS).skip(lane).step_by(16) {
                    user.put(&format!("/v1/files/{id}/parts/{number}"), "x").ok();
                }
            });
        }
    });
    let before = daemon.peak_memory_kib();
    // All bodies belong in one place, which only the first of them gets. Each request looks at the
    // records of all parts; these looks take turns, and are over when 100 Continue is sent.
    let mut held = hold(&daemon, BODIES, |_| {
        format!(
            "PUT /v1/files/{id}/parts/1 HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\n\
             content-length: 200000\r\nexpect: 100-continue\r\n\r\n"
        )
    });
    for socket in &mut held {
        await_continue(socket);
    }
    let after = daemon.peak_memory_kib();
    eprintln!("{PARTS} parts, {BODIES} bodies: {before} to {after} KiB");
    assert!(after - before < BODIES as u64 * 96, "{before} to {after} KiB");
    drop(held);
}

/// Bodies that are as deep, wide and long as is allowed, and more.
#[test]
fn json_of_any_shape_is_refused_in_little_memory() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let before = daemon.peak_memory_kib();
    let whole = |piece: &str| piece.repeat((1 << 20) / piece.len() - 1);
    let shapes = [
        "[".repeat(1 << 20),
        "{\"a\":".repeat(100_000),
        format!("[{}[]]", whole("[],")),
        format!("{{{}\"a\":0}}", whole("\"a\":0,")),
        format!("{{\"files\":[{}{{}}]}}", whole("{},")),
        format!("{{\"keys\":[{}\"\"]}}", whole("\"\",")),
        format!("{{\"meta\":{}1{}}}", "[".repeat(60), "]".repeat(60)),
        format!("{{\"uploadId\":\"{}\"}}", whole("\\u0000")),
        format!("{{\"uploadId\":{}}}", whole("9")),
        format!("{{\"uploadId\":1e{}}}", whole("9")),
        format!("{{\"uploadId\":\"{}\"}}", whole("\\ud800")),
        whole(" "),
        whole("\u{feff}"),
    ];
    let paths = ["init", "part", "complete", "signed-url", "batch-download"];
    for shape in &shapes {
        for path in paths {
            let answer = user.post(&format!("/v1/files/{path}"), shape);
            assert!((400..500).contains(&answer.status), "{path} {}", &shape[..40]);
        }
    }
    // Of 20,000 missing keys, the answer names the first hundred.
    let keys: Vec<_> = (0..20_000).map(|at| format!("storage/u/{at:08x}_f")).collect();
    let missing = user.post("/v1/files/batch-download", json!({"keys": keys}));
    assert_eq!(missing.refused(404, "file_not_found")["missing"].as_array().unwrap().len(), 100);
    let after = daemon.peak_memory_kib();
    assert!(after - before < 32 << 10, "{before} to {after} KiB");
}

/// Every operation that takes JSON, as listed in the API description.
#[test]
fn json_of_a_million_members_or_a_hundred_thousand_levels_is_refused_by_name() {
    let daemon = Daemon::start();
    let service = daemon.service();
    let described = service.get("/openapi.json").ok();
    let before = daemon.peak_memory_kib();
    let keys: Vec<_> = (0..1_000_000).map(|at| format!("\"storage/u/{at:08x}_f\"")).collect();
    let members: Vec<_> = (0..1_000_000).map(|at| format!("\"k{at}\":0")).collect();
    let wide = [format!("{{\"keys\":[{}]}}", keys.join(",")), format!("{{{}}}", members.join(","))];
    let (opening, closing) = ("{\"a\":".repeat(100_000), "}".repeat(100_000));
    let (arrays, ends) = ("[".repeat(100_000), "]".repeat(100_000));
    let deep = [
        format!("{opening}0{closing}"),
        format!("{arrays}{ends}"),
        format!("{{\"keys\":{arrays}{ends}}}"),
        format!("{{\"passed over\":{arrays}{ends}}}"),
    ];
    let mut tried = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["requestBody"]["content"]["application/json"].is_null() {
                continue;
            }
            tried += 1;
            let path = path.replace(['{', '}'], "");
            let send = |body: &String| service.send(&method.to_uppercase(), &path, body.as_str());
            for body in &wide {
                send(body).refused(413, "too_large");
            }
            for body in &deep {
                send(body).refused(400, "json_too_deep");
            }
        }
    }
    assert!(tried > 8, "{tried}");
    let after = daemon.peak_memory_kib();
    assert!(after - before < 16 << 10, "{before} to {after} KiB");
}

/// Nobody reads the answers to the pipelined requests, so the daemon must stop reading requests.
#[test]
fn pipelined_requests_wait_until_their_answers_are_taken() {
    let daemon = Daemon::with(&[("body_idle_timeout", "1s")]);
    // The first request makes the description, which is then kept.
    daemon.anyone().get("/openapi.json").ok();
    let before = daemon.peak_memory_kib();
    let mut socket = connect(&daemon);
    let many = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let mut sent = 0;
    while sent < 64 << 20 && socket.write_all(many.as_bytes()).is_ok() {
        sent += many.len();
    }
    assert!(sent < 64 << 20, "the daemon answers to nobody");
    let after = daemon.peak_memory_kib();
    assert!(after - before < 8 << 10, "{before} to {after} KiB");
    daemon.anyone().get("/healthz").ok();
}
