//! Uploads and the tokens that begin and end them. A token can end what another token of the same
//! subject began. A subject that is shut out can end nothing any more.

use std::{io::Write, net::TcpStream};

use serde_json::{Value, json};

use crate::{
    auth::claims,
    support::{
        Client, Daemon,
        command::run,
        connect,
        raw::{answer_of, await_continue},
        staged_files,
    },
};

/// One of the three dialects: how a client begins an upload of five bytes with the first two, and
/// how it ends the upload.
struct Dialect {
    begin: fn(&Client) -> String,
    end: fn(&Client, &str) -> u16,
}

const DIALECTS: [Dialect; 3] = [
    Dialect {
        begin: |client| {
            let id = init(client);
            client.put(&format!("/v1/files/{id}/parts/1"), "he").ok();
            id
        },
        end: |client, id| {
            let part = client.put(&format!("/v1/files/{id}/parts/2"), "llo");
            if part.status == 200 { client.complete(id).status } else { part.status }
        },
    },
    Dialect {
        begin: |client| {
            let tus = client.header("tus-resumable", "1.0.0").header("upload-length", "5");
            let typed = tus.header("content-type", "application/offset+octet-stream");
            let created = typed.send("POST", &format!("/v1/tus{ACTING}"), "he");
            created.header("location").rsplit('/').next().unwrap().to_owned()
        },
        end: |client, id| {
            let tus = client.header("tus-resumable", "1.0.0").header("upload-offset", "2");
            let typed = tus.header("content-type", "application/offset+octet-stream");
            typed.send("PATCH", &format!("/v1/tus/{id}"), "llo").status
        },
    },
    Dialect {
        begin: |client| {
            let draft = client.header("upload-complete", "?0").header("upload-length", "5");
            let created = draft.put(&format!("/v1/files/content{ACTING}&filename=f"), "he");
            created.header("location").rsplit('/').next().unwrap().to_owned()
        },
        end: |client, id| {
            let draft = client.header("upload-complete", "?1").header("upload-offset", "2");
            let typed = draft.header("content-type", "application/partial-upload");
            typed.send("PATCH", &format!("/v1/uploads/{id}"), "llo").status
        },
    },
];

/// Names the user, which a service must do and a user need not.
const ACTING: &str = "?user_id=u";

fn init(client: &Client) -> String {
    let files = json!([{"name": "f", "size": 5}]);
    let init = json!({"mode": "single", "files": files, "meta": {"user_id": "u"}});
    client.post("/v1/files/init", init).ok()["uploadId"].as_str().unwrap().to_owned()
}

fn files(daemon: &Daemon) -> u64 {
    daemon.service().get("/v1/files/all?user_id=u").ok()["total_count"].as_u64().unwrap()
}

#[test]
fn what_one_token_began_a_fresh_one_of_the_same_subject_ends() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    let token = || run(&dir, &["token", "create", "s"]);
    let holder =
        |made: &Value| daemon.anyone().header("x-service-token", made["token"].as_str().unwrap());
    for (ended, Dialect { begin, end }) in (1..).zip(DIALECTS) {
        // Tokens are ended by the whole second, so each dialect has a user of its own.
        let name = format!("u{ended}");
        let first = daemon.user(&name);
        let id = begin(&first);
        run(&dir, &["user", "set", &name, "--log-out"]);
        assert_eq!(end(&first, &id), 401);
        assert_eq!(end(&daemon.user("v"), &id), 404);
        assert!(end(&daemon.user(&name), &id) < 300);
        assert_eq!(daemon.user(&name).get("/v1/files/all").ok()["total_count"], 1);
        let (old, new) = (token(), token());
        let id = begin(&holder(&old));
        run(&dir, &["token", "revoke", old["id"].as_str().unwrap()]);
        assert_eq!(end(&holder(&old), &id), 401);
        assert!(end(&holder(&new), &id) < 300);
        assert_eq!(files(&daemon), ended);
    }
}

/// Begins a request with a body of five bytes, none of which is sent yet.
fn hang(daemon: &Daemon, at: usize, credential: &str, head: &str) -> TcpStream {
    let mut socket = connect(daemon);
    // An address whose credentials fail again and again has to wait, so each request has another.
    let credential = format!("x-forwarded-for: 192.0.2.{at}\r\n{credential}");
    let head = format!(
        "{head} HTTP/1.1\r\nhost: x\r\n{credential}\r\ncontent-length: 5\r\n\
         tus-resumable: 1.0.0\r\nupload-offset: 0\r\nupload-complete: ?1\r\n\
         connection: close\r\nexpect: 100-continue\r\n",
    );
    let kind = if head.contains("/v1/tus") { "offset+octet-stream" } else { "partial-upload" };
    write!(socket, "{head}content-type: application/{kind}\r\n\r\n").unwrap();
    await_continue(&mut socket);
    socket
}

#[test]
fn who_is_shut_out_meanwhile_ends_nothing() {
    let daemon = Daemon::with(&[("trusted_proxies", "127.0.0.1")]);
    let dir = daemon.dir();
    let user = daemon.user("u");
    let id = init(&user);
    let heads = [
        "PUT /v1/files/content?filename=f&user_id=u".to_owned(),
        format!("PUT /v1/files/{id}/parts/1"),
        format!("PATCH /v1/tus/{}", init(&user)),
        format!("PATCH /v1/uploads/{}", init(&user)),
        "POST /v1/files/init".to_owned(),
        "POST /v1/files/complete".to_owned(),
        "POST /v1/files/signed-url".to_owned(),
        "POST /v1/admin/tokens".to_owned(),
    ];
    let by_user: [&[&str]; 4] = [
        &["user", "set", "u", "--disabled"],
        &["user", "set", "u", "--log-out"],
        &["token", "revoke", "--jti"],
        &["user", "delete", "u"],
    ];
    let by_service: [&[&str]; 3] = [
        &["token", "revoke", "s"],
        &["token", "rotate", "s", "--grace", "0"],
        &["token", "revoke", "--service", "s"],
    ];
    for command in by_service.into_iter().chain(by_user) {
        let (credential, command) = if by_service.contains(&command) {
            let made = run(&dir, &["token", "create", "s"]);
            (format!("x-service-token: {}", made["token"].as_str().unwrap()), command.to_vec())
        } else {
            run(&dir, &["user", "set", "u", "--disabled=false", "--role", "admin"]);
            let made = daemon.service().post("/v1/files/generate-token?user_id=u", "").ok();
            let token = made["token"].as_str().unwrap();
            let jti = claims(token)["jti"].as_str().unwrap().to_owned();
            let mut command = command.to_vec();
            if command.ends_with(&["--jti"]) {
                command.push(jti.leak());
            }
            (format!("authorization: Bearer {token}"), command)
        };
        let hanging = heads.iter().enumerate();
        let hanging = hanging.map(|(at, head)| hang(&daemon, at, &credential, head));
        let hanging: Vec<_> = hanging.collect();
        run(&dir, &command);
        for (mut socket, head) in hanging.into_iter().zip(&heads) {
            socket.write_all(b"{}   ").unwrap();
            let answer = answer_of(socket);
            assert!(answer.starts_with("HTTP/1.1 401"), "{command:?}, {head}: {answer}");
        }
        assert_eq!(files(&daemon), 0);
    }
    assert_eq!(run(&dir, &["user", "list"]), json!([]));
    assert!(staged_files(&daemon).is_empty());
}
