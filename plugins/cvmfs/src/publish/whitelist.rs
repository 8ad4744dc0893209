//! The whitelist of a repository: whether it lets clients in, and for how long.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::{PublishError, io_error};
use super::options::check_validity;
use super::publisher::{Publisher, WHITELIST};
use super::signed::{self, ManifestText};
use crate::client::certificate::MasterKey;
use crate::client::hash::Algorithm;
use crate::client::letter::Letter;
use crate::client::whitelist::Whitelist;

impl Publisher {
    /// Renews the whitelist: clients refuse a repository whose whitelist has expired. Also puts a new signing key on it; needs the
    /// master key.
    ///
    /// # Errors
    /// [`PublishError::Key`] without the master key; [`PublishError::Option`] for a validity out of range.
    pub fn resign_whitelist(&self, validity: Duration) -> Result<(), PublishError> {
        check_validity(validity)?;
        let _lock = self.lock()?;
        let algorithm = self.manifest()?.root.algorithm;
        let text = signed::whitelist(&self.fqrn, &self.keys, algorithm, SystemTime::now(), validity)?;
        self.store.replace(WHITELIST, &text)
    }

    /// When clients begin to refuse the repository, unless the whitelist is renewed.
    ///
    /// # Errors
    /// [`PublishError::Damaged`] when the whitelist is none.
    pub fn whitelist_expiry(&self) -> Result<SystemTime, PublishError> {
        let whitelist = Whitelist::parse(&self.whitelist()?).map_err(|error| self.damaged(&error))?;
        Ok(UNIX_EPOCH + Duration::from_secs(whitelist.expires_hour.saturating_mul(3600)))
    }

    /// Renews the whitelist in time when it can be done here; a publisher that publishes now and then needs no other reminder.
    pub(super) fn renew_whitelist(
        &self,
        manifest: &ManifestText,
        validity: Duration,
    ) -> Result<(), PublishError> {
        let now = SystemTime::now();
        if !self.keys.has_master()
            || !self.is_signed_by_ours()?
            || self.whitelist_expiry()? > now + validity / 2
        {
            return Ok(());
        }
        let text = signed::whitelist(&self.fqrn, &self.keys, manifest.root.algorithm, now, validity)?;
        self.store.replace(WHITELIST, &text)
    }

    /// A manifest signed with a key that is not on the whitelist would shut all clients out.
    pub(super) fn check_listed(&self) -> Result<(), PublishError> {
        let path = self.store.root().join(WHITELIST);
        let text = self.whitelist()?;
        let listed = [Algorithm::Sha1, Algorithm::Rmd160, Algorithm::Shake128].into_iter().any(|algorithm| {
            let fingerprint = self.keys.fingerprint(algorithm);
            text.windows(fingerprint.len()).any(|window| window == fingerprint.as_bytes())
        });
        if listed {
            return Ok(());
        }
        Err(PublishError::Key {
            what: format!("signing key of {}", self.fqrn),
            reason: format!(
                "is not on {}, and clients would refuse what it signs: renew the whitelist first",
                path.display()
            ),
        })
    }

    /// Whether the whitelist is by the master key that is here. Clients know only one, so one by another is not replaced unasked.
    fn is_signed_by_ours(&self) -> Result<bool, PublishError> {
        let text = self.whitelist()?;
        let letter = Letter::split(&text).map_err(|error| self.damaged(&error))?;
        let ours = MasterKey::from_pem(&self.keys.public_key_pem()).map_err(|error| self.damaged(&error))?;
        Ok(ours.signed(letter.hash_line, letter.signature))
    }

    fn whitelist(&self) -> Result<Vec<u8>, PublishError> {
        let path = self.store.root().join(WHITELIST);
        fs::read(&path).map_err(io_error("read", &path))
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> PublishError {
        let what = self.store.root().join(WHITELIST).display().to_string();
        PublishError::Damaged { what, reason: error.to_string() }
    }
}
