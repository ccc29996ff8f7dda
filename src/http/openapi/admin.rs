//! What there is to say of `/v1/admin/…`. `docs/API.md` has its members, `docs/TOKENS.md` what
//! they mean.

use serde_json::json;

use super::{describe::ADMIN, operation::Operation};
use crate::http::v1::admin::Command;

pub fn describe(command: &Command) -> Operation {
    let new = |summary| Operation::new(ADMIN, summary);
    let answers = |operation: Operation, status, about| {
        operation.answers_with(status, about, &json!({"application/json": {}}))
    };
    let page = |summary| {
        let limit = json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100});
        answers(new(summary), "200", "A page")
            .query("limit", &limit, "Entries of a page.")
            .query("cursor", &json!({"type": "string"}), "`next_cursor` of the page before.")
            .refuses("400", &["invalid_limit", "invalid_cursor"])
    };
    let known = |operation: Operation| operation.refuses("404", &["not_found"]);
    let token = |summary| known(new(summary)).refuses("409", &["ambiguous_name"]);
    let user = |summary| known(new(summary)).refuses("400", &["invalid_user_id"]);
    let sent = |operation: Operation| operation.json_body("Administered");
    let operation = match command {
        Command::ListTokens => page("List service tokens"),
        Command::CreateToken => answers(sent(new("Make a service token")), "201", "Shown once")
            .refuses("400", &["invalid_token_name", "invalid_expires_in", "invalid_scope"]),
        Command::ShowToken(_) => answers(token("What is known of a token"), "200", "The token"),
        Command::RotateToken(_) => {
            answers(sent(token("Put another in a token's place")), "201", "Shown once")
                .refuses("400", &["invalid_grace"])
                .refuses("409", &["token_ended"])
        }
        Command::RevokeToken(_) => answers(token("Revoke a token"), "200", "Revoked"),
        Command::RevokeMany => answers(sent(known(new("Revoke tokens"))), "200", "Revoked")
            .refuses("400", &["invalid_revocation"]),
        Command::ListUsers => page("List users"),
        Command::ShowUser(_) => answers(user("What is known of a user"), "200", "The user"),
        Command::ChangeUser(_) => answers(sent(user("Change a user")), "200", "The user")
            .refuses("400", &["invalid_role"]),
        Command::DeleteUser(_) => {
            answers(user("Delete a user with its files and uploads"), "200", "Gone")
                .refuses("409", &["user_not_empty"])
        }
        Command::ListKeys => answers(new("List signing keys"), "200", "The keys"),
        Command::ImportKey => answers(sent(new("Take over a key")), "201", "Its id")
            .refuses("400", &["invalid_key"])
            .refuses("409", &["key_exists"]),
        Command::RotateKeys => {
            answers(sent(new("Make a new key")), "201", "Its id").refuses("400", &["invalid_after"])
        }
    };
    operation.refuses("507", &["no_space"])
}
