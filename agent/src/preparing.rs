//! An exec whose files are being made, on a lane as all that can block. When they are there, the agent starts it.

use crate::failure::Failure;
use crate::files;
use crate::lane::{Lanes, Reply};
use crate::protocol::{ExecRequest, Preparation};

/// More changes than this are no preparation: whoever has many sends a tree.
const MOST: usize = 64;

pub struct Preparing {
    pub stream: u32,
    pub request: ExecRequest,
    reply: Reply<Result<(), Failure>>,
    result: Option<Result<(), Failure>>,
}

impl Preparing {
    pub fn start(stream: u32, mut request: ExecRequest, lanes: &Lanes) -> Result<Self, Failure> {
        let before: Vec<Preparation> = std::mem::take(&mut request.before);
        if before.len() > MOST {
            return Err(Failure::bad(format!("more than {MOST} things are to be done before an exec")));
        }
        let reply = lanes.ask(move || files::prepare(&before))?;
        Ok(Self { stream, request, reply, result: None })
    }

    /// Whether all is done, or something has failed.
    pub fn is_over(&mut self) -> bool {
        self.result = self.result.take().or_else(|| self.reply.take());
        self.result.is_some()
    }

    /// What it has come to, and the request it was for.
    pub fn into_parts(self) -> (u32, ExecRequest, Result<(), Failure>) {
        (self.stream, self.request, self.result.unwrap_or_else(|| Err(Failure::reset())))
    }
}
