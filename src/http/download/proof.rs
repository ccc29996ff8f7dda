//! Verified ranges: `?proof=RANGE` on every path to content. The answer is a Bao slice. Whoever
//! knows the content's BLAKE3 can check it without the rest ([`crate::app::read`]).

use hyper::{
    Response,
    header::{ACCEPT_RANGES, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};

use crate::{
    app::Error,
    http::{Context, Refusal, Reply, message::body::Body},
    model::{
        file::FileRecord,
        range::{RangeSpec, Slice},
    },
};

const BAO: HeaderValue = HeaderValue::from_static("application/vnd.streamlined.bao");

/// Answers with the proof of `range`: `first-last`, `first-` or `-length`, as in a `Range` header.
pub async fn send(context: &Context, file: &FileRecord, range: &str) -> Reply {
    let detail = "proof must be one range: first-last, first- or -length.";
    let range = RangeSpec::parse(range).ok_or_else(|| Error::invalid("invalid_proof", detail))?;
    // Any range of empty content is the whole.
    let slice = range.resolve(file.size).or((file.size == 0).then(|| Slice::whole(0)));
    let slice = slice.ok_or(Refusal::RangeNotSatisfiable { size: file.size })?;
    let proof = context.app.prove_content(file, slice).await?;
    let mut response = Response::new(Body::reader(proof.reader, proof.bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, BAO);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
