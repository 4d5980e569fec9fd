//! As whom a program works: root prepares the volumes, then becomes somebody else.
//!
//! Everything in here has to happen while the process has one thread, because the
//! kernel keeps users by thread.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chownat, openat, statat};
use rustix::process::{Gid, Uid};

use super::program::Program;
use super::settings::Surroundings;
use super::usage::UsageError;

/// Refuses to run code of others as root (DET-16). Root of a user namespace is refused
/// as well: the reference lifecycle cannot tell, and neither do platforms expect it.
pub(super) fn refuse_root(program: Program) -> Result<(), UsageError> {
    let is_root = rustix::process::getuid().is_root() || rustix::process::geteuid().is_root();
    match program {
        Program::Detector | Program::Builder if is_root => Err(UsageError::Root { phase: program.verb() }),
        _ => Ok(()),
    }
}

/// Gives the volumes to a user, and becomes that user for good (CLI-11).
pub(super) fn become_user(user: u32, group: u32, volumes: &[impl AsRef<Path>]) -> Result<(), UsageError> {
    for volume in volumes {
        let volume = volume.as_ref();
        give(volume, user, group).map_err(|source| UsageError::Chown {
            path: volume.to_owned(),
            user,
            group,
            source,
        })?;
    }
    run_as(user, group).map_err(|source| UsageError::RunAs { user, group, source })
}

/// Gives a directory and all that is in it to a user, unless that user can write it.
/// A directory that is not there is nobody's.
fn give(directory: &Path, user: u32, group: u32) -> io::Result<()> {
    let found = match rustix::fs::stat(directory) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        found => found?,
    };
    let mode = Mode::from_raw_mode(found.st_mode);
    let can_write = found.st_uid == user
        || (found.st_gid == group && mode.contains(Mode::WGRP))
        || mode.contains(Mode::WOTH);
    if can_write {
        return Ok(());
    }
    // The platform names the directory, so a link may lead there; links inside lead nowhere.
    let opened = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let owner = (Uid::from_raw(user), Gid::from_raw(group));
    rustix::fs::fchown(&opened, Some(owner.0), Some(owner.1))?;
    give_contents(opened, owner)
}

/// Goes through open directories only, so that nobody can move one away underneath.
fn give_contents(directory: rustix::fd::OwnedFd, (user, group): (Uid, Gid)) -> io::Result<()> {
    let mut open = vec![directory];
    while let Some(directory) = open.pop() {
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            chownat(&directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                open.push(openat(&directory, name, flags, Mode::empty())?);
            }
        }
    }
    Ok(())
}

/// Becomes a user for good; groups that root was in are left.
fn run_as(user: u32, group: u32) -> io::Result<()> {
    if (user, group) == (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()) {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    if rustix::process::geteuid().is_root() {
        rustix::thread::set_thread_groups(&[])?;
    }
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    Ok(())
}

/// Sets `HOME` and `USER` as `/etc/passwd` has them (CLI-11).
pub(super) fn set_home(surroundings: &mut Surroundings, user: u32) -> Result<(), UsageError> {
    let failed = |source| UsageError::NoUser { user, source };
    let users = fs_err::read("/etc/passwd").map_err(failed)?;
    let (name, home) = home_of(&users, user)
        .ok_or_else(|| failed(io::Error::new(io::ErrorKind::NotFound, "`/etc/passwd` does not have it")))?;
    surroundings.environment.insert("HOME".into(), home);
    surroundings.environment.insert("USER".into(), name);
    Ok(())
}

/// Name and home directory of a user: `name:password:uid:gid:comment:home:shell`.
fn home_of(users: &[u8], user: u32) -> Option<(OsString, OsString)> {
    users.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [name, _, id, _, _, home, ..] = fields[..] else { return None };
        let is_it = std::str::from_utf8(id).ok()?.parse() == Ok(user);
        is_it.then(|| (OsString::from_vec(name.to_vec()), OsString::from_vec(home.to_vec())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_looked_up_by_number() {
        let users = b"root:x:0:0:root:/root:/bin/sh\n#\ncnb:x:1000:1000::/home/cnb:/bin/sh\nshort:x:7\n";
        assert_eq!(home_of(users, 1000), Some(("cnb".into(), "/home/cnb".into())));
        assert_eq!(home_of(users, 0), Some(("root".into(), "/root".into())));
        assert_eq!([home_of(users, 7), home_of(users, 1)], [None, None]);
    }
}
