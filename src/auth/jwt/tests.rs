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
    let (roles, exp) = ("service", NOW + 9);
    let claims = ServiceClaims { sub: "s", roles, iat: NOW, exp, jti: "j", limited: false };
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

/// RFC 8725 section 2.1: the public key, which everybody has, is used as the secret of an HMAC.
#[test]
fn the_public_key_is_no_secret_of_ours() {
    let key = RING.0.signer(UnixMillis(NOW * 1000)).unwrap();
    let n = URL_SAFE_NO_PAD.decode(&key.n).unwrap();
    for secret in [key.n.as_bytes(), &n, key.kid.as_bytes(), b""] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let mut header = Header::new(algorithm);
            header.kid = Some(key.kid.clone());
            let secret = jsonwebtoken::EncodingKey::from_secret(secret);
            let token = jsonwebtoken::encode(&header, &user_claims(), &secret).unwrap();
            assert_eq!(check(&token), Err(Refused::Header));
            // The same signature under a header that names the algorithm that we accept.
            let (message, signature) = token.rsplit_once('.').unwrap();
            let payload = message.split_once('.').unwrap().1;
            let header = segment(&format!(r#"{{"alg":"RS256","kid":"{}"}}"#, key.kid));
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(check(&token), Err(Refused::Signature));
        }
    }
}

/// A token signed with the sender's own key is refused, even if it contains that key or its
/// location.
#[test]
fn a_key_that_comes_with_the_token_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let own = KeyRing::open(dir.path()).unwrap().signer(UnixMillis(NOW * 1000)).unwrap();
    let (n, e, kid) = (&own.n, &own.e, &own.kid);
    let ours = &RING.0.signer(UnixMillis(NOW * 1000)).unwrap().kid;
    let forge = |members: &str| {
        let header = format!(r#"{{"alg":"RS256",{members}}}"#);
        let message = format!("{}.{}", segment(&header), segment(&user_claims().to_string()));
        let signed = crypto::sign(message.as_bytes(), &own.private, Algorithm::RS256).unwrap();
        check(&format!("{message}.{signed}"))
    };
    let jwk = format!(r#""jwk":{{"kty":"RSA","n":"{n}","e":"{e}","kid":"{kid}"}}"#);
    let places = r#""jku":"https://evil.example/keys","x5u":"https://evil.example/c","x5c":["AA"]"#;
    for (members, refusal) in [
        (jwk.clone(), Refused::Signature),
        (format!(r#""kid":"{kid}",{jwk}"#), Refused::UnknownKey),
        (format!(r#""kid":"{ours}",{jwk}"#), Refused::Signature),
        (places.to_owned(), Refused::Signature),
        (format!(r#""kid":"{ours}",{places}"#), Refused::Signature),
    ] {
        assert_eq!(forge(&members), Err(refusal), "{members}");
    }
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let payload = user_claims().to_string();
    for kid in [
        r#""../keys/x""#,
        r#""/dev/null""#,
        r#""' OR 1=1 --""#,
        r#""x|id""#,
        r#""\u0000""#,
        "\"%s\"",
        r#"" ""#,
    ] {
        let token = signed(&format!(r#"{{"alg":"RS256","kid":{kid}}}"#), &payload);
        assert_eq!(check(&token), Err(Refused::UnknownKey), "{kid}");
    }
    for kid in ["7", "[]", "{}", "true"] {
        let token = signed(&format!(r#"{{"alg":"RS256","kid":{kid}}}"#), &payload);
        assert_eq!(check(&token), Err(Refused::Claims), "{kid}");
    }
}

/// One token has one text: other encodings of the same bytes are refused.
#[test]
fn base64_has_one_form() {
    // A payload whose last character has bits to spare.
    let good = (0..9)
        .map(|n| token(&with(user_claims(), "pad", json!("x".repeat(n)))))
        .find(|token| token.split('.').nth(1).unwrap().len() % 4 == 2)
        .unwrap();
    assert!(check(&good).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let respelt = |part: &str| {
        let (kept, last) = part.split_at(part.len() - 1);
        let next = char::from(last.as_bytes()[0] + 1);
        format!("{kept}{next}")
    };
    let spellings = [
        format!("{}.{}.{}", parts[0], respelt(parts[1]), parts[2]),
        format!("{}.{}=.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}==.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}==", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], respelt(parts[2])),
        format!("{}.{}.{}", parts[0], parts[1], parts[2].replace(['-', '_'], "+")),
        format!("{}\n.{}.{}", parts[0], parts[1], parts[2]),
        format!(" {good}"),
        format!("{good}."),
        format!("{good}.{}", parts[2]),
    ];
    for spelling in spellings.iter().filter(|spelling| **spelling != good) {
        assert!(check(spelling).is_err(), "{spelling}");
    }
}

#[test]
fn members_that_come_twice_are_refused_wherever_they_stand() {
    let header = r#"{"alg":"RS256"}"#;
    let claims = user_claims().to_string();
    for (name, value) in [
        ("exp", json!(NOW + 60)),
        ("user_id", json!("root")),
        ("roles", json!("service")),
        ("iss", json!("us")),
        ("aud", json!("them")),
    ] {
        let first = claims.replacen('{', &format!(r#"{{"{name}":{value},"#), 1);
        let last = format!(r#"{},"{name}":{value}}}"#, &claims[..claims.len() - 1]);
        for twice in [first, last] {
            assert_eq!(check(&signed(header, &twice)), Err(Refused::Claims), "{twice}");
        }
    }
    for header in [
        r#"{"alg":"RS256","alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"RS256","typ":"JWT","typ":"JWT"}"#,
    ] {
        assert_eq!(check(&signed(header, &claims)), Err(Refused::Claims), "{header}");
    }
}

#[test]
fn members_without_their_names_are_none() {
    let header = r#"{"alg":"RS256"}"#;
    let payload = format!(r#" ["s",null,"service",null,null,{},{NOW},{NOW},null]"#, NOW + 60);
    assert_eq!(check(&signed(header, &payload)), Err(Refused::Claims));
    let payload = user_claims().to_string();
    assert_eq!(check(&signed(r#"["RS256",null,null]"#, &payload)), Err(Refused::Claims));
}

#[test]
fn a_clock_that_steps_back_lets_nothing_early_through() {
    let early = token(&with(user_claims(), "nbf", json!(NOW)));
    let fresh = token(&with(user_claims(), "iat", json!(NOW)));
    let at = |token: &str, second: u64| {
        verify(token, &RING.0, &expected(), UnixMillis(second * 1000)).map(drop)
    };
    for token in [early, fresh] {
        assert_eq!(at(&token, NOW), Ok(()));
        assert_eq!(at(&token, NOW - CLOCK_LEEWAY_SECONDS), Ok(()));
        assert_eq!(at(&token, NOW - CLOCK_LEEWAY_SECONDS - 1), Err(Refused::NotYet));
        assert_eq!(at(&token, NOW + 59), Ok(()));
        assert_eq!(at(&token, NOW + 60), Err(Refused::Expired), "by not even a second");
    }
}

#[test]
fn what_a_text_says_of_itself_is_read_without_a_signature() {
    let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let token = |payload: &str| format!("{}.{}.x", encode(r#"{"alg":"none"}"#), encode(payload));
    let said = |payload: &str| read_unverified(&token(payload));
    assert_eq!(said(r#"{"jti":"j","exp":1}"#), Said::Token(Some("j".into())));
    for payload in ["{}", r#"{"jti":""}"#, r#"{"jti":7}"#, r#"{"jti":null}"#, "[]", "x"] {
        assert_eq!(said(payload), Said::Token(None), "{payload}");
    }
    let whole = token("{}");
    for other in ["", "j", "a.b.c", "..", "e30", "e30.e30", &format!("{whole}.x"), "slt_00"] {
        assert_eq!(read_unverified(other), Said::NoToken, "{other}");
    }
}
