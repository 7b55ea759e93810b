//! What holds the processes of one exec together: a control group each, below `/work`, where the limits of everything the user runs are.
//!
//! Making a control group costs more than starting a process under emulation, so an empty one is used again. Its counters go on from
//! what they were, so a cell measures differences. Only the peak of memory cannot be set back (before Linux 6.12): a cell whose peak was
//! above `REUSE_PEAK` is not used again, so the error of a later, smaller peak is bounded by that.
//!
//! Where there are no control groups (the agent as an ordinary process, for tests) a process group takes their place, as far as it can.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{kill_process, kill_process_group, Pid, Signal};

use crate::poll::{Poller, Slot, Token, FREEZER};

const REUSE_PEAK: u64 = 16 << 20;
const IDLE_KEPT: usize = 32;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub cpu_us: u64,
    pub oom_kills: u64,
    pub memory_peak: u64,
}

pub struct Cgroup {
    name: String,
    directory: OwnedFd,
    /// Control files that are read at the end of every exec, held open: opening costs more than reading.
    events: OwnedFd,
    memory_events: Option<OwnedFd>,
    memory_peak: Option<OwnedFd>,
    cpu: Option<OwnedFd>,
    /// When the cell was last empty.
    start: Counters,
}

impl Cgroup {
    fn open(name: String, work: &OwnedFd) -> Result<Self, Errno> {
        let directory = rustix::fs::openat(work, &name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let file =
            |name| rustix::fs::openat(&directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self {
            events: file("cgroup.events")?,
            memory_events: file("memory.events").ok(),
            memory_peak: file("memory.peak").ok(),
            cpu: file("cpu.stat").ok(),
            name,
            directory,
            start: Counters::default(),
        })
    }

    fn counters(&self) -> Counters {
        Counters {
            cpu_us: again(&self.cpu, |text| field(text, "usage_usec")),
            oom_kills: again(&self.memory_events, |text| field(text, "oom_kill")),
            memory_peak: again(&self.memory_peak, number),
        }
    }

    fn populated(&self) -> bool {
        reread(&self.events, |text| flag(text, "populated"))
    }
}

fn again(file: &Option<OwnedFd>, parse: impl FnOnce(&str) -> u64) -> u64 {
    file.as_ref().map_or(0, |file| reread(file, parse))
}

/// The first page's worth of a control file that is open; what it says on one line or a few.
fn reread<T>(file: &OwnedFd, parse: impl FnOnce(&str) -> T) -> T {
    let mut text = [0; 512];
    let length = rustix::io::pread(file, &mut text, 0).unwrap_or(0);
    parse(std::str::from_utf8(&text[..length]).unwrap_or(""))
}

pub enum Cell {
    Cgroup(Cgroup),
    Group(Option<Pid>),
}

impl Cell {
    /// What a new process is born into.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Cell::Cgroup(group) => Some(group.directory.as_fd()),
            Cell::Group(_) => None,
        }
    }

    /// The first process has started; it leads a process group.
    pub fn enter(&mut self, pid: i32) {
        if let Cell::Group(leader) = self {
            *leader = Pid::from_raw(pid);
        }
    }

    pub fn populated(&self) -> bool {
        match self {
            Cell::Cgroup(group) => group.populated(),
            Cell::Group(leader) => {
                leader.is_some_and(|pid| rustix::process::test_kill_process_group(pid).is_ok())
            }
        }
    }

    pub fn kill(&self) {
        match self {
            Cell::Cgroup(group) => put(&group.directory, "cgroup.kill", "1"),
            Cell::Group(_) => self.signal(Signal::KILL),
        }
    }

    /// Send a signal to every process. One that is born meanwhile may miss it; `kill` misses none.
    pub fn signal(&self, signal: Signal) {
        match self {
            Cell::Cgroup(group) => {
                for pid in processes(&group.directory) {
                    let _ = kill_process(pid, signal); // it may have ended
                }
            }
            Cell::Group(leader) => {
                if let Some(pid) = leader {
                    let _ = kill_process_group(*pid, signal);
                }
            }
        }
    }

    /// Since the cell was taken.
    pub fn used(&self) -> Counters {
        let Cell::Cgroup(group) = self else { return Counters::default() };
        let now = group.counters();
        let peak = if now.memory_peak > group.start.memory_peak { now.memory_peak } else { 0 };
        Counters {
            cpu_us: now.cpu_us.saturating_sub(group.start.cpu_us),
            oom_kills: now.oom_kills.saturating_sub(group.start.oom_kills),
            memory_peak: peak,
        }
    }
}

/// The cells of this machine.
pub struct Cells {
    /// `/sys/fs/cgroup/work`, held open: nothing the user does to the mount takes it away.
    work: Option<OwnedFd>,
    /// Its `cgroup.events`.
    events: Option<OwnedFd>,
    idle: Vec<Cgroup>,
    /// Given back with processes that have not died yet.
    leaving: Vec<Cgroup>,
    made: u32,
}

impl Cells {
    pub fn new(work: Option<OwnedFd>) -> Self {
        let open =
            |work| rustix::fs::openat(work, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let events = work.as_ref().and_then(|work| open(work).ok());
        Self { work, events, idle: Vec::new(), leaving: Vec::new(), made: 0 }
    }

    pub fn take(&mut self) -> Result<Cell, Errno> {
        if self.work.is_none() {
            return Ok(Cell::Group(None));
        }
        self.collect();
        self.idle.pop().map_or_else(|| self.make(), Ok).map(Cell::Cgroup)
    }

    /// Have a cell ready, for the first exec to find.
    pub fn prepare(&mut self) {
        if self.idle.is_empty() && self.work.is_some() {
            // Whoever wants it will be told what is wrong.
            let made = self.make();
            self.idle.extend(made);
        }
    }

    pub fn give_back(&mut self, cell: Cell) {
        if let Cell::Cgroup(group) = cell {
            self.leaving.push(group);
            self.collect();
        }
    }

    fn make(&mut self) -> Result<Cgroup, Errno> {
        let work = self.work.as_ref().ok_or(Errno::NOSYS)?;
        self.made += 1;
        let name = self.made.to_string();
        rustix::fs::mkdirat(work, &name, Mode::from(0o755))?;
        Cgroup::open(name, work)
    }

    /// Sort the cells given back: dead and small ones are used again, dead and large ones removed.
    fn collect(&mut self) {
        let (leaving, empty) = std::mem::take(&mut self.leaving).into_iter().partition(Cgroup::populated);
        self.leaving = leaving;
        for group in empty {
            self.retire(group);
        }
    }

    fn retire(&mut self, mut group: Cgroup) {
        group.start = group.counters();
        if group.start.memory_peak <= REUSE_PEAK && self.idle.len() < IDLE_KEPT {
            self.idle.push(group);
        } else if let Some(work) = &self.work {
            // Fails if the user has made groups of their own in it; an empty directory too many harms nobody.
            let _ = rustix::fs::unlinkat(work, &group.name, rustix::fs::AtFlags::REMOVEDIR);
        }
    }

    /// Wake the loop when `frozen` may have changed.
    pub fn watch(&self, poller: &Poller) -> Result<(), Errno> {
        self.events.as_ref().map_or(Ok(()), |events| poller.add(events, Token::new(FREEZER, Slot::Input)))
    }

    pub fn populated(&self) -> bool {
        self.work.as_ref().is_some_and(populated)
    }

    pub fn work(&self) -> Option<BorrowedFd<'_>> {
        self.work.as_ref().map(AsFd::as_fd)
    }

    /// Stop (or go on with) everything; `frozen` says when it has come to a stop. `cells`: those that are in use.
    pub fn freeze<'a>(&mut self, freeze: bool, cells: impl Iterator<Item = &'a Cell>) {
        if let Some(work) = &self.work {
            return put(work, "cgroup.freeze", if freeze { "1" } else { "0" });
        }
        for cell in cells {
            cell.signal(if freeze { Signal::STOP } else { Signal::CONT });
        }
    }

    pub fn frozen(&self) -> bool {
        self.work.as_ref().is_none_or(|work| flag(&read(work, "cgroup.events"), "frozen"))
    }

    pub fn kill_all<'a>(&self, cells: impl Iterator<Item = &'a Cell>) {
        match &self.work {
            Some(work) => put(work, "cgroup.kill", "1"),
            None => cells.for_each(Cell::kill),
        }
    }

    /// Of everything the user runs and has run.
    pub fn total(&self) -> Option<Total> {
        let work = self.work.as_ref()?;
        Some(Total {
            cpu_us: field(&read(work, "cpu.stat"), "usage_usec"),
            memory: number(&read(work, "memory.current")),
            memory_peak: number(&read(work, "memory.peak")),
            processes: number(&read(work, "pids.current")),
        })
    }
}

pub struct Total {
    pub cpu_us: u64,
    pub memory: u64,
    pub memory_peak: u64,
    pub processes: u64,
}

fn populated(directory: &OwnedFd) -> bool {
    flag(&read(directory, "cgroup.events"), "populated")
}

fn processes(directory: &OwnedFd) -> Vec<Pid> {
    let text = read(directory, "cgroup.procs");
    text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()
}

/// The text of a control file; empty if the kernel does not have it, which reads as "nothing" and "no".
fn read(directory: &OwnedFd, name: &str) -> String {
    let mut text = String::new();
    if let Ok(fd) = rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = std::io::Read::read_to_string(&mut std::fs::File::from(fd), &mut text);
    }
    text
}

/// Write a control file. What we write always applies; a kernel without the file offers nothing else to do.
pub fn put(directory: &OwnedFd, name: &str, value: &str) {
    if let Ok(fd) = rustix::fs::openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(fd, value.as_bytes());
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn field(text: &str, name: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map_or(0, number)
}

fn flag(text: &str, name: &str) -> bool {
    field(text, name) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let events = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!((field(events, "oom"), field(events, "oom_kill"), field(events, "none")), (2, 1, 0));
        assert!(flag("populated 1\nfrozen 0\n", "populated") && !flag("populated 1\nfrozen 0\n", "frozen"));
        assert_eq!((number("4096\n"), number("max\n"), number("")), (4096, 0, 0));
    }
}
