//! What a service learns of users: nothing of any user but the one that it names. Of users whom its
//! token does not grant, it does not even learn whether something exists.

use hyper::Method;
use serde_json::{Value, json};
use streamlined::http::{endpoint::Endpoint, route::route};

use crate::{
    matrix::{self, ID, IMAGE, described},
    support::{Client, Daemon, base64, client::Answer, command::run},
};

const KEY: &str = "storage/o1/d/00000000_f";

/// What a request names besides a user. A new endpoint does not compile before it has an entry in
/// [`about`], and a test demands a row in [`requests`].
#[derive(Debug, PartialEq, Eq)]
enum About {
    /// No id: the request concerns no user, a named user, or the holder of a link.
    NoId,
    Key,
    File,
    Upload,
}

fn about(endpoint: &Endpoint) -> About {
    match endpoint {
        Endpoint::Health
        | Endpoint::KeySet
        | Endpoint::Description
        | Endpoint::Docs
        | Endpoint::Metrics
        | Endpoint::GenerateToken
        | Endpoint::Init
        | Endpoint::ListUploads
        | Endpoint::PutContent
        | Endpoint::TusOptions
        | Endpoint::TusCreate
        | Endpoint::ResumableOptions { .. }
        | Endpoint::ListFiles
        | Endpoint::RedeemLink { .. }
        | Endpoint::FetchBatch { .. }
        | Endpoint::Admin(_) => About::NoId,
        Endpoint::Metadata { .. }
        | Endpoint::DeleteFile { .. }
        | Endpoint::Content { .. }
        | Endpoint::Storage { .. }
        | Endpoint::SignLink
        | Endpoint::SignLinkForm
        | Endpoint::MintBatch => About::Key,
        Endpoint::Image { .. } => About::File,
        Endpoint::EncodedPart
        | Endpoint::RawPart { .. }
        | Endpoint::UploadStatus { .. }
        | Endpoint::AbortUpload { .. }
        | Endpoint::Complete
        | Endpoint::TusHead { .. }
        | Endpoint::TusPatch { .. }
        | Endpoint::TusDelete { .. }
        | Endpoint::ResumableHead { .. }
        | Endpoint::ResumablePatch { .. }
        | Endpoint::ResumableDelete { .. } => About::Upload,
    }
}

/// A request about a file or an upload.
struct Asked {
    method: &'static str,
    /// Includes the `?` of a query, so that more parameters can follow.
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    endpoint: Endpoint,
    about: About,
}

impl Asked {
    fn by(&self, client: &Client, query: &str) -> Answer {
        let mut client = client.clone();
        for (name, value) in &self.headers {
            client = client.header(name, value);
        }
        client.send(self.method, &format!("{}&{query}", self.path), self.body.clone())
    }
}

/// Every request about a file and an upload, those that end it last. All content is three bytes
/// long.
fn requests(key: &str, file: &str, upload: &str) -> Vec<Asked> {
    let piece = [("upload-offset", "0"), ("content-type", "application/offset+octet-stream")];
    let of_draft = [
        ("upload-offset", "0"),
        ("content-type", "application/partial-upload"),
        ("upload-complete", "?0"),
    ];
    let tus = ("tus-resumable", "1.0.0");
    let part = json!({"uploadId": upload, "partNumber": 1, "chunkBase64": base64(b"abc")});
    let complete = json!({"uploadId": upload, "parts": [{"data": base64(b"abc")}]});
    let rows = [
        ("GET", format!("/v1/files/metadata/{key}"), vec![], String::new()),
        ("GET", format!("/v1/files/content/{key}"), vec![], String::new()),
        ("HEAD", format!("/v1/files/content/{key}"), vec![], String::new()),
        ("GET", format!("/{key}"), vec![], String::new()),
        ("POST", "/v1/files/signed-url".into(), vec![], json!({"file_key": key}).to_string()),
        ("POST", "/v1/files/batch-download".into(), vec![], json!({"keys": [key]}).to_string()),
        ("GET", format!("/v1/files/signed-url?key={key}"), vec![], String::new()),
        ("GET", format!("/api/images/{file}/download"), vec![], String::new()),
        ("GET", format!("/api/images/{file}/preview"), vec![], String::new()),
        ("DELETE", format!("/v1/files/{key}"), vec![], String::new()),
        ("GET", format!("/v1/files/{upload}"), vec![], String::new()),
        ("HEAD", format!("/v1/tus/{upload}"), vec![tus], String::new()),
        ("HEAD", format!("/v1/uploads/{upload}"), vec![], String::new()),
        ("PATCH", format!("/v1/tus/{upload}"), [&[tus][..], &piece].concat(), String::new()),
        ("PATCH", format!("/v1/uploads/{upload}"), of_draft.to_vec(), String::new()),
        ("POST", "/v1/files/part".into(), vec![], part.to_string()),
        ("PUT", format!("/v1/files/{upload}/parts/1"), vec![], "abc".into()),
        ("POST", "/v1/files/complete".into(), vec![], complete.to_string()),
        ("DELETE", format!("/v1/files/{upload}"), vec![], String::new()),
        ("DELETE", format!("/v1/tus/{upload}"), vec![tus], String::new()),
        ("DELETE", format!("/v1/uploads/{upload}"), vec![], String::new()),
    ];
    let asked = |(method, path, headers, body): (&'static str, String, _, _)| {
        let (bare, query) = path.split_once('?').unwrap_or((&path, ""));
        let endpoint = route(&method.parse::<Method>().unwrap(), bare).unwrap();
        let path = format!("{bare}?{query}");
        let about = about(&endpoint);
        Asked { method, path, headers, body, endpoint, about }
    };
    rows.into_iter().map(asked).collect()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

#[test]
fn every_endpoint_about_a_file_or_an_upload_has_a_row() {
    let rows = requests(matrix::KEY, IMAGE, ID);
    for (request, endpoint) in described(&Daemon::start()) {
        let has_row = rows.iter().any(|row| row.endpoint == endpoint);
        assert!(has_row || about(&endpoint) == About::NoId, "{request} has no row");
    }
}

#[test]
fn a_service_that_names_a_user_is_given_nothing_of_another() {
    let daemon = Daemon::start();
    let (service, owner) = (daemon.service(), daemon.user("o1"));
    daemon.user("o2").store("own", "", b"own");
    let file = owner.store("f", "d", b"abc");
    let (key, id, upload) = (text(&file, "key"), text(&file, "id"), owner.init("g", 3));
    let requests = requests(&key, &id, &upload);
    for asked in &requests {
        let place = (asked.method, &asked.path);
        assert_ne!(asked.about, About::NoId, "{place:?}");
        for named in ["user_id=o2", "user_email=o2", "user_id=o2&user_email=o1"] {
            let answer = asked.by(&service, named);
            let is_complete = asked.path.starts_with("/v1/files/complete");
            assert_eq!(answer.status, if is_complete { 409 } else { 404 }, "{place:?} {named}");
            if asked.method != "HEAD" {
                let code = match asked.about {
                    _ if is_complete => "owner_mismatch",
                    About::Upload => "upload_not_found",
                    _ => "file_not_found",
                };
                answer.refused(answer.status, code);
            }
        }
        // A malformed user id is refused here as everywhere.
        for no_user in ["user_id=a%2Fb", "user_id=", "user_email="] {
            assert_eq!(asked.by(&service, no_user).status, 400, "{place:?} {no_user}");
        }
    }
    assert_eq!(owner.content(&key).body, b"abc");
    let status = owner.get(&format!("/v1/files/{upload}")).ok();
    assert_eq!((&status["state"], &status["bytesReceived"]), (&json!("open"), &json!(0)));
    // A service that names the owner, or nobody, is given everything. The user id that a user sends
    // along is ignored.
    for (named, client) in [("user_id=o1", &service), ("x=", &service), ("user_id=a%2Fb", &owner)] {
        let file = owner.store("f", "d", b"abc");
        let (key, id) = (text(&file, "key"), text(&file, "id"));
        for asked in self::requests(&key, &id, &owner.init("g", 3)) {
            let place = (asked.method, &asked.path);
            let answer = asked.by(client, named);
            let is_late = asked.method == "DELETE" && asked.about == About::Upload;
            let is_fine = answer.status < 300 || is_late && matches!(answer.status, 409 | 410);
            let is_over = is_late && answer.status == 404;
            assert!(is_fine || is_over, "{place:?} {named}: {}", answer.status);
        }
    }
}

#[test]
fn a_request_that_names_two_users_is_refused() {
    let daemon = Daemon::start();
    let (service, owner) = (daemon.service(), daemon.user("o1"));
    let file = owner.store("f", "d", b"abc");
    let key = text(&file, "key");
    let init = |query: &str, user: &str| {
        let files = json!([{"name": "f", "size": 0}]);
        let init = json!({"mode": "single", "files": files, "meta": {"user_id": user}});
        service.post(&format!("/v1/files/init?{query}"), init)
    };
    init("user_id=o2", "o1").refused(409, "owner_mismatch");
    init("user_email=o2", "o1").refused(409, "owner_mismatch");
    let id = text(&init("user_id=o1", "o1").ok(), "uploadId");
    let complete = |query: &str, meta: Value| {
        let body = json!({"uploadId": id, "meta": meta});
        service.post(&format!("/v1/files/complete?{query}"), body)
    };
    for (query, user) in [("user_id=o2", "o1"), ("user_id=o1", "o2"), ("user_id=o2", "o2")] {
        complete(query, json!({"user_id": user})).refused(409, "owner_mismatch");
    }
    complete("user_id=a%2Fb", json!({})).refused(400, "invalid_user_id");
    complete("user_id=o1", json!({"user_id": "o1"})).ok();

    let chosen = json!({"keys": [key], "user_id": "o2"});
    let form = json!({"file_key": key, "user_email": "o2"});
    for (path, body) in [("batch-download", &chosen), ("signed-url", &form)] {
        let path = format!("/v1/files/{path}");
        service.post(&path, body).refused(404, "file_not_found");
        service.post(&format!("{path}?user_id=o1"), body).refused(409, "owner_mismatch");
        // From a user, the user id is ignored.
        owner.post(&format!("{path}?user_id=o1"), body).ok();
    }
    let metadata = format!("user_id {}", base64(b"o1"));
    let tus = service.header("tus-resumable", "1.0.0").header("upload-metadata", &metadata);
    let tus = tus.header("upload-length", "0");
    tus.send("POST", "/v1/tus?user_id=o2", "").refused(409, "owner_mismatch");
    assert_eq!(tus.send("POST", "/v1/tus?user_id=o1", "").status, 201);
}

/// Answers do not tell whether a file or an upload exists that the token does not grant.
#[test]
fn a_limited_token_is_not_told_what_there_is_elsewhere() {
    let daemon = Daemon::start();
    let owner = daemon.user("o1");
    let file = owner.store("f", "d", b"abc");
    let init = json!({"mode": "batch", "files": [{"name": "f", "size": 3}], "folder": "d"});
    let opened = owner.post("/v1/files/init", init).ok();
    let (key, id) = (text(&file, "key"), text(&file, "id"));
    let uploads = [text(&opened, "uploadId"), text(&opened["files"][0], "uploadId")];
    for scope in ["user:o2", "user:o2*", "folder:e", "folder:d/e"] {
        let made = run(&daemon.dir(), &["token", "create", "s", "--scope", scope]);
        let limited = daemon.anyone().header("x-service-token", &text(&made, "token"));
        for upload in &uploads {
            let there = requests(&key, &id, upload);
            for (there, made_up) in there.iter().zip(requests(KEY, IMAGE, ID)) {
                let place = (there.method, &there.path, scope);
                let (one, other) = (there.by(&limited, "x="), made_up.by(&limited, "x="));
                let wanted = if there.about == About::Key { 403 } else { 404 };
                assert_eq!((one.status, other.status), (wanted, wanted), "{place:?}");
                let told = |answer: &Answer| {
                    let problem = answer.json();
                    (problem["code"].clone(), problem["detail"].clone())
                };
                if there.method != "HEAD" {
                    assert_eq!(told(&one), told(&other), "{place:?}");
                }
            }
        }
    }
    assert_eq!(owner.content(&key).body, b"abc");
    assert_eq!(owner.get(&format!("/v1/files/{}", uploads[0])).ok()["state"], "open");
}
