//! `/openapi.json` and `/docs`: the surface, described for programs and for people.
//!
//! The description is derived from the router. Each path is routed under each method, the endpoint
//! that comes out is described by an exhaustive `match`, and its least role is read from the table
//! of endpoints. An endpoint that is routed but not described here does not compile, or fails a
//! test.

mod admin;
mod describe;
mod operation;
mod page;
mod resumable;
mod schemas;
mod tus;

use std::{collections::BTreeSet, sync::LazyLock};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    app::Error,
    http::{
        Context, Reply,
        download::{conditional, content::value},
        endpoint::Endpoint,
        message::{body::Body, json::JSON},
        route,
    },
};

/// Every path, with the parameters that `operation` knows.
const PATHS: [&str; 36] = [
    "/v1/files/generate-token",
    "/v1/files/init",
    "/v1/files/part",
    "/v1/files/{uploadId}/parts/{partNumber}",
    "/v1/files/complete",
    "/v1/files/{uploadId}",
    "/v1/files/uploads",
    "/v1/files/content",
    "/v1/files/all",
    "/v1/files/metadata/{key}",
    "/v1/files/content/{key}",
    "/v1/files/storage/{user}/{path}",
    "/v1/files/signed-url",
    "/get/{encodedKey}",
    "/storage/{user}/{path}",
    "/v1/files/batch-download",
    "/v1/files/batch-download/{token}",
    "/api/images/{id}/download",
    "/api/images/{id}/preview",
    "/v1/tus",
    "/v1/tus/{uploadId}",
    "/v1/uploads/{uploadId}",
    "/v1/admin/tokens",
    "/v1/admin/tokens/{token}",
    "/v1/admin/tokens/{token}/rotate",
    "/v1/admin/revocations",
    "/v1/admin/users",
    "/v1/admin/users/{user}",
    "/v1/admin/keys",
    "/v1/admin/keys/rotate",
    "/healthz",
    "/readyz",
    "/.well-known/jwks.json",
    "/openapi.json",
    "/docs",
    "/metrics",
];

const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

static DOCUMENT: LazyLock<Value> = LazyLock::new(build);
static JSON_TEXT: LazyLock<Static> = LazyLock::new(|| Static::new(DOCUMENT.to_string()));
static PAGE: LazyLock<Static> = LazyLock::new(|| Static::new(page::render(&DOCUMENT)));

/// A text that changes only with the version of the daemon.
struct Static {
    text: Bytes,
    /// The entity tag, with its quotes.
    etag: String,
}

impl Static {
    fn new(text: String) -> Self {
        let etag = format!("\"{}\"", blake3::hash(text.as_bytes()).to_hex());
        Self { text: text.into(), etag }
    }

    fn answer(&'static self, headers: &HeaderMap) -> Result<Response<Body>, Error> {
        let mut response = if conditional::is_fresh(headers, &self.etag) {
            Body::empty().answer(StatusCode::NOT_MODIFIED)
        } else {
            Body::full(self.text.clone()).answer(StatusCode::OK)
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, value(&self.etag)?);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }
}

/// The `OpenAPI` document.
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// `GET /openapi.json`.
pub(super) fn openapi(context: &Context) -> Reply {
    let mut response = JSON_TEXT.answer(&context.headers)?;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// `GET /docs`: the document as a page, without scripts or external resources.
pub(super) fn docs(context: &Context) -> Reply {
    let mut response = PAGE.answer(&context.headers)?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, value(&page::policy())?);
    Ok(response)
}

fn build() -> Value {
    let (mut paths, mut used, mut codes) = (Map::new(), BTreeSet::new(), BTreeSet::new());
    codes.extend(operation::ANYWHERE.map(str::to_owned));
    for template in PATHS {
        let mut item = Map::new();
        for (method, endpoint) in routed(template) {
            let described = describe::describe(&endpoint);
            let id = operation_id(&endpoint, &method, template, &mut used);
            let path = operation::in_path(template);
            let object = described.object(&id, method.as_str(), path, endpoint.access());
            collect_codes(&object, &mut codes);
            item.insert(method.as_str().to_ascii_lowercase(), object);
        }
        paths.insert(template.to_owned(), item.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "streamlined",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A self-contained file daemon.",
            "description": describe::INTRODUCTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": describe::tags(),
        "paths": paths,
        "components": schemas::components(&codes),
    })
}

/// The endpoints that the router finds for a path, by method.
fn routed(template: &str) -> impl Iterator<Item = (Method, Endpoint)> {
    let path = operation::sample(template);
    METHODS.into_iter().filter_map(move |method| {
        let endpoint = route::route(&method, &path).ok()?;
        Some((method, endpoint))
    })
}

/// The endpoint's name, made unique by its method and the last word of its path.
fn operation_id(
    endpoint: &Endpoint,
    method: &Method,
    template: &str,
    used: &mut BTreeSet<String>,
) -> String {
    let name = format!("{endpoint:?}");
    // The command inside `Admin` has a name of its own.
    let name = name.strip_prefix("Admin(").unwrap_or(&name);
    let name = name.split([' ', '(', '{', ')']).next().unwrap_or_default();
    let mut id = name[..1].to_ascii_lowercase() + &name[1..];
    if *method == Method::HEAD {
        id = format!("head{name}");
    }
    if !used.insert(id.clone()) {
        let last = template.rsplit('/').next().unwrap_or_default();
        id = format!("{id}_{last}");
        used.insert(id.clone());
    }
    id
}

fn collect_codes(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            let codes = members.get("code").and_then(|code| code["enum"].as_array());
            let codes = codes.into_iter().flatten().filter_map(Value::as_str);
            found.extend(codes.map(str::to_owned));
            members.values().for_each(|member| collect_codes(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_codes(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
