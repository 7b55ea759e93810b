//! Becoming somebody who may do nothing: the page server listens to a program that may have been taken over by its guest.

use rustix::io::Errno;
use rustix::process::{getppid, set_parent_process_death_signal, Gid, Signal, Uid};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Take on a user and the group of the same number, for good. Before any thread is started, for it is this thread alone that changes.
pub fn become_user(id: u32) -> Result<(), Errno> {
    let parent = getppid();
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    set_no_new_privs(true)?;
    // Another user has no death signal any more. A parent that died just before has sent none.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(Errno::CHILD)
    }
}
