//! The queue the kernel's process events come in: a netlink socket of the connector `cn_proc`. Whatever runs in the machine can fill it as fast as it
//! can call the kernel, so what is of no interest never reaches it, and nobody reads it for ever.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::sock_filter;
use rustix::io::Errno;

use crate::filter::{equal, give, load};
use crate::lineage::{Event, EXEC, EXIT, FORK, HEADERS};

const CONNECTOR: libc::c_int = 11;
const PROCESSES: u32 = 1;
const LISTEN: u32 = 1;
/// Room for the births of tens of thousands of processes while nobody reads.
const QUEUE: libc::c_int = 64 << 20;
/// More messages than fit into it, of which the kernel counts each as more than 512 bytes, and the size twice.
const MOST: usize = (2 * QUEUE as usize) / 512;

/// Programs change their names and users as often as they like: births, new programs and ends are let in, and nothing else.
static OF_INTEREST: [sock_filter; 6] = [
    load(HEADERS as u32),
    equal(FORK.to_be(), 2, 0),
    equal(EXEC.to_be(), 1, 0),
    equal(EXIT.to_be(), 0, 1),
    give(u32::MAX),
    give(0),
];

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
        only_of_interest(&socket)?;
        // SAFETY: all fields of this structure are integers, for which zero is a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = PROCESSES;
        let length = size_of::<libc::sockaddr_nl>() as u32;
        // SAFETY: the kernel reads an address of that length.
        checked(unsafe { libc::bind(raw, (&raw const address).cast(), length) })?;
        set_option(&socket, libc::SO_RCVBUFFORCE, &QUEUE)?;
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

    /// Hand on all that has happened until now. Returns whether something is missing, because too much did.
    pub fn drain(&self, observe: impl FnMut(Event)) -> bool {
        drain(|message| rustix::io::read(&self.socket, message), observe)
    }
}

/// What comes meanwhile may be as much as is read: it is left.
fn drain(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>, mut observe: impl FnMut(Event)) -> bool {
    let mut lost = false;
    let mut message = [0; 256];
    for _ in 0..MOST {
        match read(&mut message) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(length) => Event::parse(&message[..length]).into_iter().for_each(&mut observe),
            Err(Errno::NOBUFS) => lost = true,
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
    lost
}

fn only_of_interest(socket: &OwnedFd) -> Result<(), Errno> {
    let filter = OF_INTEREST.as_ptr().cast_mut();
    let program = libc::sock_fprog { len: OF_INTEREST.len() as u16, filter };
    set_option(socket, libc::SO_ATTACH_FILTER, &program)
}

fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let length = size_of::<T>() as u32;
    // SAFETY: the kernel reads a value of that length, and the filter it may point to, which is there for ever.
    checked(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const *value).cast(), length)
    })
    .map(drop)
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const COMM: u32 = 0x200;

    fn message(what: u32) -> Vec<u8> {
        let mut raw = vec![0; HEADERS + 40];
        raw[HEADERS..HEADERS + 4].copy_from_slice(&what.to_ne_bytes());
        raw
    }

    #[test]
    fn what_is_of_no_interest_does_not_reach_the_queue() {
        let (kernel, ours) = UnixDatagram::pair().expect("sockets");
        ours.set_nonblocking(true).expect("a socket");
        let births = Births::from(OwnedFd::from(ours));
        only_of_interest(&births.socket).expect("a filter");
        for what in [COMM, FORK, COMM, EXEC, EXIT, 0, 4] {
            kernel.send(&message(what)).expect("sent");
        }
        let mut seen = Vec::new();
        assert!(!births.drain(|event| seen.push(event)));
        let expected = [
            Event::Birth { parent: 0, task: 0, process: 0 },
            Event::Program { process: 0 },
            Event::Exit { task: 0, process: 0 },
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_flood_is_not_read_for_ever() {
        let raw = message(FORK);
        let mut seen = 0;
        let lost = drain(
            |target| {
                target[..raw.len()].copy_from_slice(&raw);
                Ok(raw.len())
            },
            |_| seen += 1,
        );
        assert!(!lost);
        assert_eq!(seen, MOST);
    }
}
