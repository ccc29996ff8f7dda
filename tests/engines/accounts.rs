//! Users and service tokens on every engine: pages, changes, removal and expiry.

use streamlined::{
    meta::{
        Asker, Error, NewFile, Removal,
        accounts::{Edit, Holder, ServiceToken, TokenKind, TokenState, TokenUse, UserChange},
    },
    model::{grant::Grant, id::TokenId, name::UserId, principal::Role, time::UnixMillis},
};

use crate::{
    metadata::{NOW, QUOTA, on_every_engine},
    records::{file, key, new_file, upload, upload_id, user},
};

pub fn token(n: u8) -> ServiceToken {
    ServiceToken {
        digest: [n; 32],
        kind: if n.is_multiple_of(2) {
            TokenKind::Opaque
        } else {
            TokenKind::Jwt { jti: format!("jti{n}").into() }
        },
        name: format!("s{n}").into(),
        grant: Grant::parse(["read", "user:a*", "folder:x/y"], ["10.0.0.0/8"]).unwrap(),
        created: NOW,
        expires: n.is_multiple_of(3).then_some(UnixMillis(500)),
        state: TokenState::Active,
    }
}

fn id(n: u8) -> TokenId {
    TokenId([n; 8])
}

#[test]
fn tokens_are_listed_superseded_and_revoked() {
    on_every_engine(async |meta| {
        for n in [4, 1, 3, 2] {
            meta.add_service_token(token(n)).await.unwrap();
        }
        let list = async |after, limit| meta.service_tokens(after, limit).await.unwrap();
        assert_eq!(list(None, 9).await, [1, 2, 3, 4].map(token));
        assert_eq!(list(Some(id(2)), 1).await, [token(3)]);
        assert_eq!(meta.service_token_by_id(id(2)).await, Ok(Some(token(2))));
        assert_eq!(meta.service_token_by_id(id(9)).await, Ok(None));

        let until = UnixMillis(90);
        let state = async |n| meta.service_token_by_id(id(n)).await.unwrap().unwrap().state;
        let supersede = async |n, by| meta.supersede_service_token(id(n), until, token(by)).await;
        assert_eq!(supersede(1, 2).await, Err(Error::Exists), "and the one before stays");
        assert_eq!(state(1).await, TokenState::Active);
        assert_eq!(supersede(1, 5).await, Ok(()));
        assert_eq!(state(1).await, TokenState::Superseded { until });
        assert_eq!(meta.service_token(&[5; 32]).await, Ok(Some(token(5))));
        assert_eq!(supersede(1, 6).await, Err(Error::Changed));
        assert_eq!(supersede(9, 6).await, Err(Error::NotFound));
        assert_eq!(meta.service_token(&[6; 32]).await, Ok(None));

        let revoked = TokenState::Revoked { at: UnixMillis(70) };
        let revoke = async |n, at| meta.revoke_service_token(id(n), UnixMillis(at)).await;
        assert_eq!(revoke(1, 70).await.unwrap().state, revoked);
        assert_eq!(revoke(1, 80).await.unwrap().state, revoked);
        assert_eq!(state(1).await, revoked);
        assert_eq!(revoke(9, 70).await, Err(Error::NotFound));
        assert_eq!(supersede(1, 6).await, Err(Error::Changed));
    });
}

#[test]
fn the_first_second_of_good_tokens_never_moves_back() {
    on_every_engine(async |meta| {
        let long = "s".repeat(5_000);
        let anna = UserId::parse("anna").unwrap();
        let holders = [
            Holder::Services,
            Holder::Service("anna"),
            Holder::Service(&long),
            Holder::User(&anna),
        ];
        for (n, holder) in holders.into_iter().enumerate() {
            assert_eq!(meta.tokens_valid_from(holder).await, Ok(0));
            meta.end_tokens(holder, 10 + n as u64).await.unwrap();
            meta.end_tokens(holder, 5).await.unwrap();
        }
        for (n, holder) in holders.into_iter().enumerate() {
            assert_eq!(meta.tokens_valid_from(holder).await, Ok(10 + n as u64));
        }
        assert_eq!(meta.tokens_valid_from(Holder::Service("other")).await, Ok(0));
    });
}

#[test]
fn uses_are_recorded_in_batches() {
    on_every_engine(async |meta| {
        let used = |at, from: &str| TokenUse { at: UnixMillis(at), from: from.parse().unwrap() };
        assert_eq!(meta.token_use(id(1)).await, Ok(None));
        let batch = vec![(id(1), used(5, "10.0.0.1")), (id(2), used(6, "2001:db8::1"))];
        meta.record_uses(batch).await.unwrap();
        meta.record_uses(vec![(id(1), used(9, "::1"))]).await.unwrap();
        assert_eq!(meta.token_use(id(1)).await, Ok(Some(used(9, "::1"))));
        assert_eq!(meta.token_use(id(2)).await, Ok(Some(used(6, "2001:db8::1"))));
    });
}

#[test]
fn jwts_that_expired_before_a_time_are_forgotten_with_their_uses() {
    on_every_engine(async |meta| {
        // Tokens 3, 6, 9 and 15 expire at 500. Token 6 is opaque: if it were forgotten, its text in
        // a configuration would be registered as a new token.
        for n in [3, 6, 9, 15, 1] {
            meta.add_service_token(token(n)).await.unwrap();
        }
        meta.revoke_service_token(id(1), NOW).await.unwrap();
        meta.revoke_service_token(id(6), NOW).await.unwrap();
        let used = TokenUse { at: NOW, from: "::1".parse().unwrap() };
        meta.record_uses(vec![(id(1), used), (id(3), used)]).await.unwrap();
        let forget = async |before, limit| {
            let forgotten = meta.forget_expired_tokens(UnixMillis(before), limit).await.unwrap();
            (forgotten, meta.service_tokens(None, 9).await.unwrap().len())
        };
        assert_eq!(forget(500, 9).await, (0, 5), "not before their time is over");
        assert_eq!(forget(501, 2).await, (2, 3));
        assert_eq!(forget(501, 2).await, (1, 2));
        assert_eq!(forget(501, 2).await, (0, 2));
        let opaque = meta.service_token_by_id(id(6)).await.unwrap().unwrap();
        assert_eq!(opaque.state, TokenState::Revoked { at: NOW });
        assert_eq!(meta.token_use(id(3)).await, Ok(None));
        assert_eq!(meta.token_use(id(1)).await, Ok(Some(used)), "what never expires stays");
        meta.revoke_service_token(id(1), NOW).await.unwrap();
    });
}

#[test]
fn the_last_record_of_a_token_stays() {
    on_every_engine(async |meta| {
        meta.add_service_token(token(3)).await.unwrap();
        meta.add_service_token(token(9)).await.unwrap();
        assert_eq!(meta.forget_expired_tokens(UnixMillis(501), 9).await, Ok(1));
        assert_eq!(meta.forget_expired_tokens(UnixMillis(501), 9).await, Ok(0));
        assert_eq!(meta.has_service_tokens().await, Ok(true));
    });
}

#[test]
fn users_are_listed_changed_and_removed_once_empty() {
    on_every_engine(async |meta| {
        for n in [3, 1, 2] {
            meta.ensure_user(&user(n), NOW).await.unwrap();
        }
        let ids = async |after: Option<u8>, limit| {
            let after = after.map(user);
            let users = meta.users(after.as_ref(), limit).await.unwrap();
            users.into_iter().map(|user| user.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, 9).await, [1, 2, 3].map(user));
        assert_eq!(ids(Some(1), 1).await, [user(2)]);

        let change = |role, disabled, tokens_valid_from| UserChange {
            role,
            quota: Edit::Set(77),
            disabled,
            private: disabled,
            tokens_valid_from,
        };
        let some = change(Edit::Set(Role::Admin), Some(true), Some(8));
        let changed = meta.change_user(&user(1), some, NOW).await.unwrap();
        assert_eq!((changed.role, changed.quota), (Some(Role::Admin), Some(77)));
        assert!(changed.disabled && changed.private);
        let open = UserChange { private: Some(false), ..UserChange::default() };
        let opened = meta.change_user(&user(1), open, NOW).await.unwrap();
        assert!(opened.disabled && !opened.private);
        let back = UserChange { private: Some(true), ..UserChange::default() };
        meta.change_user(&user(1), back, NOW).await.unwrap();
        assert_eq!(meta.user(&user(1)).await, Ok(Some(changed.clone())));
        assert_eq!(meta.tokens_valid_from(Holder::User(&user(1))).await, Ok(8));
        let kept = meta.change_user(&user(1), UserChange::default(), NOW).await.unwrap();
        assert_eq!(kept, changed);
        let cleared = UserChange { quota: Edit::Clear, ..UserChange::default() };
        assert_eq!(meta.change_user(&user(1), cleared, NOW).await.unwrap().quota, None);
        let made = meta.change_user(&user(9), change(Edit::Keep, None, None), UnixMillis(6)).await;
        assert_eq!(made.unwrap().created, UnixMillis(6));

        meta.record_files(vec![new_file(file(2, 1, 1, 5, 1, 1), 1, None)], NOW, QUOTA)
            .await
            .unwrap();
        assert_eq!(meta.remove_user(&user(2), 9).await, Err(Error::NotEmpty));
        meta.remove_file(&key(2, 1, 1), NOW).await.unwrap();
        meta.create_uploads(vec![upload(1, 2, 5, 50)], None, Asker::Service, NOW, QUOTA)
            .await
            .unwrap();
        assert_eq!(meta.remove_user(&user(2), 9).await, Err(Error::NotEmpty));
        assert_eq!(meta.tokens_valid_from(Holder::User(&user(2))).await, Ok(0));
        meta.remove_upload(upload_id(1), Removal::Open).await.unwrap();
        assert_eq!(meta.remove_user(&user(2), 9).await, Ok(()));
        assert_eq!(meta.remove_user(&user(2), 9).await, Err(Error::NotFound));
        assert_eq!(meta.user(&user(2)).await, Ok(None));
        assert_eq!(meta.tokens_valid_from(Holder::User(&user(2))).await, Ok(9));
    });
}

/// A user's request that was authenticated before the user was locked, logged out or deleted is
/// refused when it reaches the index afterwards.
#[test]
fn who_is_not_let_in_any_more_keeps_nothing_and_does_not_come_back() {
    on_every_engine(async |meta| {
        let owner = |issued| Asker::Owner { issued };
        let put = async |n: u32, by: Asker| {
            let new = new_file(file(1, 1, n, n.into(), 1, 1), 1, None);
            meta.record_files(vec![NewFile { by, ..new }], NOW, QUOTA).await.map(drop)
        };
        let init = async |id: u8, by: Asker| {
            meta.create_uploads(vec![upload(id, 1, 5, 50)], None, by, NOW, QUOTA).await
        };
        // The first file that a user stores creates the user's record.
        put(1, owner(0)).await.unwrap();
        let set = async |change| meta.change_user(&user(1), change, NOW).await.map(drop).unwrap();
        let lock = |disabled| UserChange { disabled: Some(disabled), ..UserChange::default() };
        set(lock(true)).await;
        assert_eq!(put(2, owner(9)).await, Err(Error::LoggedOut));
        assert_eq!(init(2, owner(9)).await, Err(Error::LoggedOut));
        put(3, Asker::Service).await.unwrap();
        set(lock(false)).await;
        set(UserChange { tokens_valid_from: Some(9), ..UserChange::default() }).await;
        assert_eq!(put(4, owner(8)).await, Err(Error::LoggedOut));
        assert_eq!(init(4, owner(8)).await, Err(Error::LoggedOut));
        put(5, owner(9)).await.unwrap();
        for n in [1, 3, 5] {
            meta.remove_file(&key(1, 1, n), NOW).await.unwrap();
        }
        meta.remove_user(&user(1), 12).await.unwrap();
        assert_eq!(put(6, owner(11)).await, Err(Error::LoggedOut));
        assert_eq!(init(6, owner(11)).await, Err(Error::LoggedOut));
        assert_eq!(meta.user(&user(1)).await, Ok(None));
        init(7, owner(12)).await.unwrap();
    });
}
