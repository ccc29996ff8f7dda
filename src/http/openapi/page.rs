//! The description as one HTML page: no script, one style, no external resources.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

const STYLE: &str = include_str!("page.css");

/// The content security policy. It allows the page's own style, by its hash, and nothing else.
pub fn policy() -> String {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

pub fn render(document: &Value) -> String {
    let title = text(&document["info"]["title"]);
    let version = text(&document["info"]["version"]);
    let about = prose(&document["info"]["description"]);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}: the API</title>\
         <style>{STYLE}</style></head><body><nav><h1>{title}</h1><p>{version} · \
         <a href=\"openapi.json\">openapi.json</a></p>"
    );
    let tags = document["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    for tag in tags {
        put(&mut page, &format!("<h2>{}</h2><ul>", text(&tag["name"])));
        for (path, method, operation) in operations(document, &tag["name"]) {
            let id = text(&operation["operationId"]);
            let link = format!("<li><a href=\"#{id}\">{} {path}</a></li>", method_mark(method));
            put(&mut page, &link);
        }
        put(&mut page, "</ul>");
    }
    put(&mut page, &format!("<h2><a href=\"#schemas\">Schemas</a></h2></nav><main><p>{about}</p>"));
    credentials(&mut page, document);
    for tag in tags {
        let (name, about) = (text(&tag["name"]), prose(&tag["description"]));
        put(&mut page, &format!("<h2>{name}</h2><p>{about}</p>"));
        for (path, method, described) in operations(document, &tag["name"]) {
            operation(&mut page, &path, method, described);
        }
    }
    put(&mut page, "<h2 id=\"schemas\">Schemas</h2>");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let shape =
            format!("<section id=\"schema-{name}\"><h3>{name}</h3>{}</section>", of(schema));
        put(&mut page, &shape);
    }
    page + "</main></body></html>"
}

/// The operations of a tag. `HEAD` is left out: it is its `GET` without the bytes.
fn operations<'a>(
    document: &'a Value,
    tag: &'a Value,
) -> impl Iterator<Item = (String, &'a str, &'a Value)> {
    members(&document["paths"]).flat_map(move |(path, item)| {
        let of_path = members(item).filter(|(method, _)| *method != "head");
        let of_tag = of_path.filter(move |(_, operation)| operation["tags"][0] == *tag);
        of_tag.map(move |(method, operation)| (escape(path), method.as_str(), operation))
    })
}

fn credentials(page: &mut String, document: &Value) {
    put(page, "<h2>Credentials</h2><table>");
    for (_, scheme) in members(&document["components"]["securitySchemes"]) {
        let carrier = match (text(&scheme["in"]).as_str(), text(&scheme["name"])) {
            ("header", name) => format!("{name}: …"),
            ("cookie", name) => format!("Cookie: {name}=…"),
            _ => "Authorization: Bearer …".into(),
        };
        let about = prose(&scheme["description"]);
        put(page, &format!("<tr><th><code>{carrier}</code></th><td>{about}</td></tr>"));
    }
    put(page, "</table>");
}

fn operation(page: &mut String, path: &str, method: &str, described: &Value) {
    let id = text(&described["operationId"]);
    let needs = match (&described["x-least-role"], described["security"].as_array()) {
        (Value::String(role), _) => format!("{} or higher", escape(role)),
        (_, Some(schemes)) if schemes.len() > 1 => "a credential, or public read".into(),
        _ => "no credential".into(),
    };
    let head = format!(
        "<section id=\"{id}\"><h3>{} <code>{path}</code></h3><p><b>{}</b> \
         <span class=\"role\">{needs}</span></p><p>{}</p>",
        method_mark(method),
        prose(&described["summary"]),
        prose(&described["description"]),
    );
    put(page, &head);
    parameters(page, described);
    for (media, content) in members(&described["requestBody"]["content"]) {
        let schema = content.get("schema").map_or("any bytes".to_owned(), of);
        put(page, &format!("<h4>Body <code>{}</code></h4>{schema}", escape(media)));
    }
    answers(page, described);
    put(page, "</section>");
}

fn parameters(page: &mut String, described: &Value) {
    let Some(parameters) = described["parameters"].as_array() else { return };
    put(page, "<details><summary>Parameters</summary><table>");
    for parameter in parameters {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let need = if parameter["required"] == true { ", required" } else { "" };
        let row = format!(
            "<tr><th><code>{name}</code><small>{place}{need}</small></th><td>{}</td>\
             <td>{}</td></tr>",
            of(&parameter["schema"]),
            prose(&parameter["description"]),
        );
        put(page, &row);
    }
    put(page, "</table></details>");
}

fn answers(page: &mut String, described: &Value) {
    put(page, "<details><summary>Responses</summary><table>");
    for (status, answer) in members(&described["responses"]) {
        let class = &status[..1];
        let codes = answer.pointer("/content/application~1problem+json/schema/allOf/1");
        let codes = codes.and_then(|narrowed| narrowed["properties"]["code"]["enum"].as_array());
        let mut about = prose(&answer["description"]);
        if let Some(codes) = codes {
            let codes = codes.iter().map(|code| format!("<code>{}</code> ", text(code)));
            // The description of a refusal is the list of its codes.
            let plain = members(&answer["content"]).all(|(media, _)| media.contains("problem"));
            about = if plain { codes.collect() } else { about + "; " + &codes.collect::<String>() };
        }
        for (media, content) in members(&answer["content"]) {
            if !media.contains("problem") {
                let shape = content.get("schema").map(of).unwrap_or_default();
                let _ = write!(about, " <code>{}</code> {shape}", escape(media));
            }
        }
        put(page, &format!("<tr><th class=\"s{class}\">{status}</th><td>{about}</td></tr>"));
    }
    put(page, "</table></details>");
}

/// A schema in HTML: a link to a named one, a table of members, or a few words.
fn of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for (word, between) in [("anyOf", " or "), ("oneOf", "<p>or</p>")] {
        if let Some(choices) = schema[word].as_array() {
            let choices: Vec<String> = choices.iter().map(of).collect();
            return choices.join(between);
        }
    }
    if schema["type"] == "array" {
        return format!("array of {} {}", of(&schema["items"]), prose(&schema["description"]));
    }
    if schema.get("properties").is_some() {
        return table(schema);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
        kind => text(kind),
    };
    let mut words = vec![kind];
    if let Some(choices) = schema["enum"].as_array() {
        words.extend(choices.iter().map(|word| format!("<code>{}</code>", text(word))));
    }
    for word in ["const", "format", "pattern"] {
        words.extend(schema[word].as_str().map(|it| format!("<code>{}</code>", escape(it))));
    }
    for (word, before) in [("minimum", "from "), ("maximum", "to "), ("default", "default ")] {
        words.extend(schema.get(word).map(|it| format!("{before}{it}")));
    }
    words.push(prose(&schema["description"]));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn table(schema: &Value) -> String {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = members(&schema["properties"]).map(|(name, member)| {
        let optional = if required.iter().any(|it| it == name) { "" } else { "optional" };
        let name = escape(name);
        format!(
            "<tr><th><code>{name}</code><small>{optional}</small></th><td>{}</td></tr>",
            of(member)
        )
    });
    let about = prose(&schema["description"]);
    format!("<p>{about}</p><table>{}</table>", rows.collect::<String>())
}

fn method_mark(method: &str) -> String {
    format!("<span class=\"m {method}\">{}</span>", method.to_ascii_uppercase())
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn put(page: &mut String, html: &str) {
    page.push_str(html);
}

fn text(value: &Value) -> String {
    value.as_str().map(escape).unwrap_or_default()
}

/// Text as HTML. Backticks in it mark code.
fn prose(value: &Value) -> String {
    let pieces = value.as_str().unwrap_or_default().split('`').enumerate();
    let marked = pieces.map(|(at, piece)| {
        let piece = escape(piece);
        if at % 2 == 1 { format!("<code>{piece}</code>") } else { piece }
    });
    marked.collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
