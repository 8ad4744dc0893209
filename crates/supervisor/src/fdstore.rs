//! The service manager keeps duplicates of all FUSE connections, for the case that daemon and workers die together
//! (systemd: FDSTORE in sd_notify(3), `FileDescriptorStoreMax=` in systemd.service(5)).
//!
//! A stored connection comes back by name when the daemon starts. systemd watches stored fds and drops a connection
//! whose mount has gone by itself.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use volume::MountKey;

/// What names of stored connections begin with.
const PREFIX: &str = "mount-";

/// Where fds are stored; without a service manager nowhere.
#[derive(Debug, Clone)]
pub(crate) struct FdStore {
    address: Option<UnixAddr>,
}

impl FdStore {
    /// `notify_socket` is the value of NOTIFY_SOCKET: a path, or `@` and an abstract name.
    pub(crate) fn new(notify_socket: Option<&OsString>) -> io::Result<FdStore> {
        let address = match notify_socket.map(|name| name.as_bytes()) {
            None | Some([]) => None,
            Some([b'@', name @ ..]) => Some(UnixAddr::new_abstract(name)?),
            Some(path) => Some(UnixAddr::new(Path::new(std::ffi::OsStr::from_bytes(path)))?),
        };
        Ok(FdStore { address })
    }

    /// Stores a duplicate of `fd` under a label ([`crate::place::Place::label`]). Replaces none: names may repeat, so
    /// remove first.
    pub(crate) fn store(&self, label: &str, fd: BorrowedFd<'_>) {
        self.notify(&format!("FDSTORE=1\nFDNAME={PREFIX}{label}"), Some(fd));
    }

    /// Drops what is stored under `label`.
    pub(crate) fn remove(&self, label: &str) {
        self.notify(&format!("FDSTOREREMOVE=1\nFDNAME={PREFIX}{label}"), None);
    }

    /// The label of the connection that is stored under `name`; `None` if the name is none of ours.
    pub(crate) fn label_of(name: &str) -> Option<&str> {
        let label = name.strip_prefix(PREFIX)?;
        MountKey::new(label.trim_start_matches('~')).map(|_| label)
    }

    fn notify(&self, text: &str, fd: Option<BorrowedFd<'_>>) {
        let Some(address) = &self.address else { return };
        if let Err(error) = send(address, text, fd) {
            tracing::warn!(%error, "the service manager's fd store cannot be reached");
        }
    }
}

fn send(address: &UnixAddr, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    let raw: Vec<i32> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(text.as_bytes())],
        control,
        MsgFlags::MSG_NOSIGNAL,
        Some(address),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_labels() {
        let key = MountKey::new("cms.cern.ch@v1+3f").unwrap();
        assert_eq!(FdStore::label_of(&format!("{PREFIX}{key}")), Some(key.as_str()));
        assert_eq!(FdStore::label_of("mount-~18a-1-0"), Some("~18a-1-0"));
        assert_eq!(FdStore::label_of("docker"), None);
        assert_eq!(FdStore::label_of("mount-../x"), None);
    }
}
