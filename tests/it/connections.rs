//! Limits of one connection: its requests, how long it may wait, and when it is closed. The HTTP/2
//! client is the crate `h2`, which gives access to windows and resets.

use std::{
    io::{ErrorKind, Read, Write},
    net,
    time::Duration,
};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use hyper::{Request, StatusCode};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    floods::{HEADERS, RST_STREAM, SETTINGS, await_frame, get, speak, windows_begin_with},
    support::{
        Daemon, PATIENCE, connect,
        daemon::TOKEN,
        eventually,
        raw::{answer_of, status},
        stored,
    },
};

/// Runs an HTTP/2 client whose streams begin with a window of `window` bytes.
fn http2<T>(
    daemon: &Daemon,
    window: u32,
    client: impl AsyncFnOnce(SendRequest<Bytes>, Connection<TcpStream>) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpStream::connect(daemon.address()).await.unwrap();
        let mut builder = Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(16 << 20);
        let (sender, connection) = builder.handshake(socket).await.unwrap();
        timeout(PATIENCE, client(sender, connection)).await.expect("it comes to an end")
    })
}

fn request(daemon: &Daemon, path: &str) -> Request<()> {
    let url = format!("{}{path}", daemon.url());
    Request::get(url).header("x-service-token", TOKEN).body(()).unwrap()
}

#[test]
fn an_answer_of_one_piece_that_nobody_takes_is_reset_too() {
    let daemon = Daemon::with(&[("body_idle_timeout", "1s")]);
    http2(&daemon, 0, async |mut sender, connection| {
        tokio::spawn(connection);
        let (answer, _) = sender.send_request(request(&daemon, "/healthz"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let reset = body.data().await.unwrap().unwrap_err();
        assert_eq!(reset.reason(), Some(h2::Reason::CANCEL), "{reset}");
        // Only that stream is reset; the connection stays.
        let (answer, _) = sender.send_request(request(&daemon, "/healthz"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    });
    assert!(daemon.has_hit("answer_not_taken"));
}

#[test]
fn a_slow_client_that_goes_on_taking_is_not_cut() {
    let daemon = Daemon::with(&[("body_idle_timeout", "1s")]);
    let path = stored(&daemon, 400_000);
    let taken = http2(&daemon, 20_000, async |mut sender, connection| {
        tokio::spawn(connection);
        let (answer, _) = sender.send_request(request(&daemon, &path), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let mut taken = 0;
        while let Some(chunk) = body.data().await {
            let length = u32::try_from(chunk.unwrap().len()).unwrap();
            taken += length;
            // The whole answer takes five times the limit, and even one buffer read from the disk
            // takes longer than the limit.
            tokio::time::sleep(Duration::from_secs(1) * length / 80_000).await;
            body.flow_control().release_capacity(length as usize).unwrap();
        }
        taken
    });
    assert_eq!(taken, 400_000);
}

#[test]
fn a_slow_client_below_the_least_speed_is_cut_although_it_goes_on_taking() {
    let settings = [("body_idle_timeout", "1s"), ("body_bytes_per_second_min", "10MiB")];
    let daemon = Daemon::with(&settings);
    let path = stored(&daemon, 4_000_000);
    http2(&daemon, 20_000, async |mut sender, connection| {
        tokio::spawn(connection);
        let (answer, _) = sender.send_request(request(&daemon, &path), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let mut taken = 0;
        let reset = loop {
            let chunk = match body.data().await.unwrap() {
                Ok(chunk) => chunk,
                Err(reset) => break reset,
            };
            taken += chunk.len();
            tokio::time::sleep(Duration::from_millis(20)).await;
            body.flow_control().release_capacity(chunk.len()).unwrap();
        };
        assert_eq!(reset.reason(), Some(h2::Reason::CANCEL), "{reset}");
        assert!(taken >= 100_000, "{taken}: it was cut for silence");
    });
    assert!(daemon.has_hit("answer_rate"));
}

#[test]
fn a_body_over_http_2_below_the_least_speed_is_refused() {
    let daemon =
        Daemon::with(&[("body_idle_timeout", "1s"), ("body_bytes_per_second_min", "1KiB")]);
    http2(&daemon, 65_535, async |mut sender, connection| {
        tokio::spawn(connection);
        let path = "/v1/files/content?filename=f&user_id=u";
        let put = Request::put(format!("{}{path}", daemon.url()));
        let put = put.header("x-service-token", TOKEN).body(()).unwrap();
        let (mut answer, mut body) = sender.send_request(put, false).unwrap();
        let answer = loop {
            if let Ok(answer) = timeout(Duration::from_millis(20), &mut answer).await {
                break answer.unwrap();
            }
            body.send_data(Bytes::from_static(b"x"), false).unwrap();
        };
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    });
    assert!(daemon.has_hit("body_rate"));
}

#[test]
fn a_connection_that_asks_nothing_is_closed_in_good_order() {
    let daemon = Daemon::with(&[("idle_timeout", "500ms")]);
    http2(&daemon, 65_535, async |mut sender, connection| {
        let lasting = tokio::spawn(connection);
        let (answer, _) = sender.send_request(request(&daemon, "/healthz"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
        // The daemon sends a GOAWAY without an error, then closes.
        lasting.await.unwrap().unwrap();
    });
    let mut socket = connect(&daemon);
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let answer = answer_of(socket);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(daemon.has_hit("idle"));
}

/// Sends a request and reads the answer on a connection that stays open.
fn ask(socket: &mut net::TcpStream) {
    socket.write_all(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_connection_may_wait_for_longer_than_a_head_may_take() {
    let daemon = Daemon::with(&[("header_timeout", "300ms"), ("idle_timeout", "10m")]);
    let silent = |socket: &mut net::TcpStream| {
        // Four times `header_timeout`.
        socket.set_read_timeout(Some(Duration::from_millis(1200))).unwrap();
        let silence = socket.read(&mut [0]).unwrap_err();
        assert_eq!(silence.kind(), ErrorKind::WouldBlock, "{silence}");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    };
    let mut socket = connect(&daemon);
    for _ in 0..2 {
        ask(&mut socket);
        silent(&mut socket);
    }
    // `header_timeout` does not apply to a body.
    let head = format!(
        "PUT /v1/files/content?filename=f&user_id=u HTTP/1.1\r\nhost: x\r\n\
         x-service-token: {TOKEN}\r\ncontent-length: 2\r\n\r\nh"
    );
    socket.write_all(head.as_bytes()).unwrap();
    silent(&mut socket);
    socket.write_all(b"i").unwrap();
    assert_eq!(status(&mut socket), "201");
    // The same over HTTP/2.
    http2(&daemon, 65_535, async |mut sender, connection| {
        let lasting = tokio::spawn(connection);
        for _ in 0..2 {
            let (answer, _) = sender.send_request(request(&daemon, "/healthz"), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(1200)).await;
        }
        assert!(!lasting.is_finished());
    });
    assert!(!daemon.has_hit("head_time") && !daemon.has_hit("idle"));
}

#[test]
fn the_head_of_a_later_request_has_its_time_too() {
    let daemon = Daemon::with(&[("header_timeout", "500ms"), ("idle_timeout", "10m")]);
    for (pace, most) in [(PATIENCE, 1), (Duration::from_millis(50), 60)] {
        let mut socket = connect(&daemon);
        ask(&mut socket);
        ask(&mut socket);
        socket.set_read_timeout(Some(pace)).unwrap();
        let mut sent = 0;
        // First one byte and then silence; on the second connection one byte every 50 ms.
        while socket.write_all(b"G").is_ok() {
            sent += 1;
            assert!(sent <= most, "{sent}");
            match socket.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
    }
    assert!(daemon.has_hit("head_time"));
}

#[test]
fn so_many_requests_and_the_connection_is_closed_in_good_order() {
    let daemon = Daemon::with(&[("requests_per_connection_max", "3")]);
    let mut socket = connect(&daemon);
    socket.write_all(&b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(5)).unwrap();
    let mut answers = String::new();
    // The end may be a reset, because two of the requests are never read.
    let _ = socket.read_to_string(&mut answers);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
    http2(&daemon, 65_535, async |sender, connection| {
        let lasting = tokio::spawn(connection);
        let mut answered = 0;
        let mut waiting = Some(sender);
        while let Some(sender) = waiting.take() {
            let Ok(mut ready) = sender.ready().await else { break };
            let Ok((answer, _)) = ready.send_request(request(&daemon, "/healthz"), true) else {
                break;
            };
            let Ok(answer) = answer.await else { break };
            assert_eq!(answer.status(), StatusCode::OK);
            answered += 1;
            // The daemon announces the end and closes once the client has received that, so a few
            // more requests may be answered.
            assert!(answered <= 6, "it goes on taking requests");
            waiting = Some(ready);
        }
        assert!(answered >= 3, "{answered}");
        // Here, too, the end may be a reset, because nobody reads what the client still sends.
        if let Err(error) = lasting.await.unwrap() {
            assert!(error.is_io(), "{error:?}");
        }
    });
    assert!(daemon.has_hit("requests_per_connection"));
}

#[test]
fn a_connection_has_so_many_streams() {
    let daemon = Daemon::with(&[("streams_per_connection_max", "2")]);
    let path = stored(&daemon, 1 << 20);
    let mut socket = speak(&daemon);
    let asked = [windows_begin_with(0), get(1, &path), get(3, &path), get(5, &path)].concat();
    socket.write_all(&asked).unwrap();
    // The third is refused, and the two before it are answered.
    let (mut is_told, mut is_refused, mut answered) = (false, false, 0);
    assert!(await_frame(&mut socket, |kind, stream, payload| {
        is_told |= kind == SETTINGS && payload.chunks(6).any(|it| it == [0, 3, 0, 0, 0, 2]);
        is_refused |= kind == RST_STREAM && stream == 5 && payload == 7_u32.to_be_bytes();
        assert!(kind != HEADERS || stream < 5, "the third is answered");
        answered += usize::from(kind == HEADERS);
        is_refused && answered == 2
    }));
    assert!(is_told);
    assert!(daemon.has_hit("streams"));
}

#[test]
fn a_head_may_be_so_large() {
    let daemon = Daemon::with(&[("head_bytes_max", "8KiB")]);
    let with = |daemon: &Daemon, length: usize| {
        let mut socket = connect(daemon);
        let padding = "x".repeat(length);
        let head = format!(
            "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-padding: {padding}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        status(&mut socket)
    };
    assert_eq!((with(&daemon, 7000), with(&daemon, 9000)), ("200".into(), "431".into()));
    // The refusal is counted when the connection ends.
    eventually(|| daemon.has_hit("head_bytes"));
    let wide = Daemon::with(&[("head_bytes_max", "256KiB")]);
    assert_eq!(with(&wide, 200_000), "200");
}

#[test]
fn one_address_does_not_take_all_connections() {
    let settings = [("connections_per_address_max", "2"), ("header_timeout", "20s")];
    let daemon = Daemon::with(&settings);
    let mut silent = vec![connect(&daemon), connect(&daemon)];
    let open = "streamlined_connections_open 2";
    eventually(|| daemon.operator("GET", "/metrics").contains(open));
    let ask = |socket: &mut net::TcpStream| {
        // The write may fail, because the daemon refuses the connection before it reads a request.
        let _ = socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        status(socket)
    };
    assert_eq!(ask(&mut connect(&daemon)), "503");
    assert!(daemon.has_hit("connections_per_address"));
    // Another address can still connect.
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut other = other.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let socket = socket.connect(daemon.address().parse().unwrap()).await.unwrap();
        socket.into_std().unwrap()
    });
    other.set_nonblocking(false).unwrap();
    assert_eq!(ask(&mut other), "200");
    drop(silent.pop());
    eventually(|| ask(&mut connect(&daemon)) == "200");
    let proxied = Daemon::with(&[settings[0], ("trusted_proxies", "127.0.0.0/8")]);
    let held = [connect(&proxied), connect(&proxied), connect(&proxied)];
    assert_eq!(proxied.anyone().get("/healthz").status, 200);
    drop(held);
}
