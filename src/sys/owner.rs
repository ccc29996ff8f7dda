//! Whose files a command leaves behind that root gives.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use rustix::{
    process::geteuid,
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

/// Goes on as the owner of `dir` where root asked: what root makes there the daemon, which is not
/// root, could not open. The right to read everything is kept, for paths and trees that only root
/// can read. To be called before other threads begin, for threads have these each for themselves.
///
/// # Errors
/// When the system does not allow it.
pub fn assume(dir: &Path) -> io::Result<()> {
    let owner = match fs::metadata(dir) {
        // Who makes it owns it; the service manager gives it to the daemon.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        owner => owner?,
    };
    if !geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let (user, group) =
        (rustix::fs::Uid::from_raw(owner.uid()), rustix::fs::Gid::from_raw(owner.gid()));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    let reading = CapabilitySet::DAC_READ_SEARCH;
    let kept = CapabilitySets {
        effective: reading,
        permitted: reading,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, kept)?)
}
