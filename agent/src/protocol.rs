//! The frames and messages of the agent protocol, `docs/reference/agent-protocol.md`. Its twin is `firebrick/guest/protocol.py`; both are
//! tested against `tests/vectors/agent-protocol.json`. What the host sends is trusted no more than what a guest sends: every size is bounded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub const VERSION: u32 = 1;
pub const HEADER: usize = 12;
/// The longest payload of a frame.
pub const FRAME_LIMIT: usize = 262_144;
/// The longest control message.
pub const CONTROL_LIMIT: usize = 65_536;
/// What each channel of each stream may send before it is granted more.
pub const INITIAL_CREDIT: u32 = 262_144;

/// What `hello` offers.
pub const FEATURES: [&str; 3] = ["listen", "prepare", "seed"];

pub const INPUT: u8 = 0;
pub const OUTPUT: u8 = 1;
pub const ERROR_OUTPUT: u8 = 2;

/// No message nests deeper than a map in a map; the rest is margin.
const MAX_DEPTH: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Control = 1,
    Data = 2,
    Credit = 3,
    Eof = 4,
    Reset = 5,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    Control(Vec<u8>),
    Data(Vec<u8>),
    Credit(u32),
    Eof,
    Reset,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream: u32,
    pub channel: u8,
    pub body: Body,
}

/// The peer broke the protocol: the connection ends, and nothing else does.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy)]
struct Header {
    length: usize,
    stream: u32,
    kind: Kind,
    channel: u8,
}

impl Header {
    fn parse(raw: [u8; HEADER]) -> Result<Self, Violation> {
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, channel, r0, r1] = raw;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let stream = u32::from_le_bytes([s0, s1, s2, s3]);
        let (kind, bounds) = match kind {
            1 => (Kind::Control, 1..=CONTROL_LIMIT),
            2 => (Kind::Data, 0..=FRAME_LIMIT),
            3 => (Kind::Credit, 4..=4),
            4 => (Kind::Eof, 0..=0),
            5 => (Kind::Reset, 0..=0),
            other => return Err(Violation(format!("unknown frame kind {other}"))),
        };
        if !bounds.contains(&length) {
            return Err(Violation(format!("a {kind:?} frame cannot have {length} bytes")));
        }
        if r0 != 0 || r1 != 0 {
            return Err(Violation("a reserved byte is set".into()));
        }
        if channel > ERROR_OUTPUT {
            return Err(Violation(format!("there is no channel {channel}")));
        }
        if stream == 0 && kind != Kind::Control {
            return Err(Violation(format!("a {kind:?} frame on the connection itself")));
        }
        Ok(Self { length, stream, kind, channel })
    }
}

pub fn encode_header(length: usize, stream: u32, kind: Kind, channel: u8) -> [u8; HEADER] {
    debug_assert!(length <= FRAME_LIMIT);
    let mut raw = [0; HEADER];
    raw[..4].copy_from_slice(&(length as u32).to_le_bytes());
    raw[4..8].copy_from_slice(&stream.to_le_bytes());
    raw[8] = kind as u8;
    raw[9] = channel;
    raw
}

/// Turns a byte stream, in pieces of any size, into frames. Holds at most one frame.
#[derive(Default)]
pub struct Decoder {
    raw: [u8; HEADER],
    have: usize,
    header: Option<Header>,
    payload: Vec<u8>,
}

impl Decoder {
    /// Take bytes from the front of `input` until a frame is complete or `input` is empty.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        let header = match self.header {
            Some(header) => header,
            None => match self.take_header(input)? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        let wanted = header.length - self.payload.len();
        let (taken, rest) = input.split_at(wanted.min(input.len()));
        self.payload.extend_from_slice(taken);
        *input = rest;
        if self.payload.len() < header.length {
            return Ok(None);
        }
        self.header = None;
        Ok(Some(finish(header, std::mem::take(&mut self.payload))))
    }

    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Violation> {
        let wanted = HEADER - self.have;
        let (taken, rest) = input.split_at(wanted.min(input.len()));
        self.raw[self.have..self.have + taken.len()].copy_from_slice(taken);
        self.have += taken.len();
        *input = rest;
        if self.have < HEADER {
            return Ok(None);
        }
        self.have = 0;
        let header = Header::parse(self.raw)?;
        self.payload.reserve_exact(header.length);
        self.header = Some(header);
        Ok(Some(header))
    }
}

fn finish(header: Header, payload: Vec<u8>) -> Frame {
    let body = match header.kind {
        Kind::Control => Body::Control(payload),
        Kind::Data => Body::Data(payload),
        Kind::Credit => {
            let mut raw = [0; 4];
            raw.copy_from_slice(&payload); // the header was refused unless it says 4
            Body::Credit(u32::from_le_bytes(raw))
        }
        Kind::Eof => Body::Eof,
        Kind::Reset => Body::Reset,
    };
    Frame { stream: header.stream, channel: header.channel, body }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct PtySize {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ExecRequest {
    pub argv: Vec<ByteBuf>,
    pub env: BTreeMap<ByteBuf, ByteBuf>,
    pub clear_env: bool,
    pub cwd: Option<ByteBuf>,
    pub user: Option<String>,
    pub stdin: bool,
    pub pty: Option<PtySize>,
    pub timeout_ms: Option<u64>,
    pub detach: bool,
    pub merge: bool,
    /// What is made of files before it starts, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Preparation>,
    /// A directory: what it holds when all is over comes with the exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<ByteBuf>,
}

/// A change that is small enough to come along with an exec.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Preparation {
    Put { path: ByteBuf, data: ByteBuf, mode: Option<u32> },
    Move { source: ByteBuf, target: ByteBuf, overwrite: bool },
}

#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ConnectRequest {
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub unix: Option<ByteBuf>,
}

/// What listens in the guest for the host: its stream is the listener.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ListenRequest {
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub unix: Option<ByteBuf>,
}

/// The next connection of a listener: it becomes this stream.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct AcceptRequest {
    /// The stream of the listener.
    pub listener: u32,
}

/// Random numbers that follow from `seed`, for all that is started from now on.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct SeedRequest {
    pub seed: ByteBuf,
    /// Files of kernel modules this needs.
    pub modules: Vec<ByteBuf>,
}

/// A request that touches files: each runs on a lane, off the event loop.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FileRequest {
    Write {
        path: ByteBuf,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        parents: bool,
        append: bool,
    },
    Read {
        path: ByteBuf,
        offset: u64,
        limit: Option<u64>,
    },
    Stat {
        path: ByteBuf,
        follow: bool,
    },
    List {
        path: ByteBuf,
    },
    Mkdir {
        path: ByteBuf,
        mode: u32,
        parents: bool,
    },
    Remove {
        path: ByteBuf,
        recursive: bool,
        missing_ok: bool,
    },
    Move {
        source: ByteBuf,
        target: ByteBuf,
        overwrite: bool,
    },
    Symlink {
        path: ByteBuf,
        target: ByteBuf,
    },
    Chmod {
        path: ByteBuf,
        mode: u32,
    },
    Upload {
        path: ByteBuf,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Download {
        path: ByteBuf,
        exclude: Vec<ByteBuf>,
    },
}

/// What the host says on stream 0.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Order {
    HelloRequest,
    Identity(Identity),
    Ping {
        token: i64,
    },
    Quiesce,
    /// The streams of a connection that was lost while the machine was quiesced go on, on this one.
    Continue {
        machine_id: String,
    },
    Resume,
    Poweroff {
        grace_ms: u64,
    },
    Usage,
}

#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Identity {
    pub entropy: ByteBuf,
    pub realtime_ns: u64,
    pub hostname: String,
    pub machine_id: String,
}

/// What the host says on a stream of its own.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    Exec(ExecRequest),
    Connect(ConnectRequest),
    Listen(ListenRequest),
    Accept(AcceptRequest),
    Seed(SeedRequest),
    Signal {
        number: i32,
        group: bool,
    },
    Resize(PtySize),
    #[serde(untagged)]
    File(FileRequest),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Character,
    Block,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    NoIdentity,
    BadRequest,
    NotFound,
    Exists,
    NotADirectory,
    IsADirectory,
    NotEmpty,
    Permission,
    NoSpace,
    TooLarge,
    Busy,
    Unsupported,
    Reset,
    NoSuchUser,
    NotExecutable,
    Unprepared,
    Io,
}

#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Entry {
    pub name: ByteBuf,
    pub kind: EntryKind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_ns: i64,
    pub target: Option<ByteBuf>,
    pub nlink: u64,
}

/// An entry that says what it is, as on its own.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Listed {
    Entry(Entry),
}

#[derive(Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    pub oom: bool,
    pub cpu_us: u64,
    pub memory_peak_bytes: u64,
    pub wall_us: u64,
    /// Nothing where it was not asked for, or is more than comes along with an exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<Vec<Listed>>,
}

#[derive(Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct UsageReport {
    pub cpu_us: u64,
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub processes: u64,
    pub scratch_used_bytes: u64,
    pub scratch_total_bytes: u64,
}

/// What the agent says.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    Hello {
        version: u32,
        minimum: u32,
        agent: String,
        kernel: String,
        boot_id: String,
        quiesced: bool,
        /// What this agent can beyond the first release of its version.
        #[serde(default)]
        features: Vec<String>,
    },
    IdentityDone {
        boot_id: String,
    },
    Pong {
        token: i64,
    },
    Quiesced,
    Continued,
    Resumed,
    UsageReport(UsageReport),
    Fatal {
        message: String,
    },
    Started {
        pid: i32,
    },
    Exit(Exit),
    Connected,
    Listening {
        /// Of the one that was given, or found where that was 0; nil for a unix socket.
        port: Option<u16>,
    },
    Done {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entries: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    Entry(Entry),
    Error {
        code: Code,
        message: String,
        errno: Option<i32>,
    },
}

/// Decode exactly one message.
pub fn decode<'a, T: Deserialize<'a>>(raw: &'a [u8]) -> Result<T, Violation> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(raw);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer)
        .map_err(|error| Violation(format!("a message that cannot be understood: {error}")))
}

pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Writing to memory fails only for a type that MessagePack cannot hold, and ours are all written by the tests.
    rmp_serde::to_vec_named(message).expect("every message of ours is MessagePack")
}

#[cfg(test)]
#[path = "protocol_test.rs"]
mod tests;
