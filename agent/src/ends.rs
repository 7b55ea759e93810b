//! The standard streams of a process: the program's ends, closed here once it has started, and ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::flow::{Sink, Source};
use crate::poll::{Poller, Slot, Token};
use crate::protocol::{ExecRequest, PtySize, ERROR_OUTPUT, OUTPUT};

pub struct Ends {
    /// Nothing where the program gets /dev/null, or for errors, its output.
    child: [Option<OwnedFd>; 3],
    merge: bool,
    pub stdin: Option<Sink>,
    pub sources: Vec<Source>,
    pub terminal: Option<OwnedFd>,
}

impl Ends {
    pub fn open(request: &ExecRequest) -> Result<Self, Errno> {
        match request.pty {
            Some(size) => open_terminal(size),
            None => open_pipes(request.stdin, request.merge),
        }
    }

    /// What the program gets.
    pub fn stdio<'a>(&'a self, null: BorrowedFd<'a>) -> [BorrowedFd<'a>; 3] {
        let [input, output, errors] = self.child.each_ref().map(|end| end.as_ref().map_or(null, AsFd::as_fd));
        [input, output, if self.merge { output } else { errors }]
    }

    pub fn watch(&self, key: u32, poller: &Poller) -> Result<(), Errno> {
        for source in &self.sources {
            source.watch(poller, Token::new(key, Slot::of_channel(source.channel())))?;
        }
        self.stdin.as_ref().map_or(Ok(()), |stdin| stdin.watch(poller, Token::new(key, Slot::Input)))
    }
}

fn open_pipes(stdin: bool, merge: bool) -> Result<Ends, Errno> {
    let (out_read, out_write) = pipe()?;
    rustix::io::ioctl_fionbio(&out_read, true)?;
    let mut ends = Ends {
        child: [None, Some(out_write), None],
        merge,
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
        merge: false,
        child,
        stdin: Some(Sink::new(input)),
        sources: vec![Source::new(output, OUTPUT)],
        terminal: Some(ours),
    })
}

pub fn winsize(size: PtySize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}
