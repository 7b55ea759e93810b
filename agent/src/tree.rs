//! Tree streams: a directory tree in one pass, either way, with holes, links and modes. `tree_receive` walks by descriptor, one component at a
//! time and never through a link, so that no record reaches outside its target whatever the sender says. Memory is bounded by the
//! depth of the tree and, for `tree_send`, by the names of one directory and the files with several names.

use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::failure::Failure;

/// Deeper trees exist only to make somebody stumble.
pub const MAX_DEPTH: usize = 1024;

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    File,
    Directory,
    Symlink,
    Hardlink,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Record {
    pub path: ByteBuf,
    pub kind: RecordKind,
    pub mode: u32,
    pub mtime_ns: i64,
    pub uid: u32,
    pub gid: u32,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub target: Option<ByteBuf>,
}

/// Entries and bytes moved.
pub type Moved = (u64, u64);

pub fn broken(error: io::Error) -> Failure {
    match (error.kind(), Errno::from_io_error(&error)) {
        (io::ErrorKind::ConnectionReset, None) => Failure::reset(),
        (_, Some(errno)) => Failure::system("move", "a tree", errno),
        (_, None) => Failure::bad("the tree stream is cut short"),
    }
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
