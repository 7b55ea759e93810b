//! `listen` and `accept`: ports on the guest's loopback, or unix sockets, whose connections go to the host.
//!
//! A listener is open as long as its stream. The kernel holds connections nobody has asked for yet, a bounded number; each `accept` takes one and
//! becomes it. So nothing comes from the guest that the host has not made room for.

use std::cell::Cell;
use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{
    accept_with, bind, getsockname, listen, shutdown, socket_with, AddressFamily, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::failure::{show, Failure};
use crate::outbox::Outbox;
use crate::poll::{Poller, Slot, Token};
use crate::protocol::{Code, ListenRequest};
use crate::proxy::Proxy;

/// Connections of one listener that the host has not asked for.
const BACKLOG: i32 = 128;

/// Where connections come in. Shared with those who wait for one, who learn of its end here.
pub struct Door {
    socket: OwnedFd,
    name: String,
    ready: Cell<bool>,
    open: Cell<bool>,
    poller: Rc<Poller>,
}

pub struct Listener {
    door: Rc<Door>,
    port: Option<u16>,
    /// Removed at the end.
    path: Option<PathBuf>,
}

impl Listener {
    pub fn start(key: u32, request: &ListenRequest, poller: &Rc<Poller>) -> Result<Self, Failure> {
        let (socket, name, path) = match (&request.unix, request.port) {
            (Some(path), None) => open_unix(path)?,
            (None, Some(port)) => open_tcp(request.host.as_deref(), port)?,
            _ => return Err(Failure::bad("a listen names either a port or a unix socket")),
        };
        // From here on the end of the listener removes what it has made.
        let door =
            Door { socket, name, ready: Cell::new(true), open: Cell::new(true), poller: poller.clone() };
        let mut listener = Self { door: Rc::new(door), port: None, path };
        listener.begin(key).map_err(|errno| Failure::system("listen on", &listener.door.name, errno))?;
        Ok(listener)
    }

    fn begin(&mut self, key: u32) -> Result<(), Errno> {
        let socket = &self.door.socket;
        listen(socket, BACKLOG)?;
        self.door.poller.add(socket, Token::new(key, Slot::Input))?;
        self.port = SocketAddr::try_from(getsockname(socket)?).ok().map(|address| address.port());
        Ok(())
    }

    /// Where it listens; nothing for a unix socket.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    pub fn door(&self) -> Rc<Door> {
        self.door.clone()
    }

    pub fn ready(&self) {
        self.door.ready.set(true);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.door.open.set(false);
        // Those who wait may hold the socket for a moment still; the port is free, and its queue refused, now.
        let _ = shutdown(&self.door.socket, Shutdown::Both);
        if let Some(path) = &self.path {
            // The user may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An `accept` whose connection has not come yet.
pub struct Waiting {
    stream: u32,
    key: u32,
    door: Rc<Door>,
}

impl Waiting {
    pub fn new(stream: u32, key: u32, door: Rc<Door>) -> Self {
        Self { stream, key, door }
    }

    /// The connection once there is one. An error has been told to the host.
    pub fn advance(&mut self, out: &mut Outbox) -> Result<Option<Proxy>, ()> {
        let taken = self.take(out);
        taken.map_err(|failure| out.message(self.stream, &failure.into_message()))
    }

    fn take(&self, out: &mut Outbox) -> Result<Option<Proxy>, Failure> {
        let failed = |errno| Failure::system("accept a connection on", &self.door.name, errno);
        while self.door.open.get() && self.door.ready.get() {
            match accept_with(&self.door.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => return self.connected(socket, out).map(Some).map_err(failed),
                Err(Errno::AGAIN) => self.door.ready.set(false),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        match self.door.open.get() {
            true => Ok(None),
            false => {
                Err(Failure::new(Code::NotFound, format!("nothing listens on {} any more", self.door.name)))
            }
        }
    }

    fn connected(&self, socket: OwnedFd, out: &mut Outbox) -> Result<Proxy, Errno> {
        // Refused for a unix socket, which has no such delay.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
        Proxy::accepted(self.stream, self.key, socket, &self.door.poller, out)
    }
}

type Opened = (OwnedFd, String, Option<PathBuf>);

fn open(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn open_tcp(host: Option<&str>, port: u16) -> Result<Opened, Failure> {
    let address = loopback(host)?;
    let address = SocketAddr::new(address, port);
    let name = address.to_string();
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let bound = || {
        let socket = open(family)?;
        // Connections of an earlier listener that linger do not keep the port.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        Ok(socket)
    };
    let socket = bound().map_err(|errno| Failure::system("listen on", &name, errno))?;
    Ok((socket, name, None))
}

/// Nothing but the guest itself may reach what the host offers to it.
fn loopback(host: Option<&str>) -> Result<IpAddr, Failure> {
    let address = match host {
        None | Some("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(host) => host.parse().map_err(|_| Failure::bad(format!("{host:?} is not an IP address")))?,
    };
    match address.is_loopback() {
        true => Ok(address),
        false => Err(Failure::bad(format!("{address} is no address of the loopback"))),
    }
}

/// Everybody in the guest may connect, as to a port.
fn open_unix(path: &[u8]) -> Result<Opened, Failure> {
    let name = show(path);
    let failed = |errno| Failure::system("listen on", &name, errno);
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let socket = open(AddressFamily::UNIX).map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    // Narrower rights than wished for are seen by who connects.
    let _ = std::fs::set_permissions(path, Permissions::from_mode(0o666));
    Ok((socket, name.clone(), Some(path.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Decoder, Frame, Message, OUTPUT};
    use std::io::{Read, Write};
    use std::net::{Shutdown as Half, TcpStream};

    const KEY: u32 = 20;

    fn request(port: Option<u16>, host: Option<&str>, unix: Option<&[u8]>) -> ListenRequest {
        ListenRequest {
            port,
            host: host.map(Into::into),
            unix: unix.map(|path| serde_bytes::ByteBuf::from(path.to_vec())),
        }
    }

    fn listener(poller: &Rc<Poller>) -> Listener {
        Listener::start(KEY, &request(Some(0), None, None), poller).expect("a port")
    }

    fn refusal(request: &ListenRequest) -> Code {
        let poller = Rc::new(Poller::new().expect("epoll"));
        Listener::start(KEY, request, &poller).map(|_| ()).expect_err("a refusal").code
    }

    /// What an outbox would send.
    fn sent(out: &mut Outbox) -> Vec<Frame> {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        rustix::pipe::fcntl_setpipe_size(&write, 1 << 20).expect("a large pipe");
        out.flush(&write).expect("room in the pipe");
        drop(write);
        let mut bytes = Vec::new();
        std::fs::File::from(read).read_to_end(&mut bytes).expect("what was written");
        let (mut decoder, mut input, mut frames) = (Decoder::default(), bytes.as_slice(), Vec::new());
        while let Some(frame) = decoder.next(&mut input).expect("frames of ours") {
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn listens_on_the_loopback_alone() {
        assert_eq!(refusal(&request(Some(0), Some("0.0.0.0"), None)), Code::BadRequest);
        assert_eq!(refusal(&request(Some(0), Some("10.0.0.1"), None)), Code::BadRequest);
        assert_eq!(refusal(&request(Some(0), Some("::"), None)), Code::BadRequest);
        assert_eq!(refusal(&request(Some(0), Some("example.org"), None)), Code::BadRequest);
        assert_eq!(refusal(&request(None, None, None)), Code::BadRequest);
        assert_eq!(refusal(&request(Some(1), None, Some(b"/x"))), Code::BadRequest);
        assert_eq!(refusal(&request(None, None, Some(b"/no/such/directory/s"))), Code::NotFound);
    }

    #[test]
    fn a_port_is_taken_once_and_free_again_after() {
        let poller = Rc::new(Poller::new().expect("epoll"));
        let first = listener(&poller);
        let port = first.port().expect("a port");
        assert_eq!(refusal(&request(Some(port), None, None)), Code::Exists);
        let mut waiting = Waiting::new(3, KEY + 1, first.door());
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        drop(first);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        let mut out = Outbox::new(None).expect("no port, no pipe");
        assert!(waiting.advance(&mut out).is_err() && !out.is_empty(), "who waits is told");
        Listener::start(KEY, &request(Some(port), None, None), &poller).expect("the port is free");
    }

    #[test]
    fn a_unix_socket_is_gone_with_its_listener() {
        let path = std::env::temp_dir().join(format!("firebrick-listener-{}", std::process::id()));
        let poller = Rc::new(Poller::new().expect("epoll"));
        let name = path.as_os_str().as_bytes();
        let first = Listener::start(KEY, &request(None, None, Some(name)), &poller).expect("a socket");
        assert_eq!((first.port(), refusal(&request(None, None, Some(name)))), (None, Code::Exists));
        std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_connection_becomes_the_stream_that_waited() {
        let poller = Rc::new(Poller::new().expect("epoll"));
        let listener = listener(&poller);
        let mut waiting = Waiting::new(7, KEY + 1, listener.door());
        let mut out = Outbox::new(None).expect("no port, no pipe");
        assert!(matches!(waiting.advance(&mut out), Ok(None)) && out.is_empty());
        let mut client =
            TcpStream::connect(("127.0.0.1", listener.port().expect("a port"))).expect("it listens");
        assert!(matches!(waiting.advance(&mut out), Ok(None)), "nothing is tried before the poller says so");
        listener.ready();
        let mut proxy = waiting.advance(&mut out).expect("no error").expect("the connection");
        client.write_all(b"question").expect("room");
        client.shutdown(Half::Write).expect("still open");
        proxy.data(b"answer".to_vec()).expect("within the credit");
        proxy.eof();
        let mut over = false;
        while !over {
            proxy.ready();
            over = proxy.advance(&mut out).is_none();
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer");
        assert_eq!(answer, "answer");
        let frames = sent(&mut out);
        assert!(frames.iter().all(|frame| frame.stream == 7));
        assert_eq!(frames[0], control(&Message::Connected));
        assert_eq!(frames[1].body, crate::protocol::Body::Data(b"question".to_vec()));
        assert_eq!((frames[2].channel, &frames[2].body), (OUTPUT, &crate::protocol::Body::Eof));
        assert_eq!(frames[3], control(&Message::Done { entries: None, bytes: None }));
    }

    fn control(message: &Message) -> Frame {
        Frame {
            stream: 7,
            channel: 0,
            body: crate::protocol::Body::Control(crate::protocol::encode(message)),
        }
    }

    #[test]
    fn what_nobody_takes_stays_in_a_bounded_queue() {
        let poller = Rc::new(Poller::new().expect("epoll"));
        let listener = listener(&poller);
        let _clients: Vec<TcpStream> = (0..4)
            .map(|_| TcpStream::connect(("127.0.0.1", listener.port().expect("a port"))).expect("queued"))
            .collect();
        let mut out = Outbox::new(None).expect("no port, no pipe");
        listener.ready();
        let taken: Vec<_> = (0..5)
            .map(|n| Waiting::new(n, KEY + n, listener.door()).advance(&mut out).expect("no error").is_some())
            .collect();
        assert_eq!(taken, [true, true, true, true, false]);
    }
}
