//! One JSON message per SOCK_SEQPACKET packet, with file descriptors beside it.
//!
//! SEQPACKET keeps message borders, so there is no framing to get wrong, and a message and its fds arrive together. All
//! sizes are bounded and every wait has a deadline; fds beyond the expected number are closed at once.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes in one packet.
pub(crate) const PACKET_LIMIT: usize = 256 * 1024;

/// Most fds that a packet carries.
const FD_LIMIT: usize = 2;

/// Why a packet could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketError {
    /// The peer is gone.
    #[error("the peer closed the connection")]
    Closed,
    /// Nothing came, or nothing could be sent, in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// More than [`PACKET_LIMIT`].
    #[error("a message has {0} bytes or more; {PACKET_LIMIT} is the limit")]
    TooLarge(usize),
    /// The peer sent something that is no message of this protocol.
    #[error("a message could not be understood: {0}")]
    Malformed(String),
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for PacketError {
    fn from(errno: Errno) -> Self {
        PacketError::Io(errno.into())
    }
}

/// Makes a socket able to carry a packet of [`PACKET_LIMIT`] bytes (the default of 208 KiB is too small).
pub(crate) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::SndBuf, &PACKET_LIMIT)?;
    Ok(())
}

/// Sends `message` with `fds`.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
    deadline: Duration,
) -> Result<(), PacketError> {
    let bytes = serde_json::to_vec(message).map_err(|error| PacketError::Malformed(error.to_string()))?;
    if bytes.len() > PACKET_LIMIT {
        return Err(PacketError::TooLarge(bytes.len()));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let until = Instant::now() + deadline;
    loop {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN) => wait(socket, PollFlags::POLLOUT, until, deadline)?,
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => return Err(PacketError::Closed),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one message and at most `expected_fds` fds; others are closed. `None` waits for ever.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    expected_fds: usize,
    deadline: Option<Duration>,
) -> Result<(T, Vec<OwnedFd>), PacketError> {
    let until = deadline.map(|deadline| (Instant::now() + deadline, deadline));
    loop {
        match until {
            Some((until, deadline)) => wait(socket, PollFlags::POLLIN, until, deadline)?,
            None => {
                let mut polled = [PollFd::new(socket, PollFlags::POLLIN)];
                match nix::poll::poll(&mut polled, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        match receive_now(socket, expected_fds) {
            Err(PacketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Receives a message that is there already; an I/O error of kind `WouldBlock` if none is.
pub(crate) fn receive_now<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    expected_fds: usize,
) -> Result<(T, Vec<OwnedFd>), PacketError> {
    let mut bytes = vec![0u8; PACKET_LIMIT];
    let mut space = nix::cmsg_space!([RawFd; FD_LIMIT]);
    let mut fds = Vec::new();
    let (length, truncated) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        // Without room for control data the kernel drops all fds itself: a peer that may send none plants none.
        let control = (expected_fds > 0).then_some(space.as_mut_slice());
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut slices, control, flags) {
            Ok(message) => message,
            Err(Errno::EINTR | Errno::EAGAIN) => {
                return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
            }
            Err(Errno::ECONNRESET | Errno::ENOTCONN) => return Err(PacketError::Closed),
            Err(errno) => return Err(errno.into()),
        };
        if expected_fds > 0 {
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(received) = control {
                    // SAFETY: the kernel has just installed these descriptors for this process and nobody else
                    // knows their numbers yet, so each is owned here exactly once.
                    fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
        }
        (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC))
    };
    fds.truncate(expected_fds);
    if truncated {
        return Err(PacketError::TooLarge(PACKET_LIMIT));
    }
    if length == 0 {
        return Err(PacketError::Closed);
    }
    let message = serde_json::from_slice(&bytes[..length])
        .map_err(|error| PacketError::Malformed(error.to_string()))?;
    Ok((message, fds))
}

/// Waits until the socket is ready or `until` is past.
fn wait(
    socket: BorrowedFd<'_>,
    events: PollFlags,
    until: Instant,
    deadline: Duration,
) -> Result<(), PacketError> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(socket, events)];
        match nix::poll::poll(&mut polled, timeout) {
            Ok(0) if Instant::now() >= until => return Err(PacketError::TimedOut(deadline)),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let (left, right) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        prepare(&left).unwrap();
        prepare(&right).unwrap();
        (left, right)
    }

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_message_and_its_fds_arrive_together_and_surplus_fds_are_closed() {
        let (left, right) = pair();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        send(left.as_fd(), &"two", &[writer.as_fd(), left.as_fd()], SHORT).unwrap();
        drop(writer);
        let (text, mut fds): (String, _) = receive(right.as_fd(), 1, Some(SHORT)).unwrap();
        assert_eq!((text.as_str(), fds.len()), ("two", 1));
        let mut writer = File::from(fds.remove(0));
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut content = String::new();
        File::from(reader).read_to_string(&mut content).unwrap();
        assert_eq!(content, "x");
    }

    #[test]
    fn unexpected_fds_never_enter_the_process() {
        let (left, right) = pair();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        send(left.as_fd(), &1, &[writer.as_fd()], SHORT).unwrap();
        drop(writer);
        let (_, fds): (i32, _) = receive(right.as_fd(), 0, Some(SHORT)).unwrap();
        assert!(fds.is_empty());
        // All writers are gone: the reader sees the end at once.
        assert_eq!(File::from(reader).read(&mut [0u8; 1]).unwrap(), 0);
    }

    #[test]
    fn the_largest_message_passes_and_a_larger_one_is_refused() {
        let (left, right) = pair();
        let largest = "x".repeat(PACKET_LIMIT - 2);
        send(left.as_fd(), &largest, &[], SHORT).unwrap();
        let (text, _): (String, _) = receive(right.as_fd(), 0, Some(SHORT)).unwrap();
        assert_eq!(text.len(), largest.len());
        let refused = send(left.as_fd(), &"x".repeat(PACKET_LIMIT), &[], SHORT);
        assert!(matches!(refused, Err(PacketError::TooLarge(_))));
    }

    #[test]
    fn silence_garbage_and_a_closed_peer_are_told_apart() {
        let (left, right) = pair();
        assert!(matches!(receive::<i32>(right.as_fd(), 0, Some(SHORT)), Err(PacketError::TimedOut(_))));
        nix::unistd::write(&left, b"{nonsense").unwrap();
        assert!(matches!(receive::<i32>(right.as_fd(), 0, Some(SHORT)), Err(PacketError::Malformed(_))));
        drop(left);
        assert!(matches!(receive::<i32>(right.as_fd(), 0, Some(SHORT)), Err(PacketError::Closed)));
        assert!(matches!(send(right.as_fd(), &1, &[], SHORT), Err(PacketError::Closed)));
    }
}
