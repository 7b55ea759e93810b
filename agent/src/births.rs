//! The queue the kernel's process events come in: a netlink socket of the connector `cn_proc`.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::lineage::Event;

const CONNECTOR: libc::c_int = 11;
const PROCESSES: u32 = 1;
const LISTEN: u32 = 1;
/// Room for the births of tens of thousands of processes while nobody reads.
static QUEUE: libc::c_int = 64 << 20;

#[repr(C)]
struct Subscription {
    header: libc::nlmsghdr,
    index: u32,
    value: u32,
    sequence: u32,
    acknowledged: u32,
    length: u16,
    flags: u16,
    operation: u32,
}

pub struct Births {
    socket: OwnedFd,
}

impl Births {
    /// Needs the kernel's option PROC_EVENTS, and its first network namespace.
    pub fn open() -> Result<Self, Errno> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: makes a descriptor of our own.
        let raw = checked(unsafe { libc::socket(libc::AF_NETLINK, kind, CONNECTOR) })?;
        // SAFETY: it has just been made, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: all fields of this structure are integers, for which zero is a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = PROCESSES;
        let length = size_of::<libc::sockaddr_nl>() as u32;
        // SAFETY: the kernel reads an address of that length.
        checked(unsafe { libc::bind(raw, (&raw const address).cast(), length) })?;
        // SAFETY: the kernel reads an int of that length.
        checked(unsafe {
            libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const QUEUE).cast(), 4)
        })?;
        let births = Self { socket };
        births.subscribe()?;
        Ok(births)
    }

    fn subscribe(&self) -> Result<(), Errno> {
        let length = size_of::<Subscription>();
        let header = libc::nlmsghdr {
            nlmsg_len: length as u32,
            nlmsg_type: libc::NLMSG_DONE as u16,
            nlmsg_flags: 0,
            nlmsg_seq: 0,
            nlmsg_pid: 0,
        };
        let wish = Subscription {
            header,
            index: PROCESSES,
            value: PROCESSES,
            sequence: 0,
            acknowledged: 0,
            length: size_of::<u32>() as u16,
            flags: 0,
            operation: LISTEN,
        };
        // SAFETY: the kernel reads a structure of that length; it has no padding.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), (&raw const wish).cast(), length, 0) };
        checked(sent as i32).map(drop)
    }

    /// Hand on all that has happened. Returns whether something is missing, because too much did.
    pub fn drain(&self, mut observe: impl FnMut(Event)) -> bool {
        let mut lost = false;
        let mut message = [0; 256];
        loop {
            match rustix::io::read(&self.socket, &mut message) {
                Ok(0) | Err(Errno::AGAIN) => return lost,
                Ok(length) => Event::parse(&message[..length]).into_iter().for_each(&mut observe),
                Err(Errno::NOBUFS) => lost = true,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }
}

#[cfg(test)]
impl From<OwnedFd> for Births {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl AsFd for Births {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn checked(result: libc::c_int) -> Result<libc::c_int, Errno> {
    match result < 0 {
        true => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        false => Ok(result),
    }
}
