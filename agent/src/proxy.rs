//! A connection in the guest, its bytes carried both ways: one that `connect` makes, or one that a listener has taken in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    connect, shutdown, socket_with, AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::failure::{show, Failure};
use crate::flow::{Sink, Source};
use crate::outbox::Outbox;
use crate::poll::{Poller, Slot, Token};
use crate::protocol::{Code, ConnectRequest, Message, Violation, OUTPUT};

pub struct Proxy {
    stream: u32,
    name: String,
    /// Kept to ask how connecting went, and to end one direction.
    socket: OwnedFd,
    connected: bool,
    source: Source,
    sink: Sink,
    told_end: bool,
}

impl Proxy {
    pub fn start(stream: u32, key: u32, request: &ConnectRequest, poller: &Poller) -> Result<Self, Failure> {
        let (socket, name) = match (&request.unix, request.port) {
            (Some(path), None) => open_unix(path)?,
            (None, Some(port)) => open_tcp(request.host.as_deref(), port)?,
            _ => return Err(Failure::bad("a connect names either a port or a unix socket")),
        };
        let failed = |errno| Failure::system("connect to", &name, errno);
        let (source, sink) = directions(&socket, key, poller).map_err(failed)?;
        Ok(Self { stream, name, socket, connected: false, source, sink, told_end: false })
    }

    /// A connection that somebody in the guest has made. The host is told.
    pub fn accepted(
        stream: u32,
        key: u32,
        socket: OwnedFd,
        poller: &Poller,
        out: &mut Outbox,
    ) -> Result<Self, Errno> {
        let (source, sink) = directions(&socket, key, poller)?;
        out.message(stream, &Message::Connected);
        Ok(Self { stream, name: String::new(), socket, connected: true, source, sink, told_end: false })
    }

    /// One socket, so whatever happened concerns both directions.
    pub fn ready(&mut self) {
        (self.source.ready, self.sink.ready) = (true, true);
    }

    pub fn grant(&mut self, bytes: u32) {
        self.source.grant(bytes);
    }

    pub fn data(&mut self, data: Vec<u8>) -> Result<(), Violation> {
        self.sink.accept(data)
    }

    pub fn eof(&mut self) {
        self.sink.finish();
    }

    /// Returns `Some(more)` while it goes on, `None` when it is over.
    pub fn advance(&mut self, out: &mut Outbox) -> Option<bool> {
        if !self.connected && !self.greet(out)? {
            return Some(false);
        }
        if self.sink.pump(Some(self.stream), out).is_some() {
            // The other side may have closed already; then there is nothing to end.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        let more = out.has_room() && self.source.pump(self.stream, out, false);
        if self.source.ended() && !self.told_end {
            out.eof(self.stream, OUTPUT);
            self.told_end = true;
        }
        if self.source.ended() && self.sink.ended() {
            out.message(self.stream, &Message::Done { entries: None, bytes: None });
            return None;
        }
        Some(more)
    }

    /// See whether connecting is done. `None`: it has failed, and the host has been told.
    fn greet(&mut self, out: &mut Outbox) -> Option<bool> {
        if !self.sink.ready {
            return Some(false);
        }
        match rustix::net::sockopt::socket_error(&self.socket) {
            Ok(Ok(())) if rustix::net::getpeername(&self.socket).is_err() => Some(false), // not there yet
            Ok(Ok(())) => {
                self.connected = true;
                out.message(self.stream, &Message::Connected);
                Some(true)
            }
            Ok(Err(errno)) | Err(errno) => {
                out.message(self.stream, &refused(&self.name, errno).into_message());
                None
            }
        }
    }
}

/// Both wait for the first word of the poller, which comes at once for what is connected.
fn directions(socket: &OwnedFd, key: u32, poller: &Poller) -> Result<(Source, Sink), Errno> {
    let duplicate = || rustix::io::fcntl_dupfd_cloexec(socket, 3);
    let (mut source, mut sink) = (Source::new(duplicate()?, OUTPUT), Sink::new(duplicate()?));
    (source.ready, sink.ready) = (false, false);
    source.watch(poller, Token::new(key, Slot::Output))?;
    sink.watch(poller, Token::new(key, Slot::Input))?;
    Ok((source, sink))
}

fn refused(name: &str, errno: Errno) -> Failure {
    let failure = Failure::system("connect to", name, errno);
    match errno {
        Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH => {
            Failure { code: Code::NotFound, ..failure }
        }
        _ => failure,
    }
}

fn open(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn begin(result: Result<(), Errno>, name: &str) -> Result<(), Failure> {
    match result {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(errno) => Err(refused(name, errno)),
    }
}

fn open_unix(path: &[u8]) -> Result<(OwnedFd, String), Failure> {
    let name = show(path);
    let failed = |errno| Failure::system("connect to", &name, errno);
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let socket = open(AddressFamily::UNIX).map_err(failed)?;
    begin(connect(&socket, &address), &name)?;
    Ok((socket, name))
}

fn open_tcp(host: Option<&str>, port: u16) -> Result<(OwnedFd, String), Failure> {
    let address = match host {
        None | Some("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(host) => host.parse().map_err(|_| Failure::bad(format!("{host:?} is not an IP address")))?,
    };
    let address = SocketAddr::new(address, port);
    let name = address.to_string();
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = open(family).map_err(|errno| Failure::system("connect to", &name, errno))?;
    // Small writes are answers somebody waits for. A kernel that refuses is only slower.
    let _ = rustix::net::sockopt::set_tcp_nodelay(socket.as_fd(), true);
    begin(connect(&socket, &address), &name)?;
    Ok((socket, name))
}
