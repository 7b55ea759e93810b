//! The end of the machine: everything is asked to stop, then killed, then the disks are made clean and the power goes off.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;
use rustix::process::Signal;
use rustix::system::RebootCommand;

use crate::cell::Cell;
use crate::console::say;

/// How long what was killed may take to die.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A shutdown under way.
pub struct Shutdown {
    deadline: Instant,
    killed: bool,
}

impl Shutdown {
    pub fn new(grace: Duration) -> Self {
        let now = Instant::now();
        Self { deadline: now.checked_add(grace).unwrap_or(now), killed: false }
    }

    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    pub fn tick(&mut self, now: Instant, kill_all: impl FnOnce()) {
        if now >= self.deadline && !self.killed {
            kill_all();
            self.killed = true;
            self.deadline = now + LAST_WAIT;
        }
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.killed && now >= self.deadline
    }
}

/// What ends with us: the whole machine, or only this process.
pub enum Power {
    Machine {
        /// The root of the scratch disk, to be made clean.
        scratch: Option<OwnedFd>,
        ending: Ending,
    },
    Process,
}

impl Power {
    /// Ask everything to stop.
    pub fn terminate<'a>(&self, cells: impl Iterator<Item = &'a Cell>) {
        match self {
            // Everything but us, also what has left its cell.
            Power::Machine { .. } => signal_all(libc::SIGTERM),
            Power::Process => cells.for_each(|cell| cell.signal(Signal::TERM)),
        }
    }

    /// Go. Nothing is left to be told if anything in here fails.
    pub fn off(self) -> ! {
        let Power::Machine { scratch, ending } = self else { std::process::exit(0) };
        signal_all(libc::SIGKILL);
        rustix::fs::sync();
        let read_only = MountFlags::RDONLY;
        let _ = rustix::mount::mount_remount("/", read_only, c"");
        if let Some(scratch) = scratch {
            // By way of the working directory: the disk is mounted below our root, out of reach of any path.
            let _ = rustix::process::fchdir(scratch)
                .and_then(|()| rustix::mount::mount_remount(".", read_only, c""));
        }
        ending.end()
    }
}

fn signal_all(signal: i32) {
    // SAFETY: sends a signal; -1 is every process but the sender, and this is the machine's first.
    unsafe { libc::kill(-1, signal) };
}

/// How this machine can end itself.
#[derive(Clone, Copy)]
pub enum Ending {
    PowerOff,
    /// Without ACPI there is no power to turn off: a reset, which the monitor takes as the end.
    Reset,
}

impl Ending {
    /// To be asked early: later a job may have taken /sys away.
    pub fn find() -> Self {
        match std::path::Path::new("/sys/firmware/acpi").exists() {
            true => Self::PowerOff,
            false => Self::Reset,
        }
    }

    pub fn end(self) -> ! {
        if matches!(self, Self::PowerOff) {
            let _ = rustix::system::reboot(RebootCommand::PowerOff);
        }
        let _ = rustix::system::reboot(RebootCommand::Restart);
        say("this machine cannot be ended from inside");
        loop {
            std::thread::park();
        }
    }
}
