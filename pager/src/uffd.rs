//! The kernel's side of userfaultfd(2): what it tells, and the three answers.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::io::Errno;

const MESSAGE: usize = 32;
const BATCH: usize = 64;

const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;
/// A write to a protected page, or a page that is in the cache only: nobody asked for these.
const FLAG_WP: u64 = 1 << 1;
const FLAG_MINOR: u64 = 1 << 2;

const WAKE: libc::c_ulong = 0x8010_aa02;
const COPY: libc::c_ulong = 0xc028_aa03;
const ZEROPAGE: libc::c_ulong = 0xc020_aa04;

#[repr(C)]
struct Stretch {
    start: u64,
    length: u64,
}

#[repr(C)]
struct Copy {
    target: u64,
    source: u64,
    length: u64,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct Zero {
    target: Stretch,
    mode: u64,
    done: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody waits for the page at this address.
    Fault(u64),
    /// These addresses were given back.
    Remove(Range<u64>),
    /// What this program cannot answer.
    Unknown(u8),
}

pub struct Uffd {
    fd: OwnedFd,
    buffer: [u8; MESSAGE * BATCH],
}

impl Uffd {
    /// The error says what is wrong with the descriptor.
    pub fn new(fd: OwnedFd) -> Result<Self, String> {
        let name = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
        if name.map_err(|errno| format!("cannot be examined: {errno}"))?.as_bytes()
            != b"anon_inode:[userfaultfd]"
        {
            return Err("is no userfaultfd".into());
        }
        let flags = fcntl_getfl(&fd).map_err(|errno| format!("cannot be examined: {errno}"))?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(|errno| format!("cannot be set up: {errno}"))?;
        Ok(Self { fd, buffer: [0; MESSAGE * BATCH] })
    }

    /// What has happened, without waiting: as much as fits.
    pub fn read(&mut self, events: &mut Vec<Event>) -> Result<(), Errno> {
        match rustix::io::read(&self.fd, &mut self.buffer) {
            Ok(length) => {
                events.extend(self.buffer[..length].chunks_exact(MESSAGE).map(event));
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Put bytes of ours at an address of the machine's and wake who waits there. Returns how many were put: a page that is there already ends
    /// it. Errors: EXIST (the first page is there), AGAIN (read events first), SRCH (the process is gone), NOENT (nothing is mapped there).
    pub fn copy(&self, target: u64, source: u64, length: u64) -> Result<u64, Errno> {
        let mut request = Copy { target, source, length, mode: 0, done: 0 };
        // SAFETY: the request outlives the call; it writes only into the process that handed over the descriptor, and the kernel checks what it reads.
        let status = unsafe { libc::ioctl(self.fd.as_raw_fd(), COPY, &raw mut request) };
        outcome(status, request.done, length)
    }

    /// The same with zeros, which take no memory until they are written to. Errors: also INVAL, where the pages are huge.
    pub fn zero(&self, target: u64, length: u64) -> Result<u64, Errno> {
        let mut request = Zero { target: Stretch { start: target, length }, mode: 0, done: 0 };
        // SAFETY: the request outlives the call; it writes only into the process that handed over the descriptor.
        let status = unsafe { libc::ioctl(self.fd.as_raw_fd(), ZEROPAGE, &raw mut request) };
        outcome(status, request.done, length)
    }

    /// Let who waits there look again.
    pub fn wake(&self, start: u64, length: u64) -> Result<(), Errno> {
        let mut request = Stretch { start, length };
        // SAFETY: the request outlives the call, which only wakes.
        let status = unsafe { libc::ioctl(self.fd.as_raw_fd(), WAKE, &raw mut request) };
        outcome(status, 0, length).map(|_| ())
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn outcome(status: libc::c_int, done: i64, length: u64) -> Result<u64, Errno> {
    if status == 0 {
        return Ok(length);
    }
    match Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO) {
        Errno::AGAIN if done > 0 => Ok(done as u64),
        errno => Err(errno),
    }
}

fn event(message: &[u8]) -> Event {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&message[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    match message[0] {
        EVENT_PAGEFAULT if word(8) & (FLAG_WP | FLAG_MINOR) == 0 => Event::Fault(word(16)),
        EVENT_REMOVE | EVENT_UNMAP => Event::Remove(word(8)..word(16)),
        other => Event::Unknown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, first: u64, second: u64) -> [u8; MESSAGE] {
        let mut bytes = [0; MESSAGE];
        bytes[0] = kind;
        bytes[8..16].copy_from_slice(&first.to_ne_bytes());
        bytes[16..24].copy_from_slice(&second.to_ne_bytes());
        bytes
    }

    #[test]
    fn messages_of_the_kernel_are_told_apart() {
        assert_eq!(event(&message(EVENT_PAGEFAULT, 1, 0x7000)), Event::Fault(0x7000));
        assert_eq!(event(&message(EVENT_PAGEFAULT, FLAG_WP, 0x7000)), Event::Unknown(EVENT_PAGEFAULT));
        assert_eq!(event(&message(EVENT_REMOVE, 0x1000, 0x3000)), Event::Remove(0x1000..0x3000));
        assert_eq!(event(&message(0x13, 7, 0)), Event::Unknown(0x13));
    }

    #[test]
    fn any_other_descriptor_is_refused() {
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd");
        assert_eq!(Uffd::new(fd).err().as_deref(), Some("is no userfaultfd"));
    }
}
