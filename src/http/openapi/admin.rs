//! The description of `/v1/admin/…`, and its shapes. `docs/TOKENS.md` says what they mean.

use serde_json::{Value, json};

use super::{
    describe::ADMIN,
    operation::Operation,
    schemas::{array, object, reference},
};
use crate::{
    http::v1::admin::Command,
    model::{limits::JWT_BYTES_MAX, principal::Role},
};

pub fn describe(command: &Command) -> Operation {
    let new = |summary| Operation::new(ADMIN, summary);
    let page = |summary, schema| {
        let limit = json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100});
        new(summary)
            .answers_json("200", "A page of the list", schema)
            .query("limit", &limit, "Maximum number of entries in a page.")
            .query("cursor", &json!({"type": "string"}), "`next_cursor` of the previous page.")
            .refuses("400", &["invalid_limit", "invalid_cursor"])
    };
    let known = |operation: Operation| operation.refuses("404", &["not_found"]);
    let token = |summary| known(new(summary)).refuses("409", &["ambiguous_name"]);
    let user = |summary| known(new(summary)).refuses("400", &["invalid_user_id"]);
    let operation = match command {
        Command::ListTokens => page("List service tokens", "ServiceTokenList"),
        Command::CreateToken => new("Create a service token")
            .json_body("NewServiceToken")
            .answers_json("201", "The token, which is shown only once", "IssuedServiceToken")
            .refuses("400", &["invalid_token_name", "invalid_expires_in", "invalid_scope"]),
        Command::ShowToken(_) => {
            token("Show a service token").answers_json("200", "The token", "ServiceToken")
        }
        Command::RotateToken(_) => token("Rotate a service token")
            .json_body("TokenRotation")
            .answers_json("201", "The token, which is shown only once", "IssuedServiceToken")
            .refuses("400", &["invalid_grace"])
            .refuses("409", &["token_ended"]),
        Command::RevokeToken(_) => {
            token("Revoke a token").answers_json("200", "The revoked token", "EndedServiceToken")
        }
        Command::RevokeMany => known(new("Revoke a JWT, or all tokens of services"))
            .json_body("Revocation")
            .answers_json("200", "What was revoked", "Revoked")
            .refuses("400", &["invalid_revocation"]),
        Command::ListUsers => page("List users", "UserList"),
        Command::ShowUser(_) => user("Show a user").answers_json("200", "The user", "User"),
        Command::ChangeUser(_) => user("Change a user")
            .json_body("UserChange")
            .answers_json("200", "The user", "User")
            .refuses("400", &["invalid_role"]),
        Command::DeleteUser(_) => user("Delete a user with its files and uploads")
            .answers_json("200", "The user is deleted", "DeletedUser")
            .refuses("409", &["user_not_empty"]),
        Command::ListKeys => new("List signing keys").answers_json("200", "The keys", "KeyList"),
        Command::ImportKey => new("Import a signing key")
            .json_body("KeyImport")
            .answers_json("201", "The id of the key", "NewKey")
            .refuses("400", &["invalid_key"])
            .refuses("409", &["key_exists"]),
        Command::RotateKeys => new("Rotate the signing key or the link key")
            .json_body("KeyRotation")
            .answers_json("201", "The new key", "NewKey")
            .refuses("400", &["invalid_after"]),
    };
    operation.refuses("507", &["no_space"])
}

/// The shapes that `/v1/admin/…` accepts and returns.
pub fn schemas() -> Value {
    let text = json!({"type": "string"});
    let texts = array(&text);
    let seconds = json!({"type": "integer", "minimum": 0});
    let time = reference("Time");
    let perhaps = |schema: &Value| json!({"anyOf": [schema, {"type": "null"}]});
    let role = json!({"enum": Role::ALL[..4].iter().map(|role| role.as_str()).collect::<Vec<_>>()});
    // Unknown members are refused: one may be a misspelt limit.
    let sent = |properties: Value, required: &[&str]| {
        json!({
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        })
    };
    let token = json!({
        "id": text, "name": text, "kind": {"enum": ["opaque", "jwt"]}, "scopes": texts,
        "allow_ip": texts, "created": time, "expires": perhaps(&time), "jti": text,
    });
    let with = |more: Value| {
        let mut members = token.clone();
        if let (Value::Object(members), Value::Object(more)) = (&mut members, more) {
            members.extend(more);
        }
        members
    };
    let standing = ["active", "superseding", "superseded", "expired", "revoked"];
    let shown = with(json!({
        "state": {"enum": standing}, "last_used": perhaps(&time), "last_used_from": perhaps(&text),
        "superseded_until": time, "revoked": time,
    }));
    let mut gone = shown.clone();
    gone["ended"] = texts.clone();
    let issued = with(json!({"token": text, "previous_until": time}));
    let user = json!({
        "id": reference("UserId"), "created": time, "role": perhaps(&role),
        "quota": perhaps(&reference("Size")), "disabled": {"type": "boolean"},
        "private": {"type": "boolean"}, "files": reference("Size"), "bytes": reference("Size"),
        "reserved": reference("Size"), "tokens_valid_from": perhaps(&time),
    });
    let key = json!({
        "kid": text, "signs": {"type": "boolean"}, "signs_from": perhaps(&time),
        "last_expiry": perhaps(&time),
    });
    let page = |name: &str, of: &str| {
        let members = json!({name: array(&reference(of)), "next_cursor": text});
        object(&members, &["next_cursor"])
    };
    let ended = json!({"tokens_revoked": perhaps(&reference("Size")), "tokens_valid_from": time});
    let ended = object(&ended, &[]);
    let longest = json!({"type": ["string", "null"], "maxLength": JWT_BYTES_MAX});
    json!({
        "NewServiceToken": sent(
            json!({
                "name": {"type": "string", "minLength": 1, "maxLength": 255},
                "kind": perhaps(&json!({"enum": ["opaque", "jwt"]})),
                "expires_in": perhaps(&seconds), "scopes": texts, "allow_ip": texts,
            }),
            &["name"],
        ),
        "TokenRotation": sent(json!({"grace": perhaps(&seconds)}), &[]),
        "Revocation": sent(
            json!({
                "jti": longest, "service": longest, "all": {"type": "boolean"},
                "before": perhaps(&seconds),
            }),
            &[],
        ),
        "UserChange": sent(
            json!({
                "role": perhaps(&role), "quota": perhaps(&reference("Size")),
                "disabled": {"type": ["boolean", "null"]},
                "private": {"type": ["boolean", "null"]}, "log_out": {"type": "boolean"},
            }),
            &[],
        ),
        "KeyImport": sent(json!({"pem": text}), &["pem"]),
        "KeyRotation": sent(json!({"after": perhaps(&seconds), "links": {"type": "boolean"}}), &[]),
        "ServiceToken": object(&shown, &["jti", "superseded_until", "revoked"]),
        "EndedServiceToken": object(&gone, &["jti", "superseded_until"]),
        "IssuedServiceToken": object(&issued, &["jti", "previous_until"]),
        "ServiceTokenList": page("tokens", "ServiceToken"),
        "Revoked": {"oneOf": [reference("ServiceToken"), ended]},
        "User": object(&user, &[]),
        "UserList": page("users", "User"),
        "DeletedUser": object(
            &json!({"status": {"const": "deleted"}, "id": reference("UserId")}), &[],
        ),
        "KeyList": object(&json!({"keys": array(&object(&key, &[]))}), &[]),
        "NewKey": object(
            &json!({"kid": text, "signs_in": {"type": "integer"}, "links": {"const": "rotated"}}),
            &["kid", "signs_in", "links"],
        ),
    })
}
