//! The loop: faults first, then what the kernel says of the memory, then one step of what nobody waits for yet; it sleeps when there is nothing of these.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::copier::{Copier, Progress};
use crate::failure::{Failure, Outcome, Status};
use crate::replay::Replay;
use crate::signals::Signals;
use crate::uffd::Event;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// Between attempts while the machine's memory is being changed, which takes the kernel a moment after it has told. Doubled up to 13 ms: a
/// Firecracker that is stopped just then shall not keep a processor busy.
const A_MOMENT_NS: i64 = 50_000;
const DOUBLINGS: u32 = 8;

pub struct Server {
    pub copier: Copier,
    pub replay: Option<Replay>,
    pub signals: Signals,
    /// Readable when Firecracker has ended.
    pub process: OwnedFd,
    pub list: Option<File>,
    /// How many attempts in a row the kernel has put off.
    pub put_off: u32,
}

/// Which of the descriptors have something to say.
struct Ready {
    faults: bool,
    ended: bool,
    signal: bool,
    bell: bool,
}

impl Server {
    /// Serve until Firecracker has ended or a signal says so.
    pub fn run(&mut self) -> Outcome<()> {
        let mut events = Vec::new();
        let mut waiting: Vec<u64> = Vec::new();
        loop {
            let ready = self.wait()?;
            if ready.faults {
                self.copier
                    .uffd
                    .read(&mut events)
                    .map_err(|errno| broken("read from the userfaultfd", errno))?;
                self.sort(&mut events, &mut waiting)?;
            }
            if !self.answer(&mut waiting)? || ready.ended || (ready.signal && self.is_told_to_end()?) {
                return self.write_list();
            }
            if ready.bell {
                self.replay.iter().for_each(Replay::hush);
            }
            if waiting.is_empty() && !ready.faults && !self.run_ahead()? {
                return self.write_list();
            }
        }
    }

    fn wait(&self) -> Outcome<Ready> {
        let replay = self.replay.as_ref().and_then(Replay::step);
        let idle = replay.is_none() && self.copier.ahead.step().is_none();
        let moment = Timespec { tv_sec: 0, tv_nsec: A_MOMENT_NS << self.put_off.min(DOUBLINGS) };
        let timeout = match (self.put_off, idle) {
            (1.., _) => Some(&moment),
            (0, false) => Some(&AT_ONCE),
            (0, true) => None,
        };
        let bell = self.replay.as_ref().map_or(self.process.as_fd(), AsFd::as_fd);
        let mut fds = [self.copier.uffd.as_fd(), self.process.as_fd(), self.signals.as_fd(), bell]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(broken("wait", errno)),
        }
        if fds[0].revents().contains(PollFlags::ERR) {
            return Err(Failure::new(Status::Handshake, "the userfaultfd was never set up by Firecracker"));
        }
        let is_ready = |at: usize| !fds[at].revents().is_empty();
        Ok(Ready { faults: is_ready(0), ended: is_ready(1), signal: is_ready(2), bell: is_ready(3) })
    }

    /// What was given back counts before any fault is answered: an old page must not come back.
    fn sort(&mut self, events: &mut Vec<Event>, waiting: &mut Vec<u64>) -> Outcome<()> {
        for event in events.drain(..) {
            match event {
                Event::Fault(address) => waiting.push(address),
                Event::Remove(addresses) => self.copier.remove(&addresses),
                Event::Unknown(kind) => {
                    let sentence = format!(
                        "the kernel tells of event {kind:#x}, which Firecracker had no reason to ask for"
                    );
                    return Err(Failure::new(Status::Serving, sentence));
                }
            }
        }
        Ok(())
    }

    /// Answer who waits; those who cannot be answered now stay. False: there is nobody left.
    fn answer(&mut self, waiting: &mut Vec<u64>) -> Outcome<bool> {
        let mut answered = 0;
        for address in waiting.iter() {
            let progress = self.copier.fault(*address)?;
            self.count(&progress);
            match progress {
                Progress::Done => answered += 1,
                Progress::Later => break,
                Progress::Gone => return Ok(false),
            }
        }
        waiting.drain(..answered);
        Ok(true)
    }

    /// One step of what nobody waits for: ahead of a reader, or of the replay. False: Firecracker has ended.
    fn run_ahead(&mut self) -> Outcome<bool> {
        if let Some(bytes) = self.copier.ahead.step() {
            let progress = self.copier.prefetch(&bytes)?;
            self.count(&progress);
            match progress {
                Progress::Done => self.copier.ahead.advance(),
                Progress::Later => {}
                Progress::Gone => return Ok(false),
            }
            return Ok(true);
        }
        let Some(bytes) = self.replay.as_ref().and_then(Replay::step) else { return Ok(true) };
        let progress = self.copier.prefetch(&bytes)?;
        self.count(&progress);
        if progress == Progress::Done {
            self.replay.iter_mut().for_each(Replay::advance);
        }
        if self.replay.as_ref().is_some_and(Replay::is_over) {
            self.replay = None;
        }
        Ok(progress != Progress::Gone)
    }

    fn count(&mut self, progress: &Progress) {
        self.put_off = if *progress == Progress::Later { self.put_off.saturating_add(1) } else { 0 };
    }

    fn is_told_to_end(&mut self) -> Outcome<bool> {
        match self.signals.take() {
            Some(libc::SIGUSR1) => self.write_list().map(|()| false),
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }

    /// Once: what is served after that is not recorded.
    fn write_list(&mut self) -> Outcome<()> {
        let (Some(mut list), Some(record)) = (self.list.take(), self.copier.record.take()) else {
            return Ok(());
        };
        list.write_all(record.text().as_bytes())
            .map_err(|error| Failure::new(Status::Host, format!("cannot write the prefetch list: {error}")))
    }
}

fn broken(operation: &str, errno: Errno) -> Failure {
    Failure::system(Status::Serving, operation, errno)
}
