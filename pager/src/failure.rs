//! Why the page server ends: a sentence for standard error and an exit status a program can tell apart.

use rustix::io::Errno;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// It was called wrongly.
    Usage = 2,
    /// Firecracker's message, or what came with it, is not one that can be served.
    Handshake = 3,
    /// The memory, its layers or the prefetch list cannot be used.
    Memory = 4,
    /// Serving broke off: the machine must be killed.
    Serving = 5,
    /// The host refused something that is no fault of the above.
    Host = 6,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: Status,
    pub sentence: String,
}

impl Failure {
    pub fn new(status: Status, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }

    pub fn system(status: Status, operation: &str, errno: Errno) -> Self {
        Self::new(status, format!("cannot {operation}: {errno}"))
    }
}

pub type Outcome<T> = Result<T, Failure>;
