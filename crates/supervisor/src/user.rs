//! Who a worker runs as.

use nix::unistd::{Gid, Uid, User};

/// The numeric user and group of workers on a host without a user `volplane` (a range that Debian and systemd leave
/// unused).
pub const FALLBACK_ID: u32 = 60987;

/// User and group of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerUser {
    /// User id.
    pub uid: Uid,
    /// Group id.
    pub gid: Gid,
}

/// The configured worker user cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerUserError {
    /// No such user.
    #[error("the worker user {0:?} does not exist; create it (useradd --system {0}) or set `worker.user`")]
    Unknown(String),
    /// Workers handle bytes from the network and are not run as root.
    #[error("the worker user {0:?} is root; choose another one for `worker.user`")]
    Root(String),
}

impl WorkerUser {
    /// Finds the user: `name` (a user name or a number) if given, else `volplane` if it exists, else
    /// [`FALLBACK_ID`].
    ///
    /// # Errors
    /// The named user does not exist, or is root.
    pub fn find(name: Option<&str>) -> Result<WorkerUser, WorkerUserError> {
        let wanted = name.unwrap_or("volplane");
        let by_name = User::from_name(wanted).ok().flatten();
        let numeric = || {
            let uid = wanted.parse::<u32>().ok()?;
            let gid = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or(Gid::from_raw(uid), |u| u.gid);
            Some(WorkerUser { uid: Uid::from_raw(uid), gid })
        };
        let found = match by_name {
            Some(user) => WorkerUser { uid: user.uid, gid: user.gid },
            None => match (numeric(), name) {
                (Some(user), _) => user,
                (None, None) => {
                    WorkerUser { uid: Uid::from_raw(FALLBACK_ID), gid: Gid::from_raw(FALLBACK_ID) }
                }
                (None, Some(name)) => return Err(WorkerUserError::Unknown(name.to_owned())),
            },
        };
        if found.uid.is_root() {
            return Err(WorkerUserError::Root(wanted.to_owned()));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_never_runs_as_root_or_as_an_unknown_user() {
        assert_eq!(WorkerUser::find(Some("root")), Err(WorkerUserError::Root("root".into())));
        assert_eq!(WorkerUser::find(Some("0")), Err(WorkerUserError::Root("0".into())));
        assert!(matches!(WorkerUser::find(Some("no such user")), Err(WorkerUserError::Unknown(_))));
        assert_eq!(WorkerUser::find(Some("61000")).unwrap().uid, Uid::from_raw(61000));
        assert!(WorkerUser::find(None).is_ok());
    }
}
