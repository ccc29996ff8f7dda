//! Users and service tokens on sled: pages, steps, and the stored form of tokens.

use async_trait::async_trait;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::Deserialize;

use super::{
    SledMetadata,
    codec::{self, FolderNode, StoredUser},
    index,
    records::Records,
    runs::Entry,
    step,
    txn::Txn,
};
use crate::{
    meta::{
        Error, Result,
        accounts::{
            Accounts, Holder, ServiceToken, TokenKind, TokenState, TokenUse, UserChange, UserRecord,
        },
    },
    model::{
        grant::Grant,
        id::TokenId,
        name::{Folder, UserId},
        time::UnixMillis,
    },
};

/// Version of a token's record. Version 1 held an opaque token's digest, name and creation time.
const TOKEN_VERSION: u8 = 2;

#[derive(Deserialize)]
struct FirstToken {
    digest: [u8; 32],
    name: Box<str>,
    created: UnixMillis,
}

fn encode_token(token: &ServiceToken) -> Result<Vec<u8>> {
    codec::encode_as(TOKEN_VERSION, token)
}

/// # Errors
/// [`Error::Corrupt`] for any bytes that no version of this program wrote.
pub fn decode_token(bytes: &[u8]) -> Result<ServiceToken> {
    if let Some((&TOKEN_VERSION, record)) = bytes.split_first() {
        return codec::decode_body(record);
    }
    let FirstToken { digest, name, created } = codec::decode(bytes)?;
    Ok(ServiceToken {
        digest,
        kind: TokenKind::Opaque,
        name,
        grant: Grant::default(),
        created,
        expires: None,
        state: TokenState::Active,
    })
}

fn add_token(txn: &mut Txn<'_>, token: &ServiceToken) -> Result<()> {
    let key = index::token(token.id());
    if txn.read(&key)?.is_some() {
        return Err(Error::Exists);
    }
    txn.write(key, encode_token(token)?);
    Ok(())
}

fn token(txn: &Txn<'_>, id: TokenId) -> Result<ServiceToken> {
    decode_token(&txn.read(&index::token(id))?.ok_or(Error::NotFound)?)
}

fn supersede(
    txn: &mut Txn<'_>,
    id: TokenId,
    until: UnixMillis,
    successor: &ServiceToken,
) -> Result<()> {
    let mut token = token(txn, id)?;
    if token.state != TokenState::Active {
        return Err(Error::Changed);
    }
    add_token(txn, successor)?;
    token.state = TokenState::Superseded { until };
    txn.write(index::token(id), encode_token(&token)?);
    Ok(())
}

fn revoke(txn: &mut Txn<'_>, id: TokenId, at: UnixMillis) -> Result<ServiceToken> {
    let mut token = token(txn, id)?;
    if !matches!(token.state, TokenState::Revoked { .. }) {
        token.state = TokenState::Revoked { at };
        txn.write(index::token(id), encode_token(&token)?);
    }
    Ok(token)
}

fn end_tokens(txn: &mut Txn<'_>, key: Vec<u8>, valid_from: u64) -> Result<()> {
    if txn.get::<u64>(&key)?.unwrap_or(0) < valid_from {
        txn.put(key, &valid_from)?;
    }
    Ok(())
}

fn change_user(
    txn: &mut Txn<'_>,
    id: &UserId,
    change: &UserChange,
    now: UnixMillis,
) -> Result<UserRecord> {
    let mut user = step::ensure_user(txn, id, now)?;
    change.apply(&mut user);
    txn.put(index::user(id), &StoredUser::new(&user))?;
    if let Some(valid_from) = change.tokens_valid_from {
        end_tokens(txn, index::valid_from(Holder::User(id)), valid_from)?;
    }
    Ok(user)
}

fn remove_user(txn: &mut Txn<'_>, id: &UserId, valid_from: u64) -> Result<()> {
    txn.read(&index::user(id))?.ok_or(Error::NotFound)?;
    let files = txn.get::<FolderNode>(&index::folder(id, &Folder::default()))?;
    if files.is_some() || !txn.scan(&index::open_of(id))?.is_empty() {
        return Err(Error::NotEmpty);
    }
    txn.delete(index::user(id));
    end_tokens(txn, index::valid_from(Holder::User(id)), valid_from)
}

#[async_trait]
impl Accounts for SledMetadata {
    async fn user(&self, id: &UserId) -> Result<Option<UserRecord>> {
        let stored = self.records.get::<StoredUser>(&index::user(id))?;
        Ok(stored.map(|stored| stored.into_record(id.clone())))
    }

    async fn ensure_user(&self, id: &UserId, now: UnixMillis) -> Result<UserRecord> {
        if let Some(user) = self.user(id).await? {
            return Ok(user);
        }
        let id = id.clone();
        self.committer.commit(move |txn| step::ensure_user(txn, &id, now)).await
    }

    async fn users(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<UserRecord>> {
        let after = after.map(index::user);
        let scan = move |records: &Records| {
            let decode = |(key, value): Entry| {
                let id = index::user_id(&key);
                let id = id.ok_or_else(|| Error::Corrupt("a user's key".into()))?;
                Ok(codec::decode::<StoredUser>(&value)?.into_record(id))
            };
            records.page(index::USERS, after.as_deref(), limit)?.into_iter().map(decode).collect()
        };
        self.scan(scan).await
    }

    async fn change_user(
        &self,
        id: &UserId,
        change: UserChange,
        now: UnixMillis,
    ) -> Result<UserRecord> {
        let id = id.clone();
        self.committer.release(move |txn| change_user(txn, &id, &change, now)).await
    }

    async fn remove_user(&self, id: &UserId, valid_from: u64) -> Result<()> {
        let id = id.clone();
        self.committer.release(move |txn| remove_user(txn, &id, valid_from)).await
    }

    async fn service_token(&self, digest: &[u8; 32]) -> Result<Option<ServiceToken>> {
        let token = self.service_token_by_id(TokenId::of(digest)).await?;
        Ok(token.filter(|token| verify_slices_are_equal(&token.digest, digest).is_ok()))
    }

    async fn add_service_token(&self, token: ServiceToken) -> Result<()> {
        // Every start adds the configured token, also on a full disk, which takes no step for it.
        if self.records.contains_key(&index::token(token.id()))? {
            return Err(Error::Exists);
        }
        self.committer.commit(move |txn| add_token(txn, &token)).await
    }

    async fn has_service_tokens(&self) -> Result<bool> {
        let first = self.records.scan_prefix(index::TOKENS).next();
        first.transpose().map(|first| first.is_some())
    }

    async fn service_token_by_id(&self, id: TokenId) -> Result<Option<ServiceToken>> {
        let bytes = self.records.read(&index::token(id))?;
        bytes.map(|bytes| decode_token(&bytes)).transpose()
    }

    async fn service_tokens(
        &self,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<ServiceToken>> {
        let after = after.map(index::token);
        let scan = move |records: &Records| {
            let tokens = records.page(index::TOKENS, after.as_deref(), limit)?;
            tokens.iter().map(|(_, value)| decode_token(value)).collect()
        };
        self.scan(scan).await
    }

    async fn supersede_service_token(
        &self,
        id: TokenId,
        until: UnixMillis,
        successor: ServiceToken,
    ) -> Result<()> {
        self.committer.commit(move |txn| supersede(txn, id, until, &successor)).await
    }

    async fn revoke_service_token(&self, id: TokenId, at: UnixMillis) -> Result<ServiceToken> {
        self.committer.release(move |txn| revoke(txn, id, at)).await
    }

    async fn tokens_valid_from(&self, holder: Holder<'_>) -> Result<u64> {
        Ok(self.records.get(&index::valid_from(holder))?.unwrap_or(0))
    }

    async fn end_tokens(&self, holder: Holder<'_>, valid_from: u64) -> Result<()> {
        let key = index::valid_from(holder);
        self.committer.release(move |txn| end_tokens(txn, key, valid_from)).await
    }

    async fn token_use(&self, id: TokenId) -> Result<Option<TokenUse>> {
        self.records.get(&index::token_use(id))
    }

    async fn record_uses(&self, uses: Vec<(TokenId, TokenUse)>) -> Result<()> {
        let record = move |txn: &mut Txn<'_>| {
            uses.iter().try_for_each(|(id, used)| txn.put(index::token_use(*id), used))
        };
        self.committer.commit(record).await
    }

    async fn forget_expired_tokens(&self, before: UnixMillis, limit: usize) -> Result<usize> {
        let scan = move |records: &Records| {
            let (mut expired, mut stay) = (Vec::new(), 0);
            for entry in records.scan_prefix(index::TOKENS) {
                let token = decode_token(&entry?.1)?;
                if token.may_be_forgotten(before) && expired.len() < limit {
                    expired.push(token.id());
                } else {
                    stay += 1;
                }
            }
            if stay == 0 {
                expired.pop();
            }
            Ok(expired)
        };
        let expired = self.scan(scan).await?;
        if expired.is_empty() {
            return Ok(0);
        }
        let forget = move |txn: &mut Txn<'_>| {
            for id in &expired {
                txn.delete(index::token(*id));
                txn.delete(index::token_use(*id));
            }
            Ok(expired.len())
        };
        self.committer.reclaim(forget).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        meta::{Selection, upkeep::ScrubPass},
        model::id::FileId,
    };

    #[test]
    fn a_token_of_the_first_version_is_read() {
        // Version, digest, name, creation: as `codec::encode` wrote it until tokens had more.
        let mut bytes = vec![1];
        bytes.extend([7; 32]);
        bytes.extend([1, b's', 0xe8, 0x07]);
        let token = decode_token(&bytes).unwrap();
        let wanted = ServiceToken {
            digest: [7; 32],
            kind: TokenKind::Opaque,
            name: "s".into(),
            grant: Grant::default(),
            created: UnixMillis(1000),
            expires: None,
            state: TokenState::Active,
        };
        assert_eq!(token, wanted);
        assert_eq!(decode_token(&encode_token(&wanted).unwrap()), Ok(wanted));
        for bad in [&bytes[..bytes.len() - 1], &[], &[2], &[3, 0]] {
            assert!(decode_token(bad).is_err());
        }
    }

    #[test]
    fn what_is_stored_as_it_stands_keeps_its_bytes() {
        let at = UnixMillis(300);
        let states = [TokenState::Superseded { until: at }, TokenState::Revoked { at }];
        assert_eq!(codec::encode(&states).unwrap(), [1, 1, 0xac, 2, 2, 0xac, 2]);
        let token = ServiceToken {
            digest: [7; 32],
            kind: TokenKind::Opaque,
            name: "s".into(),
            grant: Grant::default(),
            created: at,
            expires: Some(at),
            state: TokenState::Active,
        };
        let jwt = ServiceToken { kind: TokenKind::Jwt { jti: "j".into() }, ..token.clone() };
        for (token, kind) in [(&token, &[0][..]), (&jwt, &[1, 1, b'j'][..])] {
            let rest = [1, b's', 0, 0, 0, 0, 0xac, 2, 1, 0xac, 2, 0];
            let bytes = [&[2][..], &[7; 32], kind, &rest].concat();
            assert_eq!(encode_token(token).unwrap(), bytes);
        }
        let files = Selection::Files(vec![FileId([7; 16])]);
        assert_eq!(codec::encode(&files).unwrap(), [&[1, 0, 1][..], &[7; 16]].concat());
        let (owner, folder) = (UserId::parse("u").unwrap(), Folder::parse("f").unwrap());
        let folder = Selection::Folder { owner, folder };
        assert_eq!(codec::encode(&folder).unwrap(), [1, 1, 1, b'u', 1, b'f']);
        let used = TokenUse { at, from: [1, 2, 3, 4].into() };
        assert_eq!(codec::encode(&used).unwrap(), [1, 0xac, 2, 0, 1, 2, 3, 4]);
        let pass = ScrubPass { completed: Some(at), blobs: 4, damaged: 5, ..ScrubPass::new(at) };
        let bytes = [1, 0xac, 2, 1, 0xac, 2, 0, 4, 0, 5, 0];
        assert_eq!(codec::encode(&pass).unwrap(), bytes);
    }
}
