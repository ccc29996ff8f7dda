//! `/healthz`, `/readyz` and the key set.

use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, HeaderValue},
};
use serde_json::json;

use super::{Context, Reply, message::json::reply};

pub async fn health(context: &Context) -> Reply {
    let health = context.app.health().await;
    let writable = health.writable();
    let (status, word) = if writable {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    #[expect(clippy::cast_precision_loss, reason = "hundredths of a gigabyte")]
    let free_gb = (health.free_bytes as f64 / 1e7).round() / 100.0;
    let answer = json!({
        "status": word,
        "disk_free_gb": free_gb,
        "writable": writable,
        "stores": { "index": state(health.index), "blobs": state(health.blobs) },
        "version": env!("CARGO_PKG_VERSION"),
        "damaged_blobs": health.content.as_ref().map(|content| content.damaged_blobs),
        "scrub": health.content.map(|content| json!({
            "last_completed": content.scrub_completed.map(|at| at.to_string()),
            "running": content.scrub_running,
            "overdue": content.scrub_overdue,
        })),
    });
    reply(status, &answer)
}

/// Why a store takes no writes is not told here: the operator finds the reason in the log.
fn state(writable: bool) -> &'static str {
    if writable { "ok" } else { "read_only" }
}

/// Keys change rarely and old ones stay listed, so caches may keep the answer for five minutes.
pub fn key_set(context: &Context) -> Reply {
    let mut response = reply(StatusCode::OK, &context.app.public_keys())?;
    let cache = HeaderValue::from_static("public, max-age=300");
    response.headers_mut().insert(CACHE_CONTROL, cache);
    Ok(response)
}
