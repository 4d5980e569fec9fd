//! How a worker gives up what it does not need, before it sees anything hostile.
//!
//! In this order, because each step needs what the next one takes: descriptors,
//! session, resource limits, namespaces, user id, Landlock, seccomp. A kernel
//! that does not offer one of them is reported, not hidden.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Downloads that may wait in a worker as open files, to be unpacked.
pub(super) const WAITING_ARTIFACTS: usize = 1024;

/// What the parent wants of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confinement {
    /// Become this user; only root can.
    pub(super) user: Option<u32>,
    /// Which of the directories that come with the start message are writable.
    pub(super) roots_writable: Vec<bool>,
}

/// What a worker could give up, as the kernel answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Isolation {
    /// File access is confined by Landlock: `None`, or why not.
    pub landlock_missing: Option<String>,
    /// System calls are filtered: `None`, or why not.
    pub seccomp_missing: Option<String>,
    /// There is no network to see: `None`, or why not.
    pub network_namespace_missing: Option<String>,
    /// The user id the worker runs under, when it is not ours.
    pub user: Option<u32>,
}

impl Isolation {
    /// What holds guests nevertheless, when something is missing; in one line.
    #[must_use]
    pub fn remains(&self) -> Option<String> {
        let missing = self.missing();
        if missing.is_empty() {
            return None;
        }
        let walls = [("Landlock", &self.landlock_missing), ("seccomp", &self.seccomp_missing)];
        let mut there = vec!["their cell"];
        there.extend(walls.into_iter().filter(|(_, missing)| missing.is_none()).map(|(name, _)| name));
        Some(format!("components are held by {}; here is {}", there.join(", "), missing.join(", ")))
    }

    /// What is missing, one sentence each; empty when nothing is.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        [
            ("Landlock", &self.landlock_missing),
            ("seccomp", &self.seccomp_missing),
            ("network namespace", &self.network_namespace_missing),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.as_ref().map(|why| format!("no {name} ({why})")))
        .collect()
    }
}

/// Leaves the parent's session, closes what was inherited, sets resource limits.
///
/// To be called first thing in the worker, while it has one thread.
pub(super) fn detach(limits: &Limits) -> std::io::Result<()> {
    // The session first: a signal to the terminal's group is the parent's business.
    let _ = rustix::process::setsid();
    die_with_parent()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Neither core dumps nor another process of the same user may show our memory.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    set_limit(Resource::Core, 0)?;
    set_limit(Resource::Nofile, limits.open_files + WAITING_ARTIFACTS as u64 + 256)?;
    Ok(())
}

/// Closes every descriptor but the three standard ones, of which the first is the channel.
pub(super) fn close_inherited() {
    // Whoever started the parent may have left descriptors open in it.
    close_range(3);
}

#[expect(unsafe_code, reason = "closes descriptors that no value of this process owns")]
fn close_range(first: u32) {
    // SAFETY: called before anything in this process has opened a descriptor above 2.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, 0);
    }
}

fn die_with_parent() -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

fn set_limit(resource: Resource, value: u64) -> std::io::Result<()> {
    let limit = rustix::process::getrlimit(resource);
    let value = limit.maximum.map_or(value, |maximum| maximum.min(value));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

/// Bounds a process that compiles: CPU time and memory of the whole process.
pub(super) fn limit_compiler(limits: &Limits) -> std::io::Result<()> {
    set_limit(Resource::Cpu, limits.compile_cpu_seconds)?;
    set_limit(Resource::As, limits.compile_memory_bytes)?;
    set_limit(Resource::Fsize, 0)
}

/// Gives up network, user, files and system calls for the whole process.
///
/// # Errors
/// Only what must not fail: dropping the user id, and a filter that does not build.
pub(super) fn confine(confinement: &Confinement, roots: &[BorrowedFd<'_>]) -> std::io::Result<Isolation> {
    let mut isolation = Isolation {
        network_namespace_missing: leave_network(),
        user: confinement.user,
        ..Isolation::default()
    };
    if let Some(user) = confinement.user {
        become_user(user)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    let rules: Vec<Rule<'_>> = roots
        .iter()
        .zip(&confinement.roots_writable)
        .map(|(directory, writable)| Rule { directory: *directory, writable: *writable })
        .collect();
    isolation.landlock_missing = restrict_files(&rules).err();
    isolation.seccomp_missing = filter_system_calls().err();
    Ok(isolation)
}

/// Moves into a network namespace without interfaces; says why when it cannot.
#[expect(unsafe_code, reason = "unshare is unsafe in rustix because of FILES, which is not asked for")]
fn leave_network() -> Option<String> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let alone = UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    // SAFETY: the descriptor table is not unshared, so no descriptor changes meaning.
    let result = unsafe { unshare_unsafe(alone) }
        // SAFETY: as above; a user namespace is what lets an ordinary user do it.
        .or_else(|_| unsafe { unshare_unsafe(alone | UnshareFlags::NEWUSER) });
    result.err().map(|error| error.to_string())
}

fn become_user(user: u32) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // The kernel forgets the death signal when the user changes.
    die_with_parent()
}

/// A directory a process or thread keeps access to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) writable: bool,
}

/// Takes all file access but `rules` from the calling thread and those it starts.
///
/// # Errors
/// What the kernel does not enforce, as a sentence.
pub(super) fn restrict_files(rules: &[Rule<'_>]) -> Result<(), String> {
    let abi = ABI::V6;
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    let writes = reads
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let restrict = || -> Result<RulesetStatus, landlock::RulesetError> {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?;
        let ruleset = rules.iter().try_fold(ruleset, |ruleset: RulesetCreated, rule| {
            let access: BitFlags<AccessFs> = if rule.writable { writes } else { reads };
            ruleset.add_rule(PathBeneath::new(rule.directory, access))
        })?;
        Ok(ruleset.restrict_self()?.ruleset)
    };
    match restrict() {
        // Older kernels lack the newer rights; files are confined all the same.
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) => Err("the kernel does not offer it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Takes one directory's descriptor for [`restrict_files`].
pub(super) fn rule(directory: &impl AsFd, writable: bool) -> Rule<'_> {
    Rule { directory: directory.as_fd(), writable }
}

/// System calls a worker makes, by what for.
fn allowed_calls() -> Vec<libc::c_long> {
    let mut calls = vec![
        // Files, relative to descriptors that Landlock has the last word on.
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_close,
        libc::SYS_close_range,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_lseek,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_getdents64,
        libc::SYS_readlinkat,
        libc::SYS_unlinkat,
        libc::SYS_mkdirat,
        libc::SYS_symlinkat,
        libc::SYS_linkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_ftruncate,
        libc::SYS_fchmod,
        libc::SYS_fcntl,
        libc::SYS_dup,
        libc::SYS_dup3,
        // Memory.
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_memfd_create,
        libc::SYS_membarrier,
        // Threads, and the signals wasmtime turns into traps.
        libc::SYS_clone3,
        libc::SYS_futex,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_set_tid_address,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_getppid,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_exit,
        libc::SYS_exit_group,
        // Time, randomness, waiting.
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_gettimeofday,
        libc::SYS_getrandom,
        libc::SYS_ppoll,
        libc::SYS_restart_syscall,
        // The channel to the parent.
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        // Each guest's thread gives up more.
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_poll, libc::SYS_readlink]);
    calls
}

/// Leaves the process the calls of [`allowed_calls`]; any other fails with `EPERM`.
fn filter_system_calls() -> Result<(), String> {
    let text = |error: seccompiler::BackendError| error.to_string();
    let arch = std::env::consts::ARCH.try_into().map_err(text)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        allowed_calls().into_iter().map(|call| (call, Vec::new())).collect();
    // Threads only: a process that can fork can outlive the limits of this one.
    let threads = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;
    let only_threads =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(threads), threads)
            .map_err(text)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![only_threads]).map_err(text)?]);
    // Threads are named; nothing else of prctl is needed.
    let names = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)
        .map_err(text)?;
    // `no_new_privs` again, before each thread's own Landlock domain.
    let privileges =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::PR_SET_NO_NEW_PRIVS as u64)
            .map_err(text)?;
    rules.insert(
        libc::SYS_prctl,
        vec![SeccompRule::new(vec![names]).map_err(text)?, SeccompRule::new(vec![privileges]).map_err(text)?],
    );
    // Signals to threads of this process only: the other workers may have the same user.
    let process = u64::from(std::process::id());
    let ourselves =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, process).map_err(text)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![ourselves]).map_err(text)?]);
    // Reading limits, as starting a thread does; never raising one.
    let read_only = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0).map_err(text)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![read_only]).map_err(text)?]);
    let allow_list =
        SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch)
            .map_err(text)?;
    // The flags of clone3 are in memory, out of a filter's sight; the C library
    // falls back to clone when it seems missing.
    let no_clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch,
    )
    .map_err(text)?;
    // The allow-list last: it does not allow another filter.
    for filter in [no_clone3, allow_list] {
        let program: BpfProgram = filter.try_into().map_err(text)?;
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}
