//! Bounded JSON in, JSON out.

use std::{
    fmt::{self, Display},
    marker::PhantomData,
    ops::RangeInclusive,
};

use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use crate::{
    app::Error,
    http::{
        Reply,
        message::{
            body::{Body, RequestBody},
            inline,
        },
    },
    model::limits::{JSON_BYTES_MAX, JSON_DEPTH_MAX},
};

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Reads an object from a body that is small by its nature. Unknown members are ignored, unless `T`
/// denies them.
///
/// # Errors
/// [`Error::TooLarge`] past 1 MiB, [`Error::Invalid`] for anything but the expected JSON.
pub async fn read<T: DeserializeOwned>(body: RequestBody) -> Result<T, Error> {
    parse(&collect(body).await?)
}

/// As [`read`], for a body that may be empty, which stands for the default.
///
/// # Errors
/// As [`read`].
pub async fn read_optional<T: DeserializeOwned + Default>(body: RequestBody) -> Result<T, Error> {
    let document = collect(body).await?;
    if document.is_empty() { Ok(T::default()) } else { parse(&document) }
}

fn parse<T: DeserializeOwned>(document: &[u8]) -> Result<T, Error> {
    if depth(document) > JSON_DEPTH_MAX {
        return Err(Error::invalid("json_too_deep", inline::Refused::TooDeep.to_string()));
    }
    // serde checks only the strings that it keeps, so the whole document is checked here.
    let document = str::from_utf8(document).map_err(|_| invalid(inline::NOT_UTF_8))?;
    let object = serde_json::from_str(document).map_err(|error| invalid(&error.to_string()));
    object.map(|Object(members)| members)
}

/// Writes a value as the text that it displays, for `#[serde(serialize_with)]`.
pub fn shown<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// How deep a document is nested. serde looks only at the members that it keeps, and skips the
/// others.
pub fn depth(document: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in document {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

async fn collect(mut body: RequestBody) -> Result<Vec<u8>, Error> {
    let mut document = Vec::new();
    while let Some(bytes) = body.next().await? {
        if document.len() + bytes.len() > JSON_BYTES_MAX {
            return Err(Error::TooLarge { what: "JSON body", limit: JSON_BYTES_MAX as u64 });
        }
        document.extend_from_slice(&bytes);
    }
    Ok(document)
}

/// A struct that is written as a JSON object. serde would also accept an array of its members, in
/// which the content that streams past could not be found.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        json.deserialize_map(Members(PhantomData))
    }
}

/// Members with names that the client chooses, each at most once: of two members with one name,
/// another reader could take the other.
#[derive(Default)]
pub struct Members(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members, A::Error> {
                let mut read = Map::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if read.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member is named twice"));
                    }
                }
                Ok(Members(read))
            }
        }

        json.deserialize_map(Each)
    }
}

/// A whole number. `1.0` is one too, for JSON Schema and for the clients that print it.
#[derive(Clone, Copy)]
pub struct Whole(pub u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
                // Past 2^53 a float may stand for more than one whole number.
                const EXACT: RangeInclusive<f64> = 0.0..=9_007_199_254_740_992.0;
                #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
                #[expect(clippy::cast_sign_loss, reason = "not below zero")]
                let whole = Whole(number as u64);
                let is_whole = EXACT.contains(&number) && number.fract() == 0.0;
                if is_whole {
                    Ok(whole)
                } else {
                    Err(E::invalid_type(de::Unexpected::Float(number), &self))
                }
            }
        }

        json.deserialize_any(Number)
    }
}

pub fn invalid(why: &str) -> Error {
    Error::invalid("invalid_json", format!("The body is not the expected JSON: {why}."))
}

/// # Errors
/// [`Error::Internal`] for a value that has no JSON form.
pub fn reply(status: StatusCode, value: &impl Serialize) -> Reply {
    let json = serde_json::to_vec(value).map_err(|error| Error::Internal(error.to_string()))?;
    let mut response = Body::full(json).answer(status);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    // Answers concern one caller and change with every upload.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
