//! From operations to the file system's methods, and from its values to answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use crate::in_flight::{InFlight, Ticket, Undo};
use crate::reply::Form;
use crate::wire::request::{Header, Operation, ParseError, parse};
use crate::wire::{MAX_TRANSFER_BYTES, answer};
use crate::{Attr, DirectoryBuffer, Entry, FileSystem, Opened, Reply, Statfs};

/// The largest value of an extended attribute, and the largest list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const XATTR_MAX_BYTES: usize = 64 * 1024;
/// The longest target of a symlink (PATH_MAX without the NUL byte).
const SYMLINK_MAX_BYTES: u32 = 4095;

/// Serves the request in `bytes`. Whatever it is, the session goes on afterwards.
pub(crate) fn serve<F: FileSystem>(fs: &F, in_flight: &Arc<InFlight>, bytes: &[u8]) {
    match parse(bytes) {
        Ok((header, operation)) => guarded("operation", || call(fs, in_flight, header, operation)),
        Err(error) => {
            error!(%error, "request not understood");
            if let ParseError::Arguments { unique, .. } = error {
                // An error here is one of somebody who has no request to be answered.
                let _ = in_flight.device.refuse(unique, libc::EIO);
            }
        }
    }
}

/// Calls into the file system; a panic there is logged and ends no thread. (Its reply, dropped, answers EIO.)
pub(crate) fn guarded(what: &'static str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        error!(what, "the file system panicked");
    }
}

fn call<F: FileSystem>(fs: &F, in_flight: &Arc<InFlight>, header: Header, operation: Operation<'_>) {
    let Header { caller, node, .. } = header;
    let ticket = || in_flight.register(header);
    match operation {
        Operation::Lookup { name } => {
            fs.lookup(caller, node, name, Reply::to_kernel(ticket(), Form::Plain, deliver_entry));
        }
        Operation::Forget { count } => fs.forget(node, count),
        Operation::BatchForget(forgets) => forgets.for_each(|(node, count)| fs.forget(node, count)),
        Operation::Getattr => {
            fs.getattr(caller, node, Reply::to_kernel(ticket(), Form::Plain, deliver_attributes));
        }
        Operation::Readlink => {
            let form = Form::AtMost(SYMLINK_MAX_BYTES);
            fs.readlink(caller, node, Reply::to_kernel(ticket(), form, deliver_target));
        }
        Operation::Open { flags } => {
            let reply = Reply::to_kernel(ticket(), Form::Plain, deliver_opened_file);
            match flags & libc::O_ACCMODE {
                libc::O_RDONLY => fs.open(caller, node, flags, reply),
                _ => reply.error(libc::EROFS),
            }
        }
        Operation::Read { handle, offset, size } => {
            let size = size.min(MAX_TRANSFER_BYTES);
            let reply = Reply::to_kernel(ticket(), Form::AtMost(size), deliver_data);
            fs.read(caller, node, handle, offset, size, reply);
        }
        Operation::Release { handle } => {
            guarded("release", || fs.release(node, handle));
            ticket().answer(&[], &[], || None);
        }
        Operation::Opendir => {
            fs.opendir(caller, node, Reply::to_kernel(ticket(), Form::Plain, deliver_opened_directory));
        }
        Operation::Readdir { handle, offset, size, plus } => {
            let buffer = DirectoryBuffer::new(size.min(MAX_TRANSFER_BYTES) as usize);
            let reply = Reply::to_kernel(ticket(), Form::Plain, deliver_rows);
            fs.readdir(caller, node, handle, offset, plus, buffer, reply);
        }
        Operation::Releasedir { handle } => {
            guarded("releasedir", || fs.releasedir(node, handle));
            ticket().answer(&[], &[], || None);
        }
        Operation::Getxattr { size, name } => {
            fs.getxattr(caller, node, name, Reply::to_kernel(ticket(), Form::Xattr(size), deliver_data));
        }
        Operation::Listxattr { size } => {
            fs.listxattr(caller, node, Reply::to_kernel(ticket(), Form::Xattr(size), deliver_data));
        }
        Operation::Statfs => {
            fs.statfs(caller, node, Reply::to_kernel(ticket(), Form::Plain, deliver_statfs));
        }
        Operation::Interrupt { target } => in_flight.interrupt(target),
        Operation::Destroy => ticket().answer(&[], &[], || None),
        Operation::Write => ticket().refuse(libc::EROFS),
        Operation::Silent => {}
        Operation::Unsupported => ticket().refuse(libc::ENOSYS),
    }
}

fn deliver_entry(ticket: &Ticket, _: Form, entry: Entry) {
    ticket.answer(&answer::entry(&entry), &[], || entry.node.map(|(node, _)| Undo::Forget(vec![node])));
}

fn deliver_attributes(ticket: &Ticket, _: Form, (attr, ttl): (Attr, Duration)) {
    ticket.answer(&answer::attributes(&attr, ttl), &[], || None);
}

fn deliver_opened_file(ticket: &Ticket, _: Form, opened: Opened) {
    let node = ticket.node();
    ticket.answer(&answer::opened_file(&opened), &[], || Some(Undo::Release(node, opened.handle)));
}

fn deliver_opened_directory(ticket: &Ticket, _: Form, opened: Opened) {
    let node = ticket.node();
    ticket.answer(&answer::opened_directory(&opened), &[], || Some(Undo::Releasedir(node, opened.handle)));
}

fn deliver_rows(ticket: &Ticket, _: Form, rows: DirectoryBuffer) {
    let (bytes, looked_up) = rows.into_parts();
    ticket.answer(&[], &bytes, || (!looked_up.is_empty()).then_some(Undo::Forget(looked_up)));
}

fn deliver_statfs(ticket: &Ticket, _: Form, statfs: Statfs) {
    ticket.answer(&answer::statfs(&statfs), &[], || None);
}

// An empty target passes: a symlink whose variables expand to nothing reads as nothing, as with the C++ client.
fn deliver_target(ticket: &Ticket, form: Form, target: Vec<u8>) {
    let fits = matches!(form, Form::AtMost(most) if target.len() <= most as usize);
    if target.contains(&0) || !fits {
        ticket.refuse(libc::EIO);
    } else {
        ticket.answer(&[], &target, || None);
    }
}

fn deliver_data(ticket: &Ticket, form: Form, data: Vec<u8>) {
    match form {
        Form::Plain => ticket.answer(&[], &data, || None),
        Form::AtMost(most) => ticket.answer(&[], &data[..data.len().min(most as usize)], || None),
        Form::Xattr(_) if data.len() > XATTR_MAX_BYTES => ticket.refuse(libc::E2BIG),
        Form::Xattr(0) => {
            let bytes = u32::try_from(data.len()).expect("checked to be at most 64 KiB");
            ticket.answer(&answer::xattr_size(bytes), &[], || None);
        }
        Form::Xattr(most) if data.len() > most as usize => ticket.refuse(libc::ERANGE),
        Form::Xattr(_) => ticket.answer(&[], &data, || None),
    }
}
