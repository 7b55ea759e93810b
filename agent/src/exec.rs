//! One `exec`: a process, what it leaves in its cell, and the bytes to and from it.
//!
//!     running --first process ends--> ended --leftovers killed and gone, or given up--> quiet --output delivered--> reported
//!        \--timeout: SIGTERM--> terminating --2 s: SIGKILL--^
//!
//! An exec whose stream is given up (reset, connection over) is killed, or with `detach` goes on, its output read and forgotten.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde_bytes::ByteBuf;

use crate::cell::{Cell, Cells};
use crate::failure::{show, Failure};
use crate::flow::{Sink, Source};
use crate::outbox::Outbox;
use crate::poll::{Poller, Slot, Token};
use crate::protocol::{Code, ExecRequest, Exit, Message, PtySize, Violation, ERROR_OUTPUT, OUTPUT};
use crate::spawn::{candidates, Launch, Launcher, Step};
use crate::user::User;

const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
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
    /// The first process has ended; its leftovers may take until then to die.
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
    pub cells: &'a mut Cells,
    pub null: &'a OwnedFd,
}

/// The child's ends of its standard streams, closed once it has started, and ours.
struct Ends {
    child: [Option<OwnedFd>; 3],
    stdin: Option<Sink>,
    sources: Vec<Source>,
    terminal: Option<OwnedFd>,
}

impl Ends {
    fn watch(&self, key: u32, poller: &Poller) -> Result<(), Errno> {
        for source in &self.sources {
            source.watch(poller, Token::new(key, Slot::of_channel(source.channel())))?;
        }
        self.stdin.as_ref().map_or(Ok(()), |stdin| stdin.watch(poller, Token::new(key, Slot::Input)))
    }
}

impl Exec {
    pub fn start(
        stream: u32,
        key: u32,
        request: &ExecRequest,
        around: Surroundings<'_>,
    ) -> Result<Self, Failure> {
        let user = match &request.user {
            None => User::root(),
            Some(wanted) => User::find(wanted)?,
        };
        let argv = strings(&request.argv, "an argument")?;
        let program = argv.first().ok_or_else(|| Failure::bad("an exec needs a program"))?;
        let (env, path) = environment(request, &user)?;
        let ends = open_ends(request)
            .map_err(|errno| Failure::system("make the streams of", show(program.to_bytes()), errno))?;
        ends.watch(key, around.poller)
            .map_err(|errno| Failure::system("watch", show(program.to_bytes()), errno))?;
        let mut cell = around
            .cells
            .take()
            .map_err(|errno| Failure::system("make a cell for", show(program.to_bytes()), errno))?;
        let null = around.null.as_fd();
        let child = [0, 1, 2].map(|at| ends.child[at].as_ref().map_or(null, AsFd::as_fd));
        let launch = Launch {
            candidates: candidates(program, &path),
            env,
            cwd: string(request.cwd.as_ref().map_or(b"/", |cwd| cwd), "the directory")?,
            user: request.user.as_ref().map(|_| &user),
            stdio: if request.merge && request.pty.is_none() {
                [child[0], child[1], child[1]]
            } else {
                child
            },
            terminal: request.pty.is_some(),
            cgroup: cell.directory(),
            dies_with_us: cell.directory().is_none(),
            argv,
        };
        let started = Instant::now();
        let result = around.launcher.start(&launch).map_err(|failed| explain(&launch, failed));
        let pid = match result {
            Ok(pid) => pid,
            Err(failure) => {
                around.cells.give_back(cell);
                return Err(failure);
            }
        };
        drop(ends.child);
        cell.enter(pid);
        let deadline = request.timeout_ms.and_then(|ms| started.checked_add(Duration::from_millis(ms)));
        Ok(Self {
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
            given_up: None,
            quiet: false,
        })
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
        self.phase = Phase::Ended { give_up_at: wait.then(|| Instant::now() + LINGER) };
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
        if last && self.sources.iter().all(Source::ended) {
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
            out.message(stream, &Message::Exit(std::mem::take(exit)));
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

fn open_ends(request: &ExecRequest) -> Result<Ends, Errno> {
    match request.pty {
        Some(size) => open_terminal(size),
        None => open_pipes(request.stdin, request.merge),
    }
}

fn open_pipes(stdin: bool, merge: bool) -> Result<Ends, Errno> {
    let (out_read, out_write) = pipe()?;
    rustix::io::ioctl_fionbio(&out_read, true)?;
    let mut ends = Ends {
        child: [None, Some(out_write), None],
        stdin: None,
        sources: vec![Source::of_pipe(out_read, OUTPUT)],
        terminal: None,
    };
    if !merge {
        let (read, write) = pipe()?;
        rustix::io::ioctl_fionbio(&read, true)?;
        ends.sources.push(Source::of_pipe(read, ERROR_OUTPUT));
        ends.child[2] = Some(write);
    }
    if stdin {
        let (read, write) = pipe()?;
        rustix::io::ioctl_fionbio(&write, true)?;
        ends.stdin = Some(Sink::new(write));
        ends.child[0] = Some(read);
    }
    Ok(ends)
}

/// Only our end is made non-blocking, after this: the program gets an ordinary pipe.
fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
}

fn open_terminal(size: PtySize) -> Result<Ends, Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&ours)?;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    rustix::termios::tcsetwinsize(&ours, winsize(size))?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let duplicate = || rustix::io::fcntl_dupfd_cloexec(&ours, 3);
    let (input, output) = (duplicate()?, duplicate()?);
    let child = [
        Some(rustix::io::fcntl_dupfd_cloexec(&theirs, 3)?),
        Some(rustix::io::fcntl_dupfd_cloexec(&theirs, 3)?),
        Some(theirs),
    ];
    Ok(Ends {
        child,
        stdin: Some(Sink::new(input)),
        sources: vec![Source::new(output, OUTPUT)],
        terminal: Some(ours),
    })
}

fn winsize(size: PtySize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

fn string(bytes: &[u8], what: &str) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::bad(format!("{what} of an exec contains a zero byte")))
}

fn strings(all: &[ByteBuf], what: &str) -> Result<Vec<CString>, Failure> {
    all.iter().map(|one| string(one, what)).collect()
}

/// The environment, and the PATH in it: ours first, then what the request says, which wins.
fn environment(request: &ExecRequest, user: &User) -> Result<(Vec<CString>, Vec<u8>), Failure> {
    let mut defaults: Vec<(&[u8], &[u8])> = Vec::new();
    if !request.clear_env {
        defaults.extend([
            (&b"PATH"[..], PATH),
            (b"HOME", &user.home[..]),
            (b"USER", &user.name[..]),
            (b"LOGNAME", &user.name[..]),
        ]);
        defaults.extend(request.pty.map(|_| (&b"TERM"[..], &b"xterm-256color"[..])));
    }
    let asked = request.env.iter().map(|(name, value)| (&name[..], &value[..]));
    let kept =
        defaults.into_iter().filter(|(name, _)| !request.env.contains_key(serde_bytes::Bytes::new(name)));
    let all: Vec<(&[u8], &[u8])> = kept.chain(asked).collect();
    if all.iter().any(|(name, _)| name.is_empty() || name.contains(&b'=')) {
        return Err(Failure::bad("a name in the environment of an exec is empty or contains ="));
    }
    let path = all.iter().find(|(name, _)| *name == b"PATH").map_or(PATH, |(_, value)| value).to_vec();
    let lines = all.iter().map(|(name, value)| string(&[name, &b"="[..], value].concat(), "the environment"));
    Ok((lines.collect::<Result<_, _>>()?, path))
}

fn explain(launch: &Launch<'_>, (step, errno): (Step, Errno)) -> Failure {
    let program = show(launch.argv[0].to_bytes());
    match (step, errno) {
        (Step::Directory, _) => Failure::system("enter", show(launch.cwd.to_bytes()), errno),
        (Step::User, _) => Failure::system("change the user for", program, errno),
        (Step::Execute, Errno::ACCESS | Errno::NOEXEC | Errno::ISDIR | Errno::LIBBAD) => {
            Failure { code: Code::NotExecutable, ..Failure::system("run", program, errno) }
        }
        (Step::Clone, Errno::AGAIN) => {
            Failure { code: Code::Busy, ..Failure::system("start a process for", program, errno) }
        }
        _ => Failure::system("run", program, errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ExecRequest {
        ExecRequest {
            argv: vec![ByteBuf::from("x")],
            env: Default::default(),
            clear_env: false,
            cwd: None,
            user: None,
            stdin: false,
            pty: None,
            timeout_ms: None,
            detach: false,
            merge: false,
        }
    }

    fn texts(request: &ExecRequest) -> Vec<String> {
        let Ok((env, _)) = environment(request, &User::root()) else {
            panic!("a good environment was refused")
        };
        env.iter().map(|line| line.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_request_wins_over_the_defaults() {
        let mut request = request();
        request.env.insert(ByteBuf::from("HOME"), ByteBuf::from("/elsewhere"));
        request.pty = Some(PtySize { rows: 1, cols: 1 });
        let env = texts(&request);
        assert_eq!(
            env.iter().filter(|line| line.starts_with("HOME=")).collect::<Vec<_>>(),
            ["HOME=/elsewhere"]
        );
        assert!(env.contains(&"USER=root".into()) && env.contains(&"TERM=xterm-256color".into()));
        request.clear_env = true;
        assert_eq!(texts(&request), ["HOME=/elsewhere"]);
    }

    #[test]
    fn refuses_names_that_are_none() {
        for name in ["", "A=B"] {
            let mut request = request();
            request.env.insert(ByteBuf::from(name), ByteBuf::from("x"));
            assert!(environment(&request, &User::root()).is_err());
        }
        let mut request = request();
        request.env.insert(ByteBuf::from("A"), ByteBuf::from("x\0y"));
        assert!(environment(&request, &User::root()).is_err());
    }
}
