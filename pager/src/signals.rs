//! Signals as something to read: blocked for every thread, and taken from a descriptor.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

pub struct Signals(OwnedFd);

impl Signals {
    /// Block `wanted` and get a descriptor for them. Before any thread is started, for they inherit it.
    pub fn block(wanted: &[i32]) -> Result<Self, Errno> {
        // SAFETY: all fields of a signal set are integers, for which zero is a value.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the calls change the set of ours and this process's mask; the new descriptor belongs to nobody else.
        unsafe {
            libc::sigemptyset(&mut set);
            for signal in wanted {
                libc::sigaddset(&mut set, *signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// The number of one that has come, if any.
    pub fn take(&self) -> Option<i32> {
        const RECORD: usize = std::mem::size_of::<libc::signalfd_siginfo>();
        let mut record = [0u8; RECORD];
        let length = rustix::io::read(&self.0, &mut record).ok()?;
        // The number is the first field.
        (length == RECORD).then(|| i32::from_ne_bytes([record[0], record[1], record[2], record[3]]))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
