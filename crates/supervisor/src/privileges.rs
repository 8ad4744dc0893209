//! Takes from a worker what it does not need, before it reads a byte from the network.
//!
//! In this order, because each step needs what a later one removes: resource limits, bounding set, groups and user,
//! capabilities, no_new_privs, then Landlock (files) and seccomp (system calls). A process that is not root
//! skips what only root can do; what it has all the same (capabilities of a container) it gives up. Runs while the process has one thread: Landlock binds only the calling thread and
//! those it makes later.

use std::collections::BTreeMap;
use std::io;

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::WorkerUser;

/// A step of the descent failed; the worker must not go on.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {detail}")]
pub struct PrivilegeError {
    step: &'static str,
    detail: String,
}

/// Shorthand for the error of one step.
pub(crate) fn step<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> PrivilegeError {
    move |error| PrivilegeError { step, detail: error.to_string() }
}

/// Open files a worker may have.
const OPEN_FILES: u64 = 1 << 19;

/// Becomes `user` for good, without capabilities, core dumps or a way back. Without root: only what a user can do.
pub(crate) fn drop_identity(user: Option<WorkerUser>) -> Result<(), PrivilegeError> {
    let root = Uid::effective().is_root();
    raise_open_files(root)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(step("limit core dumps"))?;
    be_killable();
    caps::clear(None, CapSet::Ambient).map_err(step("clear ambient capabilities"))?;
    if let (true, Some(user)) = (root, user) {
        caps::clear(None, CapSet::Bounding).map_err(step("clear the bounding set"))?;
        become_user(user.uid, user.gid)?;
    }
    // Also for who is not root: a container's user may have been given some.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(step("clear capabilities"))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(step("set no_new_privs"))?;
    nix::sys::prctl::set_dumpable(false).map_err(step("forbid tracing"))?;
    Ok(())
}

/// A capability that a root process lacks to become another user for good; `None`: it has all.
pub(crate) fn missing_to_change_user() -> Option<&'static str> {
    let needed = [
        (Capability::CAP_SETUID, "SETUID"),
        (Capability::CAP_SETGID, "SETGID"),
        (Capability::CAP_SETPCAP, "SETPCAP"),
    ];
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    needed.into_iter().find(|(capability, _)| !has(*capability)).map(|(_, name)| name)
}

/// For a process that holds several descriptors for each worker.
pub(crate) fn raise_own_open_files() -> Result<(), PrivilegeError> {
    raise_open_files(Uid::effective().is_root())
}

/// The daemon may be protected from the out-of-memory killer; a worker, which can be replaced, must not inherit that.
fn be_killable() {
    let path = "/proc/self/oom_score_adj";
    let inherited = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if inherited.is_some_and(|score| score < 0)
        && let Err(error) = std::fs::write(path, "0")
    {
        tracing::warn!(%error, "the worker stays protected from the out-of-memory killer");
    }
}

fn become_user(uid: Uid, gid: Gid) -> Result<(), PrivilegeError> {
    setgroups(&[]).map_err(step("clear groups"))?;
    setresgid(gid, gid, gid).map_err(step("change group"))?;
    setresuid(uid, uid, uid).map_err(step("change user"))?;
    if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(PrivilegeError { step: "change user", detail: "root could be regained".to_owned() });
    }
    Ok(())
}

/// Raises the limit of open files as far as it goes, at most to [`OPEN_FILES`].
fn raise_open_files(root: bool) -> Result<(), PrivilegeError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(step("read the limit of open files"))?;
    if root && hard < OPEN_FILES && setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).is_ok() {
        return Ok(());
    }
    let soft = hard.min(OPEN_FILES);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(step("raise the limit of open files"))
}

/// System calls that no worker makes; each could widen what a taken-over worker can reach.
const FORBIDDEN: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// Address families that a worker may open sockets of: DNS needs netlink to sort addresses.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Flags of clone(2) that make namespaces.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// Forbids the system calls of [`FORBIDDEN`] (EPERM) for this process for good.
pub(crate) fn filter_system_calls() -> Result<(), PrivilegeError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|number| (*number, Vec::new())).collect();
    let mut other_family = Vec::new();
    for family in FAMILIES {
        other_family.push(condition(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()))?);
    }
    rules.insert(libc::SYS_socket, vec![rule(other_family)?]);
    let mut namespaces = Vec::new();
    for bit in (0..32).map(|shift| 1u32 << shift).filter(|bit| NAMESPACES.cast_unsigned() & bit != 0) {
        namespaces.push(rule(vec![condition(0, SeccompCmpOp::MaskedEq(u64::from(bit)), u64::from(bit))?])?);
    }
    rules.insert(libc::SYS_clone, namespaces);
    install(rules, libc::EPERM)?;
    // The flags of clone3 are behind a pointer that a filter cannot follow; libc falls back to clone on ENOSYS.
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, PrivilegeError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(step("build the filter"))
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, PrivilegeError> {
    SeccompRule::new(conditions).map_err(step("build the filter"))
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<(), PrivilegeError> {
    let architecture = std::env::consts::ARCH.try_into().map_err(step("find the architecture"))?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        architecture,
    )
    .map_err(step("build the filter"))?;
    let program: BpfProgram = filter.try_into().map_err(step("compile the filter"))?;
    match seccompiler::apply_filter(&program) {
        Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
            if error.raw_os_error() == Some(libc::EINVAL) =>
        {
            tracing::warn!(error = %io::Error::from_raw_os_error(libc::EINVAL), "this kernel has no seccomp filters");
            Ok(())
        }
        other => other.map_err(step("install the filter")),
    }
}
