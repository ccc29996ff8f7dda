//! Management of users.

use std::sync::Arc;

use super::{App, Error, Result};
use crate::{
    meta::{
        self, UserRecord,
        accounts::{Edit, Holder, UserChange},
    },
    model::{
        file::Totals,
        name::{Folder, UserId},
    },
};

/// A user and what it holds.
pub struct ListedUser {
    pub record: UserRecord,
    pub totals: Totals,
    /// The first Unix second whose tokens are good; 0 for a user who was never logged out.
    pub tokens_valid_from: u64,
}

/// Files and uploads removed at a time when a user is deleted.
const PAGE: usize = 256;

impl App {
    /// At most `limit` users after `after`, in order of their ids.
    pub async fn list_users(
        &self,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<ListedUser>> {
        let mut listed = Vec::new();
        for record in self.meta.users(after, limit).await? {
            listed.push(self.listed_user(record).await?);
        }
        Ok(listed)
    }

    /// # Errors
    /// [`Error::NotFound`].
    pub async fn show_user(&self, id: &UserId) -> Result<ListedUser> {
        let record = self.meta.user(id).await?.ok_or(Error::NotFound("user"))?;
        self.listed_user(record).await
    }

    async fn listed_user(&self, record: UserRecord) -> Result<ListedUser> {
        let totals = self.meta.totals(&record.id, &Folder::default()).await?;
        let tokens_valid_from = self.meta.tokens_valid_from(Holder::User(&record.id)).await?;
        Ok(ListedUser { record, totals, tokens_valid_from })
    }

    /// Changes a user, from the next request on; creates its record when nobody named the user
    /// before. `log_out` revokes all tokens of the user. So does removing its role: its tokens
    /// claim the role that it had when they were made, and nothing else caps that role.
    ///
    /// # Errors
    /// [`Error::Busy`] for a log-out that comes too soon after many others.
    pub async fn change_user(
        self: &Arc<Self>,
        id: UserId,
        mut change: UserChange,
        log_out: bool,
    ) -> Result<ListedUser> {
        let has_role = async || {
            Ok::<_, Error>(self.meta.user(&id).await?.is_some_and(|user| user.role.is_some()))
        };
        if log_out || change.role == Edit::Clear && has_role().await? {
            change.tokens_valid_from = Some(self.next_second(Holder::User(&id)).await?);
        }
        let changed = self.changing_access(|app| async move {
            Ok(app.meta.change_user(&id, change, app.clock.now()).await?)
        });
        self.listed_user(changed.await?).await
    }

    /// Deletes a user with its files and uploads, and revokes its tokens. If the deletion is cut
    /// short, the rest is still there and the command can be repeated.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when others go on uploading for the user meanwhile;
    /// [`Error::Busy`] as for a log-out, and then nothing was removed.
    pub async fn delete_user(self: &Arc<Self>, id: UserId) -> Result<()> {
        self.show_user(&id).await?;
        // One second to lock the user, one when it is gone: without room for both, nothing is
        // removed.
        self.seconds_ahead(Holder::User(&id), 2).await?;
        // Nobody can go on working as the user during the deletion.
        let locked = UserChange { disabled: Some(true), ..UserChange::default() };
        self.change_user(id.clone(), locked, true).await?;
        self.changing_access(|app| async move {
            app.empty_user(&id).await?;
            let valid_from = app.next_second(Holder::User(&id)).await?;
            match app.meta.remove_user(&id, valid_from).await {
                Err(meta::Error::NotFound) => Err(Error::NotFound("user")),
                outcome => Ok(outcome?),
            }
        })
        .await
    }

    async fn empty_user(&self, id: &UserId) -> Result<()> {
        loop {
            let uploads = self.meta.uploads_of(id, None, PAGE).await?;
            if uploads.is_empty() {
                break;
            }
            for upload in uploads {
                match self.remove_open_upload(upload.id).await {
                    // The upload ended meanwhile.
                    Ok(()) | Err(Error::NotFound(_) | Error::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        loop {
            let files = self.meta.list_files(id, &Folder::default(), None, PAGE).await?;
            if files.is_empty() {
                return Ok(());
            }
            for file in files {
                match self.meta.remove_file(&file.key, self.clock.now()).await {
                    Ok(_) | Err(meta::Error::NotFound) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}
