//! Character devices whose reads the agent answers (CUSE): what lies over `/dev/urandom`, `/dev/random` and the kernel's UUID.

use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::seed::{uuid, Key, Stream};

const CHANNEL: &str = "/dev/cuse";
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// struct fuse_in_header: length, operation, number, node, user, group, task, padding.
const HEADER: usize = 40;
/// What a reply begins with: length, error, number.
const REPLY: usize = 16;
const MAX_READ: u32 = 128 << 10;
const MAX_WRITE: u32 = 4096;
/// The kernel hands over nothing that is longer.
const BUFFER: usize = 16 << 10;

const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const INTERRUPT: u32 = 36;
const IOCTL: u32 = 39;
const INIT: u32 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Random bytes, without end. What is written is forgotten.
    Bytes,
    /// One random UUID, another for each who opens it.
    Uuid,
}

/// What one has open.
enum Open {
    Bytes(Source),
    Text { text: String, read: usize },
}

/// Where its bytes come from: the kernel, where nothing is to be the same.
pub enum Source {
    Seeded(Stream),
    Kernel,
}

impl Source {
    pub fn of(key: Option<Key>) -> Self {
        key.map_or(Self::Kernel, |key| Self::Seeded(key.stream()))
    }

    fn fill(&mut self, target: &mut [u8]) -> Result<(), Errno> {
        match self {
            Self::Seeded(stream) => stream.fill(target),
            Self::Kernel => {
                for piece in target.chunks_mut(256) {
                    rustix::rand::getrandom(piece, rustix::rand::GetRandomFlags::empty())?;
                }
            }
        }
        Ok(())
    }
}

struct Request<'a> {
    operation: u32,
    number: u64,
    task: i32,
    rest: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(raw: &'a [u8]) -> Option<Self> {
        let rest = raw.get(HEADER..)?;
        Some(Self { operation: word(raw, 4)?, number: long(raw, 8)?, task: word(raw, 32)? as i32, rest })
    }
}

fn word(raw: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(raw.get(offset..offset + 4)?.try_into().ok()?))
}

fn long(raw: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(raw.get(offset..offset + 8)?.try_into().ok()?))
}

/// All that a device says, apart from the channel it says it over.
struct Answers {
    kind: Kind,
    opened: u64,
    open: HashMap<u64, Open>,
}

/// `None`: nobody waits for an answer.
type Answer = Option<Result<Vec<u8>, Errno>>;

impl Answers {
    /// `source`: what a task that opens the device reads.
    fn answer(&mut self, request: &Request<'_>, source: impl FnOnce(i32) -> Source) -> Answer {
        let rest = request.rest;
        Some(match request.operation {
            OPEN => self.open(source(request.task)),
            READ => long(rest, 0)
                .zip(word(rest, 16))
                .map_or(Err(Errno::INVAL), |(handle, size)| self.read(handle, size.min(MAX_READ) as usize)),
            WRITE => word(rest, 16).map(|size| words(&[size, 0])).ok_or(Errno::INVAL),
            RELEASE => {
                long(rest, 0).map(|handle| self.open.remove(&handle));
                Ok(Vec::new())
            }
            IOCTL => Err(Errno::NOTTY),
            INTERRUPT => return None,
            _ => Err(Errno::NOSYS),
        })
    }

    fn open(&mut self, mut source: Source) -> Result<Vec<u8>, Errno> {
        let open = match self.kind {
            Kind::Bytes => Open::Bytes(source),
            Kind::Uuid => {
                let mut raw = [0; 16];
                source.fill(&mut raw)?;
                Open::Text { text: uuid(raw) + "\n", read: 0 }
            }
        };
        self.opened += 1;
        self.open.insert(self.opened, open);
        // struct fuse_open_out: handle, flags (read past the page cache), padding.
        Ok([&self.opened.to_ne_bytes()[..], &words(&[1, 0])].concat())
    }

    fn read(&mut self, handle: u64, size: usize) -> Result<Vec<u8>, Errno> {
        match self.open.get_mut(&handle).ok_or(Errno::BADF)? {
            Open::Bytes(source) => {
                let mut bytes = vec![0; size];
                source.fill(&mut bytes).map(|()| bytes)
            }
            Open::Text { text, read } => {
                let rest = &text.as_bytes()[*read..];
                let piece = rest[..rest.len().min(size)].to_vec();
                *read += piece.len();
                Ok(piece)
            }
        }
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub struct Device {
    channel: OwnedFd,
    answers: Answers,
}

impl Device {
    /// Make the device `/dev/NAME`, with that mode.
    pub fn make(name: &str, kind: Kind, mode: u32) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let channel = rustix::fs::open(CHANNEL, flags, Mode::empty())?;
        let device = Self { channel, answers: Answers { kind, opened: 0, open: HashMap::new() } };
        device.introduce(name)?;
        rustix::fs::chmod(format!("/dev/{name}"), Mode::from_raw_mode(mode))?;
        Ok(device)
    }

    fn introduce(&self, name: &str) -> Result<(), Errno> {
        poll(&mut [PollFd::new(&self.channel, PollFlags::IN)], Some(&PATIENCE))?;
        let mut raw = [0; BUFFER];
        let length = rustix::io::read(&self.channel, &mut raw)?;
        let request =
            Request::parse(&raw[..length]).filter(|request| request.operation == INIT).ok_or(Errno::PROTO)?;
        let major = word(request.rest, 0).ok_or(Errno::PROTO)?;
        let minor = word(request.rest, 4).ok_or(Errno::PROTO)?;
        // struct cuse_init_out: version, two unused words, sizes, the device's number (0: any), ten spare words.
        let mut body = words(&[major, minor, 0, 0, MAX_READ, MAX_WRITE, 0, 0]);
        body.extend([0; 40]);
        body.extend(format!("DEVNAME={name}\0").bytes());
        self.reply(request.number, Ok(body))
    }

    /// Answer one request, if there is one.
    pub fn serve(&mut self, source: impl FnOnce(i32) -> Source) {
        let mut raw = [0; BUFFER];
        // Whatever is wrong with it, who asked is gone.
        let Ok(length) = rustix::io::read(&self.channel, &mut raw) else { return };
        let Some(request) = Request::parse(&raw[..length]) else { return };
        if let Some(answer) = self.answers.answer(&request, source) {
            let _ = self.reply(request.number, answer);
        }
    }

    fn reply(&self, number: u64, answer: Result<Vec<u8>, Errno>) -> Result<(), Errno> {
        let (error, body) = answer.map_or_else(|errno| (-errno.raw_os_error(), Vec::new()), |body| (0, body));
        let mut header = words(&[(REPLY + body.len()) as u32, error as u32]);
        header.extend(number.to_ne_bytes());
        rustix::io::writev(&self.channel, &[IoSlice::new(&header), IoSlice::new(&body)]).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(kind: Kind) -> Answers {
        Answers { kind, opened: 0, open: HashMap::new() }
    }

    fn request(operation: u32, rest: &[u8]) -> Vec<u8> {
        let mut raw = words(&[(HEADER + rest.len()) as u32, operation]);
        raw.extend(9u64.to_ne_bytes());
        raw.extend([0; 16]);
        raw.extend(words(&[77, 0]));
        [raw, rest.to_vec()].concat()
    }

    fn ask(answers: &mut Answers, operation: u32, rest: &[u8]) -> Answer {
        let raw = request(operation, rest);
        let request = Request::parse(&raw).expect("a request");
        assert_eq!((request.number, request.task), (9, 77));
        answers.answer(&request, |task| Source::of(Some(Key::of_seed(&task.to_ne_bytes()))))
    }

    fn transfer(handle: u64, size: u32) -> Vec<u8> {
        let mut rest = [handle.to_ne_bytes(), [0; 8]].concat();
        rest.extend(words(&[size, 0]));
        rest.resize(40, 0);
        rest
    }

    fn opened(answers: &mut Answers) -> u64 {
        let reply = ask(answers, OPEN, &[0; 8]).expect("an answer").expect("a handle");
        assert_eq!(reply.len(), 16);
        long(&reply, 0).expect("a handle")
    }

    fn read(answers: &mut Answers, handle: u64, size: u32) -> Vec<u8> {
        ask(answers, READ, &transfer(handle, size)).expect("an answer").expect("bytes")
    }

    #[test]
    fn bytes_go_on_for_whoever_has_them_open() {
        let mut answers = answers(Kind::Bytes);
        let handle = opened(&mut answers);
        let mut expected = vec![0; 48];
        Key::of_seed(&77i32.to_ne_bytes()).stream().fill(&mut expected);
        assert_eq!([read(&mut answers, handle, 40), read(&mut answers, handle, 8)].concat(), expected);
        assert_eq!(read(&mut answers, handle, u32::MAX).len(), MAX_READ as usize);
        assert_eq!(ask(&mut answers, WRITE, &transfer(handle, 5)), Some(Ok(words(&[5, 0]))));
    }

    #[test]
    fn a_uuid_is_read_once() {
        let mut answers = answers(Kind::Uuid);
        let handle = opened(&mut answers);
        let text = [read(&mut answers, handle, 30), read(&mut answers, handle, 100)].concat();
        assert!(text.len() == 37 && text[14] == b'4' && text[36] == b'\n');
        assert!(read(&mut answers, handle, 100).is_empty());
    }

    #[test]
    fn what_is_closed_is_forgotten() {
        let mut answers = answers(Kind::Bytes);
        let handle = opened(&mut answers);
        assert_eq!(ask(&mut answers, RELEASE, &transfer(handle, 0)), Some(Ok(vec![])));
        assert_eq!(ask(&mut answers, READ, &transfer(handle, 1)), Some(Err(Errno::BADF)));
        assert!(answers.open.is_empty());
    }

    #[test]
    fn what_it_cannot_do_it_says() {
        let mut answers = answers(Kind::Bytes);
        assert_eq!(ask(&mut answers, IOCTL, &[0; 32]), Some(Err(Errno::NOTTY)));
        assert_eq!(ask(&mut answers, 40, &[0; 24]), Some(Err(Errno::NOSYS)));
        assert_eq!(ask(&mut answers, READ, &[0; 3]), Some(Err(Errno::INVAL)));
        assert_eq!(ask(&mut answers, INTERRUPT, &[0; 8]), None);
        assert!(Request::parse(&[0; 39]).is_none());
    }

    #[test]
    fn without_a_seed_it_is_the_kernels() {
        let mut source = Source::of(None);
        let mut bytes = [[0; 300]; 2];
        bytes.iter_mut().for_each(|each| source.fill(each).expect("random numbers"));
        assert!(bytes[0] != bytes[1] && bytes[0][290..] != [0; 10]);
    }
}
