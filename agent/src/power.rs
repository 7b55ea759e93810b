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

/// ACPI's fixed description of the machine.
const FADT: &str = "/sys/firmware/acpi/tables/FACP";

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
    /// There is no power to turn off, without ACPI or with one that cannot (Firecracker's): a reset, which the monitor takes as the end.
    Reset,
}

impl Ending {
    /// To be asked early: later a job may have taken /sys away.
    pub fn find() -> Self {
        match std::fs::read(FADT) {
            Ok(table) if can_power_off(&table) => Self::PowerOff,
            _ => Self::Reset,
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

/// Whether a machine so described has a way to turn its power off. Asked to without one, the kernel halts, and the monitor never notices. Classic
/// hardware always has a way; hardware of the reduced kind has it where there is a sleep control register.
fn can_power_off(fadt: &[u8]) -> bool {
    const FLAGS: usize = 112;
    const REDUCED: u32 = 1 << 20;
    const SLEEP_ADDRESS: usize = 244 + 4; // the register's address follows its four bytes of description
    let Some(flags) = fadt.get(FLAGS..FLAGS + 4) else { return true }; // a table of old: no reduced kind yet
    let flags = u32::from_le_bytes([flags[0], flags[1], flags[2], flags[3]]);
    let sleep = fadt.get(SLEEP_ADDRESS..SLEEP_ADDRESS + 8);
    flags & REDUCED == 0 || sleep.is_some_and(|address| address != [0; 8])
}

#[cfg(test)]
mod tests {
    use super::can_power_off;

    fn table(flags: u32, sleep: u64) -> Vec<u8> {
        let mut table = vec![0; 276];
        table[112..116].copy_from_slice(&flags.to_le_bytes());
        table[248..256].copy_from_slice(&sleep.to_le_bytes());
        table
    }

    #[test]
    fn only_reduced_hardware_without_a_sleep_register_cannot_power_off() {
        assert!(can_power_off(&table(0, 0)));
        assert!(can_power_off(&table(1 << 20, 0xfea0_0200)));
        assert!(!can_power_off(&table(1 << 20, 0)));
        assert!(can_power_off(&[0; 100]));
        assert!(!can_power_off(&table(1 << 20, 7)[..244]));
    }
}
