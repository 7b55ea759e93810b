//! The byte stream to the host: a virtio-serial port, or whatever connection a socket has accepted last.
//!
//! A port is opened once and held: while we hold it nobody else in the guest can open it. It cannot be closed from our side in a way the
//! host would see, so a connection that must end is ended with bytes no decoder accepts, and what the host still sends is
//! thrown away until it has closed and opened the port. The kernel wakes us when it does either; a host that did both faster than we wake
//! would not be noticed, and is told apart by its `hello_request`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::outbox::Outbox;
use crate::poll::{Poller, Slot, Token, LINK, LISTENER};
use crate::protocol::Message;

const PORT_NAME: &str = "firebrick.agent";
pub const VSOCK_PORT: u32 = 1024;

/// A second descriptor of the connection, for words that cannot wait for the event loop.
static HELD: Mutex<Option<OwnedFd>> = Mutex::new(None);
/// How long the host has to take last words before the machine is gone.
const LAST_MOMENT: Duration = Duration::from_millis(200);

enum Carrier {
    Port,
    Listener(OwnedFd),
}

pub struct Link {
    carrier: Carrier,
    stream: Option<OwnedFd>,
    /// The host is on the other side.
    pub connected: bool,
    /// A connection of a port that was ended from our side: until the host closes it, it is not listened to.
    pub condemned: bool,
}

impl Link {
    /// The agent's virtio-serial port, if this machine has it.
    pub fn find_port() -> Option<Self> {
        for entry in std::fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
            let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == PORT_NAME {
                let device = Path::new("/dev").join(entry.file_name());
                let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
                let port = rustix::fs::open(device, flags, Mode::empty()).ok()?;
                hold(Some(&port));
                return Some(Self {
                    carrier: Carrier::Port,
                    stream: Some(port),
                    connected: false,
                    condemned: false,
                });
            }
        }
        None
    }

    fn listen(socket: OwnedFd) -> Result<Self, Errno> {
        rustix::net::listen(&socket, 4)?;
        Ok(Self { carrier: Carrier::Listener(socket), stream: None, connected: false, condemned: false })
    }

    pub fn listen_unix(path: &Path) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        Self::listen(socket)
    }

    pub fn listen_vsock() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
        let address = libc::sockaddr_vm {
            svm_family: libc::AF_VSOCK as libc::sa_family_t,
            svm_reserved1: 0,
            svm_port: VSOCK_PORT,
            svm_cid: libc::VMADDR_CID_ANY,
            svm_zero: [0; 4],
        };
        let length = std::mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: passes a complete address of the socket's own family.
        let bound = unsafe {
            libc::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), (&raw const address).cast(), length)
        };
        if bound < 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        Self::listen(socket)
    }

    pub fn watch(&self, poller: &Poller) -> Result<(), Errno> {
        match &self.carrier {
            Carrier::Port => {
                self.stream().map_or(Ok(()), |port| poller.add(port, Token::new(LINK, Slot::Input)))
            }
            Carrier::Listener(socket) => poller.add(socket, Token::new(LISTENER, Slot::Input)),
        }
    }

    pub fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// A second descriptor of the port, if it is one.
    pub fn port(&self) -> Result<Option<OwnedFd>, Errno> {
        let port = self.stream.as_ref().filter(|_| self.is_port());
        port.map(|port| rustix::io::fcntl_dupfd_cloexec(port, 3)).transpose()
    }

    /// Whether the host coming and going shows as the port hanging up.
    pub fn is_port(&self) -> bool {
        matches!(self.carrier, Carrier::Port)
    }

    /// Take the newest connection; it replaces the one before. Returns whether there was one.
    pub fn accept(&mut self, poller: &Poller) -> Result<bool, Errno> {
        let Carrier::Listener(socket) = &self.carrier else { return Ok(false) };
        let mut newest = None;
        loop {
            match rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(connection) => newest = Some(connection),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Nothing waits, or something is wrong (no descriptor left) that a later connection may not meet.
                Err(_) => break,
            }
        }
        let Some(connection) = newest else { return Ok(false) };
        poller.add(&connection, Token::new(LINK, Slot::Input))?;
        hold(Some(&connection));
        self.stream = Some(connection);
        Ok(true)
    }

    /// The connection is over. Returns whether the host must be told by bytes.
    pub fn close(&mut self, ours: bool) -> bool {
        self.connected = false;
        if self.is_port() {
            self.condemned = ours;
            return ours;
        }
        hold(None); // a connection is closed when its last descriptor is
        self.stream = None;
        false
    }
}

fn hold(connection: Option<&OwnedFd>) {
    let second = connection.and_then(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3).ok());
    if let Ok(mut held) = HELD.lock() {
        *held = second;
    }
}

/// Tell the host why this machine ends, as far as that is possible: on the connection there is, or a port that can still be found.
pub fn last_words(message: &str) {
    if HELD.try_lock().is_ok_and(|held| held.is_none()) {
        // Finding it holds it.
        let _ = Link::find_port();
    }
    // These may be the words of a panic that came while it was locked.
    let held = match HELD.try_lock() {
        Ok(held) => held,
        Err(TryLockError::Poisoned(held)) => held.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    let Some(connection) = held.as_ref() else { return };
    if let Ok(mut outbox) = Outbox::new(None) {
        outbox.message(0, &Message::Fatal { message: message.into() });
        // A host that is not there, or has no room, has the console to read.
        let _ = outbox.flush(connection);
        std::thread::sleep(LAST_MOMENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn last_words_go_to_the_connection_there_is_and_to_none_that_was_closed() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let ours = OwnedFd::from(ours);
        hold(Some(&ours));
        last_words("no root image");
        hold(None);
        last_words("to nobody");
        drop(ours);
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).expect("the other end is closed");
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("fatal") && said.contains("no root image"), "{said}");
        assert!(!said.contains("to nobody"), "{said}");
    }
}
