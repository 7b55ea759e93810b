//! The two directions of a stream's bytes: a source reads a descriptor as far as the host's credit goes, a sink writes what the host
//! has sent and grants more as it does. Descriptors are non-blocking and watched edge-triggered: `ready` remembers the edge.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::outbox::{discard, Outbox};
use crate::poll::{Poller, Token};
use crate::protocol::{Violation, INITIAL_CREDIT, INPUT};

/// What one turn moves at most: a stream that floods shares the port with the others.
const TURN: usize = 256 * 1024;
/// What a pipe holds when it is new.
const NEW_PIPE: usize = 64 * 1024;
/// Credit is granted in steps of this, so that a keystroke does not cost a frame back.
pub const GRANT: u32 = 64 * 1024;

pub struct Source {
    fd: Option<OwnedFd>,
    channel: u8,
    /// Its bytes come in pages that can be moved.
    pipe: bool,
    /// The pipe was full once, and is larger now.
    wide: bool,
    credit: u32,
    /// The host has been told of the end, though a process may still hold the other side.
    over: bool,
    pub ready: bool,
}

impl Source {
    pub fn new(fd: OwnedFd, channel: u8) -> Self {
        Self {
            fd: Some(fd),
            channel,
            pipe: false,
            wide: false,
            credit: INITIAL_CREDIT,
            over: false,
            ready: true,
        }
    }

    pub fn of_pipe(fd: OwnedFd, channel: u8) -> Self {
        Self { pipe: true, ..Self::new(fd, channel) }
    }

    pub fn watch(&self, poller: &Poller, token: Token) -> Result<(), Errno> {
        self.fd.as_ref().map_or(Ok(()), |fd| poller.add(fd, token))
    }

    pub fn channel(&self) -> u8 {
        self.channel
    }

    pub fn ended(&self) -> bool {
        self.over || self.fd.is_none()
    }

    pub fn grant(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// Move one turn's worth. Returns whether another turn may move more. With `last`, nothing more is waited for: empty is the end.
    pub fn pump(&mut self, stream: u32, out: &mut Outbox, last: bool) -> bool {
        let limit = TURN.min(self.credit as usize);
        let Some(fd) = &self.fd else { return false };
        if self.over || !(self.ready || last) || limit == 0 {
            return false;
        }
        let read = match self.pipe {
            true => out.move_from(fd, stream, self.channel, limit),
            false => out.read_from(fd, stream, self.channel, limit),
        };
        if let Ok(length) = read {
            self.credit -= length as u32; // at most `limit`, which came from it
            out.flooded = self.pipe && length >= NEW_PIPE;
            if out.flooded && !self.wide {
                widen(fd);
                self.wide = true;
            }
        }
        self.over = last && read == Err(Errno::AGAIN);
        self.settle(read)
    }

    /// Read and forget one turn's worth, for a stream that nobody listens to any more.
    pub fn drain(&mut self, scratch: &mut Vec<u8>) -> bool {
        let Some(fd) = self.fd.as_ref().filter(|_| self.ready) else { return false };
        let read = discard(fd, scratch);
        self.settle(read)
    }

    fn settle(&mut self, read: Result<usize, Errno>) -> bool {
        match read {
            Ok(1..) | Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => {
                self.ready = false;
                false
            }
            // The end; EIO is how a terminal says it. Any other error ends the channel as well: there is nothing to be done about it.
            _ => {
                self.fd = None;
                false
            }
        }
    }
}

/// A pipe that was full moves more at a time from now on: fewer turns, fewer switches between the writer and us.
fn widen(fd: &OwnedFd) {
    // Fails where the user's pipe pages are used up; then it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(fd, 2 * TURN);
}

pub struct Sink {
    fd: Option<OwnedFd>,
    queue: VecDeque<Vec<u8>>,
    /// How much of the first piece is written.
    offset: usize,
    /// What the host may still send.
    allowance: u32,
    /// What it has sent that is consumed and not granted again yet.
    consumed: u32,
    eof: bool,
    pub ready: bool,
}

impl Sink {
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd: Some(fd),
            queue: VecDeque::new(),
            offset: 0,
            allowance: INITIAL_CREDIT,
            consumed: 0,
            eof: false,
            ready: true,
        }
    }

    pub fn watch(&self, poller: &Poller, token: Token) -> Result<(), Errno> {
        self.fd.as_ref().map_or(Ok(()), |fd| poller.add(fd, token))
    }

    /// Everything has been written and no more comes.
    pub fn ended(&self) -> bool {
        self.fd.is_none()
    }

    pub fn accept(&mut self, data: Vec<u8>) -> Result<(), Violation> {
        spend(&mut self.allowance, data.len())?;
        if self.eof {
            return Err(Violation("data after the end of a channel".into()));
        }
        if self.fd.is_none() {
            self.consumed += data.len() as u32; // at most the allowance
        } else if !data.is_empty() {
            self.queue.push_back(data);
        }
        Ok(())
    }

    /// A byte of our own at the end of what the host has sent so far.
    pub fn append(&mut self, byte: u8) {
        if self.fd.is_some() {
            self.queue.push_back(vec![byte]);
        }
    }

    pub fn finish(&mut self) {
        self.eof = true;
    }

    pub fn close(&mut self) {
        self.fd = None;
        self.consumed += self.queue.iter().map(|piece| piece.len() as u32).sum::<u32>() - self.offset as u32;
        self.offset = 0;
        self.queue.clear();
    }

    /// Write what the descriptor takes, grant what that consumed. Returns the descriptor once all is written after the end, so that the
    /// caller can end it as its kind wants; dropping it closes it.
    pub fn pump(&mut self, stream: Option<u32>, out: &mut Outbox) -> Option<OwnedFd> {
        self.write();
        if let (Some(stream), GRANT..) = (stream, self.consumed) {
            out.credit(stream, INPUT, self.consumed);
            self.allowance += self.consumed;
            self.consumed = 0;
        }
        if self.eof && self.queue.is_empty() {
            return self.fd.take();
        }
        None
    }

    fn write(&mut self) {
        while let (true, Some(fd), Some(piece)) = (self.ready, &self.fd, self.queue.front()) {
            match rustix::io::write(fd, &piece[self.offset..]) {
                Ok(written) => self.advance(written),
                Err(Errno::AGAIN) => self.ready = false,
                Err(Errno::INTR) => {}
                // Nobody reads any more: what the host still sends is dropped, as a pipe would.
                Err(_) => self.close(),
            }
        }
    }

    fn advance(&mut self, written: usize) {
        self.offset += written;
        self.consumed += written as u32; // a piece is a frame, far below 4 GiB
        if self.queue.front().is_some_and(|piece| piece.len() == self.offset) {
            self.queue.pop_front();
            self.offset = 0;
        }
    }
}

/// Take `length` bytes off what the host may send.
pub fn spend(allowance: &mut u32, length: usize) -> Result<(), Violation> {
    match allowance.checked_sub(length as u32) {
        Some(left) => {
            *allowance = left;
            Ok(())
        }
        None => Err(Violation("data beyond the credit".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{pipe_with, PipeFlags};

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::NONBLOCK).expect("a pipe")
    }

    #[test]
    fn a_source_stops_at_the_credit_and_goes_on_with_more() {
        let (read, write) = pipe();
        let mut source = Source::new(read, 1);
        let mut out = Outbox::new(None).expect("no port, no pipe");
        let mut sent = 0;
        while sent < INITIAL_CREDIT as usize {
            sent += rustix::io::write(&write, &[0; 65536]).expect("room in the pipe");
            while source.pump(1, &mut out, false) {}
            source.ready = true;
            out.clear();
        }
        rustix::io::write(&write, b"more").expect("room in the pipe");
        assert!(!source.pump(1, &mut out, false) && out.is_empty());
        source.grant(4);
        assert!(source.pump(1, &mut out, false) && !out.is_empty());
        drop(write);
        source.grant(1);
        assert!(!source.pump(1, &mut out, false) && source.ended());
    }

    #[test]
    fn a_source_does_not_wait_for_a_writer_at_the_last_turn() {
        let (read, _write) = pipe();
        let mut source = Source::new(read, 1);
        assert!(!source.pump(1, &mut Outbox::new(None).expect("no port, no pipe"), false) && !source.ended());
        assert!(!source.pump(1, &mut Outbox::new(None).expect("no port, no pipe"), true) && source.ended());
    }

    #[test]
    fn a_sink_holds_no_more_than_the_credit() {
        let (_read, write) = pipe();
        let mut sink = Sink::new(write);
        let mut out = Outbox::new(None).expect("no port, no pipe");
        for _ in 0..4 {
            sink.accept(vec![0; 65536]).expect("within the credit");
        }
        assert!(sink.accept(vec![0]).is_err());
        assert!(sink.pump(Some(1), &mut out).is_none());
        assert!(!out.is_empty(), "what the pipe took is granted again");
    }

    #[test]
    fn a_sink_without_a_reader_drops_what_comes() {
        let (read, write) = pipe();
        drop(read);
        let mut sink = Sink::new(write);
        let mut out = Outbox::new(None).expect("no port, no pipe");
        sink.accept(vec![0; 100_000]).expect("within the credit");
        assert!(sink.pump(Some(1), &mut out).is_none() && sink.ended() && !out.is_empty());
        sink.accept(vec![0; 100_000]).expect("still within the credit");
        sink.finish();
        assert!(sink.accept(vec![0]).is_err(), "nothing may come after the end");
    }
}
