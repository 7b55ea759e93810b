//! One `exec`: a process, what it leaves in its cell, and the bytes to and from it.
//!
//!     running --first process ends--> ended --leftovers killed and gone, or given up--> quiet --output delivered--> reported
//!        \--timeout: SIGTERM--> terminating --2 s: SIGKILL--^
//!
//! An exec whose stream is given up (reset, connection over) is killed, or with `detach` goes on, its output read and forgotten.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cell::{Cell, Cells};
use crate::command::Command;
use crate::ends::{winsize, Ends};
use crate::failure::Failure;
use crate::flow::{Sink, Source};
use crate::guard::Guard;
use crate::lane::Lanes;
use crate::listing::Listing;
use crate::outbox::Outbox;
use crate::poll::{Poller, Slot};
use crate::protocol::{ExecRequest, Exit, Message, PtySize, Violation};
use crate::randomness::{Birth, Randomness};
use crate::spawn::{Launch, Launcher};

/// Between SIGTERM and SIGKILL when the time is over.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long killed leftovers may take to die before the exit is reported without them.
const LINGER: Duration = Duration::from_secs(2);
/// What a terminal takes as the end of input.
const END_OF_TRANSMISSION: u8 = 4;

enum Phase {
    Running {
        deadline: Option<Instant>,
    },
    Terminating {
        kill_at: Option<Instant>,
    },
    /// The first process has ended; its leftovers may take until then to die, and a look at what it has left may take as long.
    Ended {
        give_up_at: Option<Instant>,
    },
}

pub struct Exec {
    /// `None` once nobody listens.
    stream: Option<u32>,
    pid: i32,
    cell: Option<Cell>,
    stdin: Option<Sink>,
    sources: Vec<Source>,
    terminal: Option<OwnedFd>,
    detach: bool,
    started: Instant,
    phase: Phase,
    timed_out: bool,
    exit: Option<Exit>,
    listing: Listing,
    /// The stream that was given up, and is told so when all of the exec is gone.
    given_up: Option<u32>,
    /// It has ended, and nothing of it runs any more, or has been waited for long enough.
    quiet: bool,
}

/// What the kernel says of a child that has ended.
#[derive(Clone, Copy)]
pub struct Ended {
    pub status: i32,
    pub cpu_us: u64,
    pub max_rss: u64,
}

/// Whether the exec still needs its place among the activities.
#[derive(PartialEq, Eq)]
pub enum Progress {
    /// Another turn now would move more bytes.
    More,
    Waiting,
    Finished,
}

pub struct Surroundings<'a> {
    pub poller: &'a Poller,
    pub launcher: &'a mut Launcher,
    pub guard: &'a Guard,
    pub cells: &'a mut Cells,
    pub lanes: &'a Rc<Lanes>,
    pub null: &'a OwnedFd,
    /// Where random numbers are to be the same each time.
    pub randomness: Option<&'a Randomness>,
}

impl Exec {
    pub fn start(
        stream: u32,
        key: u32,
        request: &ExecRequest,
        around: Surroundings<'_>,
    ) -> Result<Self, Failure> {
        let command = Command::of(request)?;
        let ends = Ends::open(request).map_err(|errno| command.failed("make the streams of", errno))?;
        ends.watch(key, around.poller).map_err(|errno| command.failed("watch", errno))?;
        let birth = around.randomness.map(Randomness::birth).transpose();
        let birth = birth.map_err(|errno| command.failed("seed the random numbers of", errno))?.flatten();
        let mut cell = around.cells.take().map_err(|errno| command.failed("make a cell for", errno))?;
        let launch = Launch {
            candidates: &command.candidates,
            argv: &command.argv,
            env: &command.env,
            cwd: &command.cwd,
            user: command.user.as_ref(),
            stdio: ends.stdio(around.null.as_fd()),
            terminal: request.pty.is_some(),
            cgroup: cell.directory(),
            filter: birth.as_ref().map(Birth::door),
            dies_with_us: cell.directory().is_none(),
        };
        let started = Instant::now();
        let (result, killed) = around.guard.over(launch.cgroup, || around.launcher.start(&launch));
        drop(birth);
        match result {
            Ok(_) if killed => {
                around.cells.give_back(cell);
                Err(command.stuck())
            }
            Ok(pid) => {
                cell.enter(pid);
                let listing = request.listing.as_ref().filter(|_| !request.detach).map(|path| &path[..]);
                let exec = Self::running(pid, cell, ends, started, stream, request);
                Ok(Self { listing: Listing::of(listing, around.lanes), ..exec })
            }
            Err(failed) => {
                around.cells.give_back(cell);
                Err(command.explain(failed))
            }
        }
    }

    fn running(
        pid: i32,
        cell: Cell,
        ends: Ends,
        started: Instant,
        stream: u32,
        request: &ExecRequest,
    ) -> Self {
        let deadline = request.timeout_ms.and_then(|ms| started.checked_add(Duration::from_millis(ms)));
        Self {
            stream: Some(stream),
            pid,
            cell: Some(cell),
            stdin: ends.stdin,
            sources: ends.sources,
            terminal: ends.terminal,
            detach: request.detach,
            started,
            phase: Phase::Running { deadline },
            timed_out: false,
            exit: None,
            listing: Listing::Known(None),
            given_up: None,
            quiet: false,
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn has_ended(&self) -> bool {
        self.exit.is_some()
    }

    pub fn cell(&self) -> Option<&Cell> {
        self.cell.as_ref()
    }

    pub fn into_cell(self) -> Option<Cell> {
        self.cell
    }

    pub fn ready(&mut self, slot: Slot) {
        match (slot, &mut self.stdin) {
            (Slot::Input, Some(stdin)) => stdin.ready = true,
            _ => self
                .sources
                .iter_mut()
                .filter(|source| Slot::of_channel(source.channel()) == slot)
                .for_each(|source| source.ready = true),
        }
    }

    pub fn grant(&mut self, channel: u8, bytes: u32) {
        self.sources
            .iter_mut()
            .filter(|source| source.channel() == channel)
            .for_each(|source| source.grant(bytes));
    }

    pub fn data(&mut self, data: Vec<u8>) -> Result<(), Violation> {
        match &mut self.stdin {
            Some(stdin) => stdin.accept(data),
            None => Err(Violation("data for an exec without stdin".into())),
        }
    }

    pub fn eof(&mut self) {
        if let (Some(stdin), Some(_)) = (&mut self.stdin, &self.terminal) {
            stdin.append(END_OF_TRANSMISSION);
        } else if let Some(stdin) = &mut self.stdin {
            stdin.finish();
        }
    }

    pub fn signal(&self, number: i32, group: bool) {
        // A number that is no signal, or a process that has ended, is nobody's mistake worth a message: there is no answer to a signal.
        if self.exit.is_some() || !(1..=64).contains(&number) {
            return;
        }
        let target = if group { -self.pid } else { self.pid };
        // SAFETY: sends a signal; the process is our child and not reaped yet, so its number is its own.
        unsafe { libc::kill(target, number) };
    }

    pub fn resize(&self, size: PtySize) {
        if let Some(terminal) = &self.terminal {
            // A terminal whose other side is gone has no size to change.
            let _ = rustix::termios::tcsetwinsize(terminal, winsize(size));
        }
    }

    /// Nobody listens any more. With `detach`, or with `keep`, it goes on; else everything in the cell dies.
    pub fn let_go(&mut self, keep: bool) {
        self.stream = None;
        self.given_up = None;
        self.stdin = None;
        if !(self.detach || keep) {
            self.kill();
        }
        self.detach |= keep;
    }

    /// The host has reset the stream. True: its last message is due now; false: when nothing of the exec runs any more.
    pub fn give_up(&mut self, stream: u32) -> bool {
        self.let_go(false);
        self.given_up = Some(stream).filter(|_| !self.detach);
        self.detach
    }

    fn kill(&self) {
        if let Some(cell) = &self.cell {
            cell.kill();
        }
    }

    /// When `tick` is wanted.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { deadline } => deadline,
            Phase::Terminating { kill_at } => kill_at,
            Phase::Ended { give_up_at } => give_up_at,
        }
    }

    pub fn tick(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.phase {
            Phase::Running { .. } => {
                self.timed_out = true;
                self.terminate();
                self.phase = Phase::Terminating { kill_at: Some(now + TERM_GRACE) };
            }
            Phase::Terminating { .. } => {
                self.kill();
                self.phase = Phase::Terminating { kill_at: None };
            }
            Phase::Ended { .. } => {
                self.quiet = true;
                self.listing.give_up();
                self.phase = Phase::Ended { give_up_at: None };
            }
        }
    }

    fn terminate(&self) {
        if let Some(cell) = &self.cell {
            cell.signal(Signal::TERM);
        }
    }

    /// The first process has ended and is reaped.
    pub fn ended(&mut self, ended: Ended) {
        let used = self.cell.as_ref().map(Cell::used).unwrap_or_default();
        let (code, signal) = match libc::WIFSIGNALED(ended.status) {
            true => (None, Some(libc::WTERMSIG(ended.status))),
            false => (Some(libc::WEXITSTATUS(ended.status)), None),
        };
        self.exit = Some(Exit {
            code,
            signal,
            timed_out: self.timed_out,
            oom: used.oom_kills > 0,
            cpu_us: used.cpu_us.max(ended.cpu_us),
            memory_peak_bytes: if used.memory_peak > 0 { used.memory_peak } else { ended.max_rss },
            wall_us: self.started.elapsed().as_micros() as u64,
            listing: None,
        });
        // What the host still sends to it is taken and dropped: it cannot know yet.
        if let Some(stdin) = &mut self.stdin {
            stdin.close();
        }
        self.child_died();
        let wait = !(self.quiet || self.detach);
        if wait {
            self.kill();
        }
        let bounded = wait || !self.listing.is_known();
        self.phase = Phase::Ended { give_up_at: bounded.then(|| Instant::now() + LINGER) };
    }

    /// Some child of the agent's was reaped: it may have been the last of this cell.
    pub fn child_died(&mut self) {
        if self.exit.is_some() && !self.quiet {
            self.quiet = !self.cell.as_ref().is_some_and(Cell::populated);
        }
    }

    /// Move bytes, and see whether it is over.
    pub fn advance(&mut self, out: &mut Outbox, scratch: &mut Vec<u8>) -> Progress {
        let _ = self.stdin.as_mut().map(|stdin| stdin.pump(self.stream, out));
        // A daemon that holds a pipe does not hold the exit back.
        let last = self.quiet || (self.exit.is_some() && self.detach);
        let more = match self.stream {
            Some(stream) => self.pump(stream, out, last),
            None => self.drain(scratch),
        };
        if more {
            return Progress::More;
        }
        if last && !self.listing.is_awaited() && self.sources.iter().all(Source::ended) {
            self.report(out);
        }
        match self.stream {
            None if self.quiet => {
                if let Some(stream) = self.given_up.take() {
                    out.message(stream, &Failure::reset().into_message());
                }
                Progress::Finished
            }
            _ => Progress::Waiting,
        }
    }

    fn pump(&mut self, stream: u32, out: &mut Outbox, last: bool) -> bool {
        let mut more = false;
        for source in &mut self.sources {
            let open = !source.ended();
            more |= out.has_room() && source.pump(stream, out, last);
            if open && source.ended() {
                out.eof(stream, source.channel());
            }
        }
        more
    }

    fn drain(&mut self, scratch: &mut Vec<u8>) -> bool {
        self.sources.iter_mut().fold(false, |more, source| source.drain(scratch) | more)
    }

    fn report(&mut self, out: &mut Outbox) {
        if let (Some(stream), Some(exit)) = (self.stream.take(), &mut self.exit) {
            let listing = self.listing.take();
            out.message(stream, &Message::Exit(Exit { listing, ..std::mem::take(exit) }));
        }
    }
}

/// What `wait4` returns, or `None` when no child of ours has ended.
pub fn reap() -> Option<(i32, Ended)> {
    let mut status = 0;
    // SAFETY: all fields of rusage are integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes the two results into variables of ours.
    let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage) };
    let cpu_us = [usage.ru_utime, usage.ru_stime]
        .iter()
        .map(|time| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64)
        .sum();
    (pid > 0).then_some((pid, Ended { status, cpu_us, max_rss: usage.ru_maxrss as u64 * 1024 }))
}
