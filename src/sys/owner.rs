//! The owner of the files that a command creates when root runs it.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use rustix::{
    process::geteuid,
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

/// If root runs a command, continues as the owner of `dir`: the daemon, which is not root, could
/// not open files that root creates there. The right to read everything is kept, for paths and
/// trees that only root can read. Must be called before other threads start, because each thread
/// has its own ids and capabilities.
///
/// # Errors
/// When the system does not allow it.
pub fn assume(dir: &Path) -> io::Result<()> {
    let owner = match fs::metadata(dir) {
        // Whoever creates the directory owns it; the service manager hands it over to the daemon.
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
