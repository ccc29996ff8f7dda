//! Which texts can be tokens, and which can be the name of a service.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::limits::{NAME_BYTES_MAX, OPAQUE_TOKEN_BYTES_MAX, OPAQUE_TOKEN_BYTES_MIN};

/// Whether an opaque token that was made elsewhere may be registered. It must consist of visible
/// ASCII characters, which any client can send in a header, and its length must be within the
/// bounds. It must not be a JWT: a JWT would be good for what it claims before it is registered,
/// and for everything afterwards.
pub fn is_acceptable_token(token: &str) -> bool {
    (OPAQUE_TOKEN_BYTES_MIN..=OPAQUE_TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic())
        && !is_jwt(token)
}

/// Whether a text has the compact form of a JWT: three segments, the first of them a JSON object.
pub fn is_jwt(text: &str) -> bool {
    let mut segments = text.split('.');
    let header = segments.next().filter(|_| segments.by_ref().count() == 2);
    let header = header.and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    header.is_some_and(|header| serde_json::from_slice::<Map<String, Value>>(&header).is_ok())
}

/// Whether a service may have this name. The name can also identify the service's token in a path.
pub fn is_service_name(name: &str) -> bool {
    !name.ends_with("/rotate")
        && !name.trim().is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.chars().any(char::is_control)
}
