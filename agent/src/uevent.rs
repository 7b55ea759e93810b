//! The kernel's announcements of devices, so that waiting for one is not polling.

use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;

const PATIENCE: Duration = Duration::from_secs(10);
const KERNEL_GROUP: u32 = 1;

pub struct Listener {
    socket: OwnedFd,
    until: Instant,
}

impl Listener {
    pub fn new() -> Result<Self, String> {
        let failed = || format!("cannot listen for devices: {}", std::io::Error::last_os_error());
        // SAFETY: makes a descriptor that belongs to nobody else, and binds it to a complete address of its own family.
        let socket = unsafe {
            let flags = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let fd = libc::socket(libc::AF_NETLINK, flags, libc::NETLINK_KOBJECT_UEVENT);
            if fd < 0 {
                return Err(failed());
            }
            let socket = OwnedFd::from_raw_fd(fd);
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            address.nl_groups = KERNEL_GROUP;
            let length = std::mem::size_of_val(&address) as libc::socklen_t;
            if libc::bind(fd, (&raw const address).cast(), length) < 0 {
                return Err(failed());
            }
            socket
        };
        Ok(Self { socket, until: Instant::now() + PATIENCE })
    }

    /// Wait for something to be announced. `false`: it has been long enough.
    pub fn wait(&self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        let _ = rustix::event::poll(&mut sockets, Some(&timeout));
        // What was announced does not matter: whoever waits looks for what it wants.
        let mut news = [0u8; 4096];
        while rustix::io::read(&self.socket, &mut news).is_ok_and(|length| length > 0) {}
        !left.is_zero()
    }
}
