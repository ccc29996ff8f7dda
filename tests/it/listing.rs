//! Lists, metadata, deletion.

use serde_json::json;

use crate::support::{Client, Daemon, client::encode, command::run};

fn store(client: &Client, names: &[(&str, &str)]) -> Vec<String> {
    let keys = names.iter().map(|(folder, name)| {
        let file = client.store(name, folder, name.as_bytes());
        file["key"].as_str().unwrap().to_owned()
    });
    keys.collect()
}

#[test]
fn lists_are_newest_first_and_filter_with_everything_beneath() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    store(
        &user,
        &[
            ("", "top"),
            ("main", "m"),
            ("main/pictures", "p"),
            ("main/pictures/x", "px"),
            ("mainly", "no"),
        ],
    );
    store(&daemon.user("v"), &[("main", "foreign")]);
    assert_eq!(user.names(""), ["no", "px", "p", "m", "top"]);
    assert_eq!(user.names("?folder=main"), ["px", "p", "m"]);
    assert_eq!(user.names("?folder=/main//pictures/"), ["px", "p"]);
    assert_eq!(user.names("?folder=elsewhere"), [""; 0]);
    let list = user.get("/v1/files/all?folder=main/pictures").ok();
    assert_eq!((&list["total_count"], &list["total_size"]), (&json!(2), &json!(3)));
    let entry = &list["files"][1];
    for member in ["id", "key", "filename", "size", "mime", "created_at", "folder"] {
        assert!(!entry[member].is_null(), "{entry}");
    }
    // A user's own id always wins over the id in the query.
    assert_eq!(user.names("?user_id=v&folder=mainly"), ["no"]);
    user.get("/v1/files/all?folder=a/../b").refused(400, "invalid_folder");
}

#[test]
fn pages_follow_one_another() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let names: Vec<String> = (0..7).map(|n| format!("f{n}")).collect();
    for name in &names {
        user.store(name, "d", b"");
    }
    let (mut seen, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = user.get(&format!("/v1/files/all{query}")).ok();
        assert_eq!(page["total_count"], 7);
        let files = page["files"].as_array().unwrap();
        assert!(files.len() <= 3);
        seen.extend(files.iter().map(|file| file["filename"].as_str().unwrap().to_owned()));
        // A file that is stored between two pages is newer and shifts nothing.
        user.store("later", "elsewhere", b"");
        user.delete_file(&user.get("/v1/files/all?folder=elsewhere").ok()["files"][0]).ok();
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=3&cursor={cursor}");
    }
    seen.reverse();
    assert_eq!(seen, names);
    for bad in ["limit=0", "limit=-1", "limit=x", "limit=1&limit=2", "cursor=!"] {
        let code = match bad {
            "cursor=!" => "invalid_cursor",
            "limit=1&limit=2" => "duplicate_parameter",
            _ => "invalid_limit",
        };
        user.get(&format!("/v1/files/all?{bad}")).refused(400, code);
    }
}

#[test]
fn a_whole_list_is_longer_than_a_page_of_the_index() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let user = &user;
            scope.spawn(move || {
                for n in 0..75 {
                    user.store(&format!("{worker}-{n}"), "", b"x");
                }
            });
        }
    });
    let list = user.get("/v1/files/all").ok();
    let files = list["files"].as_array().unwrap();
    assert_eq!((files.len(), list["total_count"].as_u64()), (600, Some(600)));
    assert_eq!(list.get("next_cursor"), None);
    let times: Vec<_> = files.iter().map(|file| file["created_at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
    let page = user.get("/v1/files/all?limit=500").ok();
    assert_eq!(page["files"].as_array().unwrap()[..], files[..500]);
    assert_eq!(page["next_cursor"], files[499]["id"]);
}

#[test]
fn services_and_admins_name_the_user() {
    let daemon = Daemon::start();
    let service = daemon.service();
    store(&daemon.user("u@x.io"), &[("", "f")]);
    service.get("/v1/files/all").refused(400, "user_required");
    assert_eq!(service.names("?user_id=u@x.io"), ["f"]);
    assert_eq!(service.names("?user_email=u%40x.io"), ["f"]);
    assert_eq!(service.names("?user_id=nobody"), [""; 0]);
    service.get("/v1/files/all?user_id=a%2Fb").refused(400, "invalid_user_id");
    // An empty `user_id` does not stand for all users.
    service.get("/v1/files/all?user_id=").refused(400, "invalid_user_id");
    // Any other empty parameter counts as missing; so does an empty `user_id` beside a
    // `user_email`.
    let empty = "?cursor=&limit=&folder=&user_id=&user_email=u%40x.io";
    assert_eq!(service.names(empty), ["f"]);
    let uploads = format!("/v1/files/uploads{empty}");
    assert_eq!(service.get(&uploads).ok()["uploads"], json!([]));
    let made = service.post("/v1/files/generate-token?user_id=&expires_hours=", "");
    made.refused(400, "invalid_user_id");
}

#[test]
fn a_page_of_uploads_is_at_most_a_hundred_whatever_is_asked() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let files: Vec<_> = (0..103).map(|n| json!({"name": n.to_string(), "size": 1})).collect();
    user.post("/v1/files/init", json!({"mode": "batch", "files": files})).ok();
    for limit in ["101", "18446744073709551615"] {
        let page = user.get(&format!("/v1/files/uploads?limit={limit}")).ok();
        assert_eq!(page["uploads"].as_array().unwrap().len(), 100);
        let cursor = page["next_cursor"].as_str().unwrap();
        let rest = user.get(&format!("/v1/files/uploads?limit={limit}&cursor={cursor}")).ok();
        assert_eq!(rest["uploads"].as_array().unwrap().len(), 3);
        assert_eq!(rest.get("next_cursor"), None);
    }
    for limit in ["0", "-1", "x", "18446744073709551616"] {
        user.get(&format!("/v1/files/uploads?limit={limit}")).refused(400, "invalid_limit");
    }
}

#[test]
fn an_admin_lists_the_open_uploads_of_a_user() {
    let daemon = Daemon::start();
    run(&daemon.dir(), &["user", "set", "boss", "--role", "admin"]);
    let (admin, user) = (daemon.user("boss"), daemon.user("u"));
    let (own, theirs) = (admin.init("own", 1), user.init("theirs", 2));
    user.part(&theirs, 1, b"x").ok();
    let ids = |client: &Client, query: &str| {
        let listed = client.get(&format!("/v1/files/uploads{query}")).ok();
        let uploads = listed["uploads"].as_array().unwrap().clone();
        uploads.iter().map(|u| u["uploadId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&admin, "?user_id=u"), ids(&user, ""));
    assert_eq!(ids(&admin, ""), [own]);
    assert_eq!(ids(&user, "?user_id=boss"), [theirs.as_str()]);
    // The uploads still belong to the user: an admin cannot look at one.
    admin.get(&format!("/v1/files/{theirs}")).refused(404, "upload_not_found");
}

#[test]
fn keys_work_raw_and_encoded_for_their_owner_only() {
    let daemon = Daemon::start();
    let (user, other, service) = (daemon.user("a b@x.io"), daemon.user("v"), daemon.service());
    let keys = store(&user, &[("Füße/50% #1?", "naïve \"q\" <x>|*.txt"), ("", "日本語.png")]);
    assert!(!keys[0].contains(['#', '?', '%', '<', '>', ':', '"', '|', '*']), "{}", keys[0]);
    for key in &keys {
        let whole = key.replace('/', "%2F").replace(' ', "%20");
        for path in [encode(key), whole] {
            let path = format!("/v1/files/metadata/{path}");
            let metadata = user.get(&path).ok();
            assert_eq!(metadata["key"], *key);
            assert_eq!(service.get(&path).ok(), metadata);
            other.get(&path).refused(404, "file_not_found");
        }
    }
    let metadata = user.get(&format!("/v1/files/metadata/{}", encode(&keys[0]))).ok();
    assert_eq!(metadata["filename"], "naïve \"q\" <x>|*.txt");
    assert_eq!(metadata["folder"], "Füße/50% #1?");
    assert_eq!(metadata["meta"], json!({}));

    let path = format!("/v1/files/{}", encode(&keys[0]));
    other.delete(&path).refused(404, "file_not_found");
    assert_eq!(user.delete(&path).ok(), json!({"status": "deleted", "key": keys[0]}));
    user.delete(&path).refused(404, "file_not_found");
    user.content(&keys[0]).refused(404, "file_not_found");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 1);
    assert_eq!(service.delete(&format!("/v1/files/{}", encode(&keys[1]))).status, 200);
    assert_eq!(user.get("/v1/files/all").ok()["total_size"], 0);
}
