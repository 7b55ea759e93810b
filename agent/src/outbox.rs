//! What is on its way to the host. Process output is read from its pipe straight behind its frame header, so that a byte is copied once
//! between the pipe and the link; where the link is a port and there is much of it, the pages of the pipe go to the port uncopied.

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::console::say;
use crate::protocol::{self, encode_header, Kind, Message, HEADER};

/// Output of streams waits in its pipes while more than this is on its way: it bounds memory, and how long an answer can queue behind output.
const ROOM: usize = 256 * 1024;
const SPLICE_FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
/// What the pipe for pages can hold: more than is ever put in.
const PAGES: usize = ROOM;
/// Less than this is copied: a frame of its own for each would cost more than the copy.
const SPLICE: usize = 16 * 1024;
/// Nothing is read from the host while more than this is on its way: a host that asks and never reads cannot fill our memory.
const FULL: usize = 4 * ROOM;

pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    port: Option<Port>,
    /// The last output that was read was as much as a pipe holds: its program writes faster than is read.
    pub flooded: bool,
}

/// A link that takes pages: a virtio-serial port, and a pipe to collect them in.
struct Port {
    link: OwnedFd,
    pages: (OwnedFd, OwnedFd),
}

impl Outbox {
    /// `port`: the link, where it is a virtio-serial port.
    pub fn new(port: Option<OwnedFd>) -> Result<Self, Errno> {
        let port = match port {
            Some(link) => Some(Port { link, pages: pages()? }),
            None => None,
        };
        Ok(Self { bytes: Vec::with_capacity(64 * 1024), sent: 0, port, flooded: false })
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    pub fn has_room(&self) -> bool {
        self.waiting() < ROOM
    }

    pub fn is_full(&self) -> bool {
        self.waiting() >= FULL
    }

    pub fn message(&mut self, stream: u32, message: &Message) {
        let raw = protocol::encode(message);
        self.frame(stream, Kind::Control, 0, &raw);
    }

    pub fn credit(&mut self, stream: u32, channel: u8, granted: u32) {
        self.frame(stream, Kind::Credit, channel, &granted.to_le_bytes());
    }

    pub fn eof(&mut self, stream: u32, channel: u8) {
        self.frame(stream, Kind::Eof, channel, &[]);
    }

    pub fn data(&mut self, stream: u32, channel: u8, bytes: &[u8]) {
        self.frame(stream, Kind::Data, channel, bytes);
    }

    /// Bytes that no decoder accepts, for a link that cannot be closed from this side: the host sees the connection end.
    pub fn hang_up(&mut self) {
        self.clear();
        self.bytes.extend_from_slice(&[0xff; HEADER]);
    }

    fn frame(&mut self, stream: u32, kind: Kind, channel: u8, payload: &[u8]) {
        self.bytes.extend_from_slice(&encode_header(payload.len(), stream, kind, channel));
        self.bytes.extend_from_slice(payload);
    }

    /// Read at most `limit` bytes from `fd` as one data frame. Returns how many; 0 is the end and leaves no frame.
    pub fn read_from(
        &mut self,
        fd: impl AsFd,
        stream: u32,
        channel: u8,
        limit: usize,
    ) -> Result<usize, Errno> {
        let start = self.bytes.len();
        self.bytes.reserve(HEADER + limit);
        self.bytes.extend_from_slice(&[0; HEADER]);
        // The reservation may be larger than asked for; the frame must not be.
        let spare = &mut self.bytes.spare_capacity_mut()[..limit];
        let read = rustix::io::read(fd, spare).map(|(filled, _)| filled.len());
        let Ok(length @ 1..) = read else {
            self.bytes.truncate(start);
            return read;
        };
        // SAFETY: the kernel has filled `length` bytes behind the header, within the capacity reserved above.
        unsafe { self.bytes.set_len(start + HEADER + length) };
        self.bytes[start..start + HEADER].copy_from_slice(&encode_header(
            length,
            stream,
            Kind::Data,
            channel,
        ));
        Ok(length)
    }

    /// As `read_from`, for a pipe.
    pub fn move_from(
        &mut self,
        pipe: impl AsFd,
        stream: u32,
        channel: u8,
        limit: usize,
    ) -> Result<usize, Errno> {
        let Some(port) = self.port.take() else { return self.read_from(pipe, stream, channel, limit) };
        let moved = self.move_pages(&port, &pipe, stream, channel, limit);
        self.port = Some(port);
        moved.unwrap_or_else(|| self.read_from(pipe, stream, channel, limit))
    }

    /// Move what the pipe holds without a copy, if that is worth it and nothing waits before it.
    fn move_pages(
        &mut self,
        port: &Port,
        pipe: impl AsFd,
        stream: u32,
        channel: u8,
        limit: usize,
    ) -> Option<Result<usize, Errno>> {
        let waiting = rustix::io::ioctl_fionread(&pipe).ok()?.min(limit as u64) as usize;
        if waiting < SPLICE || self.flush(&port.link).is_err() {
            return None;
        }
        // Into a pipe of our own first: nobody else can read from it or write to it, so its length is certain when the header names it.
        let length = match rustix::pipe::splice(pipe, None, &port.pages.1, None, waiting, SPLICE_FLAGS) {
            Ok(length @ 1..) => length,
            Ok(_) => return None,
            Err(errno) => return Some(Err(errno)),
        };
        self.bytes.extend_from_slice(&encode_header(length, stream, Kind::Data, channel));
        let header_sent = self.flush(&port.link).is_ok();
        self.empty_pages(port, length, header_sent);
        Some(Ok(length))
    }

    /// The pages go to the port all at once (its driver cannot take a part of a pipe), or, if it has no room now, are copied to wait for it.
    fn empty_pages(&mut self, port: &Port, length: usize, header_sent: bool) {
        let mut left = length;
        if header_sent {
            if let Ok(moved) =
                rustix::pipe::splice(&port.pages.0, None, &port.link, None, PAGES, SPLICE_FLAGS)
            {
                left = left.saturating_sub(moved);
            }
        }
        let end = self.bytes.len() + left;
        while self.bytes.len() < end {
            let missing = end - self.bytes.len();
            self.bytes.reserve(missing);
            let spare = &mut self.bytes.spare_capacity_mut()[..missing];
            let Ok(read @ 1..) = rustix::io::read(&port.pages.0, spare).map(|(filled, _)| filled.len())
            else {
                // The driver drops what it has taken when it runs out of memory. The frame keeps the length its header has promised.
                say("the kernel has lost output for want of memory");
                break;
            };
            // SAFETY: the kernel has filled `read` bytes behind the end, within the capacity reserved above.
            unsafe { self.bytes.set_len(end - missing + read) };
        }
        self.bytes.resize(end, 0);
    }

    /// Write as much as the link takes now. `Err(AGAIN)`: the link is full, wait for it.
    pub fn flush(&mut self, link: impl AsFd) -> Result<(), Errno> {
        while self.sent < self.bytes.len() {
            match rustix::io::write(&link, &self.bytes[self.sent..]) {
                Ok(0) => return Err(Errno::AGAIN),
                Ok(written) => self.sent += written,
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.compact();
                    return Err(error);
                }
            }
        }
        self.clear();
        Ok(())
    }

    fn compact(&mut self) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

fn pages() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    rustix::pipe::fcntl_setpipe_size(&pipe.1, PAGES)?;
    Ok(pipe)
}

/// Read and forget. Returns how many bytes, as `read` does.
pub fn discard(fd: impl AsFd, scratch: &mut Vec<u8>) -> Result<usize, Errno> {
    scratch.clear();
    scratch.reserve(64 * 1024);
    rustix::io::read(fd, spare_capacity(scratch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Body, Decoder};
    use rustix::pipe::pipe_with;

    #[test]
    fn frames_what_a_pipe_holds() {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
        let mut outbox = Outbox::new(None).expect("no port, no pipe");
        assert_eq!(outbox.read_from(&read, 7, 1, 10), Err(Errno::AGAIN));
        assert!(outbox.is_empty());
        rustix::io::write(&write, b"hello world").expect("room in the pipe");
        assert_eq!(outbox.read_from(&read, 7, 1, 5), Ok(5));
        let mut input = outbox.bytes.as_slice();
        let frame = Decoder::default().next(&mut input).expect("a frame of ours").expect("a whole frame");
        assert_eq!((frame.stream, frame.channel, frame.body), (7, 1, Body::Data(b"hello".to_vec())));
        drop(write);
        assert_eq!(outbox.read_from(&read, 7, 1, 100), Ok(6));
        assert_eq!(outbox.read_from(&read, 7, 1, 100), Ok(0));
    }

    /// A pipe stands for the port: both take pages.
    #[test]
    fn moves_pages_and_keeps_the_frame_whole() {
        let (port_read, port_write) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
        let (read, write) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
        let mut outbox =
            Outbox::new(Some(rustix::io::dup(&port_write).expect("a descriptor"))).expect("a pipe");
        let payload: Vec<u8> = (0..65_536u32).map(|at| (at / 7) as u8).collect();
        rustix::io::write(&write, &payload).expect("room in the pipe");
        outbox.eof(3, 1);
        assert_eq!(outbox.move_from(&read, 7, 1, 50_000), Ok(50_000));
        outbox.eof(7, 1);
        let mut seen = Vec::new();
        while seen.len() < 50_000 + 3 * HEADER {
            let _ = outbox.flush(&port_write);
            let mut piece = Vec::with_capacity(10_000);
            rustix::io::read(&port_read, spare_capacity(&mut piece)).expect("something is there");
            seen.extend(piece);
        }
        let (mut input, mut decoder) = (&seen[HEADER..], Decoder::default());
        let frame = decoder.next(&mut input).expect("a frame of ours").expect("a whole frame");
        assert_eq!((frame.stream, frame.body), (7, Body::Data(payload[..50_000].to_vec())));
        assert_eq!(input.len(), HEADER);
    }

    #[test]
    fn keeps_what_the_link_does_not_take() {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
        let mut outbox = Outbox::new(None).expect("no port, no pipe");
        let payload = vec![5; 200_000];
        outbox.data(1, 1, &payload);
        outbox.eof(1, 1);
        let mut seen = Vec::new();
        while outbox.flush(&write) == Err(Errno::AGAIN) {
            let mut piece = Vec::with_capacity(50_000);
            rustix::io::read(&read, spare_capacity(&mut piece)).expect("the pipe is full");
            seen.extend(piece);
        }
        drop(write);
        std::io::Read::read_to_end(&mut std::fs::File::from(read), &mut seen).expect("the rest");
        assert_eq!(seen.len(), HEADER + payload.len() + HEADER);
    }
}
