use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_700_000_000;

static RING: LazyLock<(KeyRing, tempfile::TempDir)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    (KeyRing::open(dir.path()).unwrap(), dir)
});

fn expected() -> Expected {
    Expected { issuer: "us".into(), audience: "them".into() }
}

fn check(token: &str) -> Result<Verified, Refused> {
    verify(token, &RING.0, &expected(), UnixMillis(NOW * 1000))
}

fn user_claims() -> Value {
    json!({"user_id": "u", "roles": "analyst", "iss": "us", "aud": "them", "exp": NOW + 60})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn segment(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

/// Signs any header and payload text with our key.
fn signed(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", segment(header), segment(payload));
    let key = RING.0.signer(UnixMillis(NOW * 1000)).unwrap();
    let signature = crypto::sign(message.as_bytes(), &key.private, Algorithm::RS256).unwrap();
    format!("{message}.{signature}")
}

fn token(claims: &Value) -> String {
    signed(r#"{"alg":"RS256"}"#, &claims.to_string())
}

#[test]
fn a_user_token_speaks_for_its_user() {
    let verified = check(&token(&user_claims())).unwrap();
    let id = UserId::parse("u").unwrap();
    assert_eq!(verified.subject, Subject::User { id: id.clone(), role: Role::Analyst });
    assert_eq!(verified.expires, UnixMillis((NOW + 60) * 1000));
    let many = with(user_claims(), "roles", json!(["viewer", "researcher", "unheard-of"]));
    let role = Role::Researcher;
    assert_eq!(check(&token(&many)).unwrap().subject, Subject::User { id, role });
}

#[test]
fn a_service_token_needs_neither_kid_nor_issuer() {
    let claims = json!({"sub": "classifier", "roles": "service", "exp": NOW + 1, "iat": NOW});
    let subject = Subject::Service { name: "classifier".into() };
    assert_eq!(check(&token(&claims)).unwrap().subject, subject);
    assert_eq!(check(&token(&with(claims, "sub", Value::Null))), Err(Refused::Claims));
}

#[test]
fn what_we_sign_we_accept() {
    let claims = ServiceClaims { sub: "s", roles: "service", iat: NOW, exp: NOW + 9, jti: "j" };
    assert!(check(&sign(&claims, &RING.0, UnixMillis(NOW * 1000), NOW + 9).unwrap()).is_ok());
}

#[test]
fn times_are_numbers_and_hold_to_the_second() {
    for (name, value, outcome) in [
        ("exp", json!(NOW), Err(Refused::Expired)),
        ("exp", json!(NOW - 1), Err(Refused::Expired)),
        ("exp", json!(1_700_000_000.5), Ok(())),
        ("exp", json!((NOW + 60).to_string()), Err(Refused::Claims)),
        ("exp", Value::Null, Err(Refused::Claims)),
        ("exp", json!(true), Err(Refused::Claims)),
        ("nbf", json!(NOW + 60), Ok(())),
        ("nbf", json!(NOW + 61), Err(Refused::NotYet)),
        ("nbf", json!("0"), Err(Refused::Claims)),
        ("nbf", Value::Null, Err(Refused::Claims)),
        ("iat", json!(NOW + 61), Err(Refused::NotYet)),
        ("iat", json!([]), Err(Refused::Claims)),
    ] {
        let claims = with(user_claims(), name, value.clone());
        assert_eq!(check(&token(&claims)).map(drop), outcome, "{name} {value}");
    }
}

#[test]
fn user_tokens_are_for_us_alone() {
    for (name, value) in [
        ("iss", json!("else")),
        ("aud", json!("else")),
        ("aud", json!([])),
        ("iss", Value::Null),
        ("aud", Value::Null),
    ] {
        let claims = with(user_claims(), name, value.clone());
        assert_eq!(check(&token(&claims)), Err(Refused::Audience), "{name} {value}");
    }
    let listed = with(user_claims(), "aud", json!(["other", "them"]));
    assert!(check(&token(&listed)).is_ok());
}

#[test]
fn tricks_with_the_header_fail() {
    let payload = user_claims().to_string();
    let kid = RING.0.signer(UnixMillis(NOW * 1000)).unwrap().kid.clone();
    for (header, outcome) in [
        (format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"JWT"}}"#), Ok(())),
        (r#"{"alg":"none"}"#.into(), Err(Refused::Header)),
        (r#"{"alg":"HS256"}"#.into(), Err(Refused::Header)),
        (r#"{"alg":"rs256"}"#.into(), Err(Refused::Header)),
        (r#"{"alg":"RS256","typ":"receipt+jws"}"#.into(), Err(Refused::Header)),
        (r#"{"alg":"RS256","crit":["b64"],"b64":false}"#.into(), Err(Refused::Header)),
        (r#"{"alg":"RS256","kid":"../../etc/passwd"}"#.into(), Err(Refused::UnknownKey)),
        (r#"{"alg":"RS256","kid":""}"#.into(), Err(Refused::UnknownKey)),
        (r#"{"alg":"none","alg":"RS256"}"#.into(), Err(Refused::Claims)),
        ("[]".into(), Err(Refused::Claims)),
        ("{".into(), Err(Refused::Malformed)),
    ] {
        assert_eq!(check(&signed(&header, &payload)).map(drop), outcome, "{header}");
    }
}

#[test]
fn broken_tokens_fail_without_a_panic() {
    let good = token(&user_claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let other = token(&with(user_claims(), "user_id", json!("root")));
    let (other_message, _) = other.rsplit_once('.').unwrap();
    for bad in ["", ".", "..", "...", "a.b.c", message, &format!("{message}.")] {
        assert!(check(bad).is_err(), "{bad}");
    }
    assert_eq!(check(&format!("{other_message}.{signature}")), Err(Refused::Signature));
    assert_eq!(check(&format!("{good}=")), Err(Refused::Signature));
    assert_eq!(check(&"x".repeat(JWT_BYTES_MAX + 1)), Err(Refused::TooLarge));
    let twice = user_claims().to_string().replacen('{', r#"{"user_id":"root","#, 1);
    assert_eq!(check(&signed(r#"{"alg":"RS256"}"#, &twice)), Err(Refused::Claims));
}
