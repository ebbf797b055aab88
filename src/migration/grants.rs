//! Access that others were granted to single objects (S3's access control lists), which a rewrite must say again.
//!
//! Grants are a request an object, and most buckets have none: since 2023 new buckets leave all sharing to policies
//! (`BucketOwnerEnforced`). So one request asks the bucket; only where its objects may have grants, or where it does not tell,
//! each object is asked right before it is rewritten. Grants that may not be read are an error of the object, and a
//! warning of the plan: a rewrite without them would take access away from somebody without a word.

use super::Migrations;
use super::config::Grants;
use super::document::{PlannedObject, State};
use super::estimate::Place;
use crate::error::{Error, Kind, Result};
use crate::store::Inspected;

impl Migrations {
    /// Whether the grants of each object are carried over; at most one request in all.
    ///
    /// # Errors
    /// `Invalid` where they shall be, and the storage has none that can be read.
    pub(super) async fn carries_grants(&self) -> Result<bool> {
        let found = self.grants.get_or_try_init(|| async {
            match self.config.carry.grants {
                Grants::Left => Ok(false),
                Grants::Auto => Ok(self.data.keeps_grants().await? != Some(false)),
                Grants::Carried if self.place().await? == Place::CopiesParts => Ok(true),
                Grants::Carried => Err(Error::invalid(format!(
                    "`carry.grants` is `true`, but the grants of objects at `{}` cannot be read",
                    self.data.url()
                ))
                .hint("grants are carried on S3 only: say `auto` or `false`")),
            }
        });
        found.await.copied()
    }

    /// Whether what the configuration wants carried over can be; no request.
    pub(super) async fn check_carry(&self) -> Result<()> {
        if self.config.carry.grants == Grants::Carried {
            self.carries_grants().await?;
        }
        Ok(())
    }

    /// All that a rewrite of an object must know, with its grants where they are carried.
    pub(super) async fn inspect(&self, key: &str) -> Result<Option<Inspected>> {
        if !self.carries_grants().await? {
            return self.data.inspect(key).await;
        }
        self.data.inspect_grants(key).await.map_err(unread)
    }

    /// What a plan warns of: grants that will be asked for, and may not be read. One object is tried.
    pub(super) async fn grants_warning(&self, objects: &[PlannedObject]) -> Result<Option<String>> {
        let Some(object) = objects.iter().find(|object| object.state == State::Pending) else { return Ok(None) };
        if !self.carries_grants().await? {
            return Ok(None);
        }
        match self.data.grants(&object.key).await {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == Kind::Invalid => {
                let error = unread(error);
                let hint = error.hint_text().unwrap_or_default();
                Ok(Some(format!("no object can be migrated as it is: {}; {hint}", error.message())))
            }
            Err(error) => Err(error),
        }
    }
}

/// The error with what to do where grants may not be read.
fn unread(error: Error) -> Error {
    if error.message().contains("GetObjectAcl") {
        return error.hint(
            "allow `s3:GetObjectAcl` and `s3:PutObjectAcl`; or say `carry: {grants: false}` where only the bucket's policy \
             gives access",
        );
    }
    error
}

/// The error of a commit with what may be the reason where `granted` says that grants were to be written.
pub(super) fn unwritten(error: Error, granted: bool) -> Error {
    let refused =
        error.kind() == Kind::Invalid && ["AccessDenied", "403"].iter().any(|word| error.message().contains(word));
    if granted && refused {
        return error.hint("its grants are written with it, which needs the right `s3:PutObjectAcl`");
    }
    error
}
