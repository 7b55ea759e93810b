//! Meeting Firecracker: one connection, one message, one descriptor.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    accept_with, recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags,
};
use rustix::process::{geteuid, pidfd_open, PidfdFlags};

use crate::failure::{Failure, Outcome, Status};
use crate::mapping;
use crate::region::Region;
use crate::signals::Signals;
use crate::uffd::Uffd;

/// The kernel hands over more in pieces.
const MESSAGE: usize = 32 << 10;
/// Firecracker speaks as soon as it has connected.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

pub struct Peer {
    pub uffd: Uffd,
    pub regions: Vec<Region>,
    /// Readable when Firecracker has ended.
    pub process: OwnedFd,
    /// Firecracker holds the other end for as long as it lives.
    pub connection: OwnedFd,
}

/// Wait for Firecracker. None: a signal told us to end instead. `memory` is the size of the memory file.
pub fn meet(listener: &OwnedFd, signals: &Signals, memory: u64) -> Outcome<Option<Peer>> {
    let Some((connection, process)) = accept(listener, signals)? else { return Ok(None) };
    if !wait(&connection, signals, Some(&PATIENCE))? {
        return Ok(None);
    }
    let (message, fd) = receive(&connection)?;
    let regions = mapping::parse(&message, memory).map_err(|what| bad(&format!("the message {what}")))?;
    let uffd = Uffd::new(fd).map_err(|what| bad(&format!("the descriptor {what}")))?;
    Ok(Some(Peer { uffd, regions, process, connection }))
}

fn bad(what: &str) -> Failure {
    Failure::new(Status::Handshake, format!("Firecracker's handshake cannot be used: {what}"))
}

/// The first connection of a process that runs as we do, and that process. Others are sent away.
fn accept(listener: &OwnedFd, signals: &Signals) -> Outcome<Option<(OwnedFd, OwnedFd)>> {
    let failed = |errno| Failure::system(Status::Host, "accept a connection", errno);
    loop {
        if !wait(listener, signals, None)? {
            return Ok(None);
        }
        let connection = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        let peer = socket_peercred(&connection).map_err(failed)?;
        if peer.uid != geteuid() {
            eprintln!("firebrick-pager: a process of user {} is not served", peer.uid.as_raw());
            continue;
        }
        let process = pidfd_open(peer.pid, PidfdFlags::empty()).map_err(|errno| {
            bad(&format!("process {} cannot be watched: {errno}", peer.pid.as_raw_nonzero()))
        })?;
        return Ok(Some((connection, process)));
    }
}

/// Wait until there is something to read. False: a signal told us to end.
fn wait(fd: impl AsFd, signals: &Signals, patience: Option<&Timespec>) -> Outcome<bool> {
    loop {
        let mut fds = [PollFd::new(&fd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut fds, patience) {
            Ok(0) => return Err(bad("nothing was said for ten seconds")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::system(Status::Host, "wait", errno)),
        }
        let ready = !fds[0].revents().is_empty();
        if signals.take().is_some_and(|signal| signal != libc::SIGUSR1) {
            return Ok(false);
        }
        if ready {
            return Ok(true);
        }
    }
}

fn receive(connection: &OwnedFd) -> Outcome<(Vec<u8>, OwnedFd)> {
    let mut bytes = vec![0; MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(connection, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
        .map_err(|errno| bad(&format!("it cannot be received: {errno}")))?;
    // Taken out in any case: what is taken out is closed.
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.bytes == 0 {
        return Err(bad("the connection was closed without a word"));
    }
    if got.bytes == MESSAGE || got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(bad("it is too large"));
    }
    bytes.truncate(got.bytes);
    match (fds.pop(), fds.is_empty()) {
        (Some(fd), true) => Ok((bytes, fd)),
        (None, _) => Err(bad("no descriptor came with it")),
        _ => Err(bad("more than one descriptor came with it")),
    }
}
