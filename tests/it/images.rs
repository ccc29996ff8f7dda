//! `/api/images/{id}/download` and `/preview`, with both kinds of answer: the bytes or a link to
//! them.

use crate::support::{Daemon, bytes};

#[test]
fn the_bytes_or_where_to_get_them() {
    let daemon = Daemon::start();
    let (user, other) = (daemon.user("u"), daemon.user("v"));
    let content = bytes(1, 9000);
    let file = user.store("cell.png", "", &content);
    let path = format!("/api/images/{}/download", file["id"].as_str().unwrap());
    let answer = user.get(&path);
    assert_eq!((answer.status, &answer.body), (200, &content));
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"cell.png\"");
    // A cache that holds one kind of answer must not serve it to a client that requests the other.
    let varies = "accept, content-type";
    assert_eq!(answer.header("vary"), varies);
    let shown = path.replace("download", "preview");
    let preview = user.get(&shown);
    assert_eq!(preview.header("content-disposition"), "inline; filename=\"cell.png\"");
    assert_eq!(preview.header("vary"), varies);
    let answer = user.header("accept", "application/json").get(&shown);
    assert_eq!(answer.header("vary"), varies);
    let linked = daemon.anyone().get(answer.ok()["url"].as_str().unwrap());
    assert_eq!(linked.header("content-disposition"), "inline; filename=\"cell.png\"");
    for (header, value) in [
        ("accept", "application/json, text/plain, */*"),
        ("accept", "text/html, Application/JSON;q=0.5"),
        ("content-type", "application/json"),
    ] {
        let answer = user.header(header, value).get(&path).ok();
        assert_eq!(
            (&answer["filename"], &answer["expires_in"]),
            (&"cell.png".into(), &3600.into())
        );
        let linked = daemon.anyone().get(answer["url"].as_str().unwrap());
        assert_eq!(linked.body, content);
        assert_eq!(linked.header("content-disposition"), "attachment; filename=\"cell.png\"");
    }
    for value in ["application/json;q=0, */*", "application/json; Q=0.000,image/*", "*/*"] {
        assert_eq!(user.header("accept", value).get(&path).body, content, "{value}");
    }
    let json = user.header("accept", "application/json");
    assert_eq!(json.get(&format!("{path}?expires_in=60")).ok()["expires_in"], 60);
    for wrong in ["59", "604801", "x"] {
        json.get(&format!("{path}?expires_in={wrong}")).refused(400, "invalid_expires_in");
    }
    other.get(&path).refused(404, "file_not_found");
    daemon.anyone().get(&path).refused(401, "unauthenticated");
    user.get("/api/images/1/download").refused(404, "file_not_found");
    user.get("/api/images/x").refused(404, "no_route");
    assert_eq!(daemon.service().get(&path).status, 200);
}
