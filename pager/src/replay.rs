//! Replaying a prefetch list: a thread reads ahead from the disk, so that the one thread that serves never waits for it.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use rustix::event::{eventfd, EventfdFlags};
use rustix::io::Errno;

use crate::memory::Memory;

/// Read ahead in pieces of this size: the disk is kept busy while what it gave is copied.
const PIECE: u64 = 1 << 20;
/// Copied in one go: how long a fault may have to wait for a replay, 10 to 20 microseconds.
const STEP: u64 = 64 << 10;

struct Shared {
    pieces: Vec<Range<u64>>,
    warm: AtomicUsize,
    bell: OwnedFd,
}

pub struct Replay {
    shared: Arc<Shared>,
    next: usize,
    at: u64,
}

impl Replay {
    /// Start reading ahead. `runs` are bytes of the memory file, in the order they are wanted.
    pub fn start(runs: &[Range<u64>], memory: &Arc<Memory>) -> Result<Self, Errno> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let pieces: Vec<Range<u64>> = runs.iter().flat_map(cut).collect();
        let at = pieces.first().map_or(0, |piece| piece.start);
        let shared = Arc::new(Shared { pieces, warm: AtomicUsize::new(0), bell });
        let (theirs, memory) = (Arc::clone(&shared), Arc::clone(memory));
        std::thread::Builder::new()
            .name("read-ahead".into())
            .spawn(move || read_ahead(&theirs, &memory))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(Self { shared, next: 0, at })
    }

    /// What to copy next, if it has been read. The same again until `advance`.
    pub fn step(&self) -> Option<Range<u64>> {
        if self.next >= self.shared.warm.load(Ordering::Acquire) {
            return None;
        }
        let piece = &self.shared.pieces[self.next];
        Some(self.at..piece.end.min(self.at + STEP))
    }

    pub fn advance(&mut self) {
        self.at += STEP;
        if self.at >= self.shared.pieces[self.next].end {
            self.next += 1;
            self.at = self.shared.pieces.get(self.next).map_or(0, |piece| piece.start);
        }
    }

    pub fn is_over(&self) -> bool {
        self.next == self.shared.pieces.len()
    }

    /// The bell was heard.
    pub fn hush(&self) {
        let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
    }
}

/// Readable when more has been read.
impl AsFd for Replay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }
}

fn cut(run: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = run.end;
    (run.start..end).step_by(PIECE as usize).map(move |start| start..end.min(start + PIECE))
}

fn read_ahead(shared: &Shared, memory: &Memory) {
    for (number, piece) in shared.pieces.iter().enumerate() {
        memory.warm(piece.clone());
        shared.warm.store(number + 1, Ordering::Release);
        // Full only if nobody has listened for ages: then it is still readable.
        let _ = rustix::io::write(&shared.bell, &1_u64.to_ne_bytes());
    }
}
