//! Which pages of other origins may send requests from a browser (Fetch, section 3.3: CORS).
//!
//! Such a page sends a token in a header, never the cookie: no answer allows the browser's own
//! credentials. So a page learns here only what anybody with the token learns.

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
    },
    http::request::Parts,
};

use crate::{http::message::body::Body, model::origins::Origins};

/// How many seconds a browser may cache a preflight answer: the most that Chromium accepts.
const REMEMBERED: HeaderValue = HeaderValue::from_static("7200");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const EVERYTHING: HeaderValue = HeaderValue::from_static("*");

/// The origin that an answer allows to the sender of these headers, if any.
fn allowed(origins: &Origins, headers: &HeaderMap) -> Option<HeaderValue> {
    match origins {
        Origins::None => None,
        // Also sent to clients that are not pages: a cache may use the answer for a page.
        Origins::Any => Some(EVERYTHING),
        Origins::Of(origins) => {
            let origin = headers.get(ORIGIN)?;
            origins.iter().any(|it| it == origin).then(|| origin.clone())
        }
    }
}

/// The answer to a preflight request. It tells nothing about the path.
pub fn preflight(origins: &Origins, head: &Parts) -> Option<Response<Body>> {
    let asks =
        head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    allowed(origins, &head.headers).filter(|_| asks)?;
    let mut response = Body::empty().answer(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Some(wanted) = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, REMEMBERED);
    Some(response)
}

/// The CORS headers of an answer.
pub struct Marks {
    origin: Option<HeaderValue>,
    varies: bool,
}

impl Marks {
    /// The CORS headers of the answer to a request with `headers`.
    pub fn of(origins: &Origins, headers: &HeaderMap) -> Self {
        Self { origin: allowed(origins, headers), varies: matches!(origins, Origins::Of(_)) }
    }

    pub fn put_on(self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EVERYTHING);
        }
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}
