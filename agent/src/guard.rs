//! Starting a process stops the thread that starts it until the program executes. Where the user's memory is used up, or the program lies on
//! a file system that does not answer, that can be for ever, and the event loop with it. The guard waits beside it and kills the half-born
//! process when it has taken too long. It sleeps until then: an idle machine stays idle.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::time::{
    timerfd_create, timerfd_settime, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};

use crate::cell::put;

/// Long enough for a machine that is one of many, all of them just restored, on a host with few processors and a slow disk.
pub const PATIENCE: Timespec = Timespec { tv_sec: 15, tv_nsec: 0 };
const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
const STACK: usize = 64 * 1024;

#[derive(Default)]
struct Birth {
    /// The cell of the process being started.
    cell: Option<OwnedFd>,
    killed: bool,
}

pub struct Guard {
    patience: Timespec,
    timer: Arc<OwnedFd>,
    birth: Arc<Mutex<Birth>>,
}

impl Guard {
    pub fn new(patience: Timespec) -> Result<Self, Errno> {
        let timer = Arc::new(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?);
        let guard = Self { patience, timer, birth: Arc::default() };
        let (timer, birth) = (guard.timer.clone(), guard.birth.clone());
        let thread = std::thread::Builder::new().name("guard".into()).stack_size(STACK);
        thread.spawn(move || watch(&timer, &birth)).map_err(|_| Errno::AGAIN)?;
        Ok(guard)
    }

    /// Run `start`, which starts a process in `cell`. Returns also whether the process had to be killed to get out of it.
    pub fn over<T>(&self, cell: Option<BorrowedFd<'_>>, start: impl FnOnce() -> T) -> (T, bool) {
        let Some(cell) = cell.and_then(|cell| rustix::io::fcntl_dupfd_cloexec(cell, 3).ok()) else {
            return (start(), false);
        };
        *lock(&self.birth) = Birth { cell: Some(cell), killed: false };
        self.arm(self.patience);
        let result = start();
        self.arm(NEVER);
        (result, std::mem::take(&mut *lock(&self.birth)).killed)
    }

    fn arm(&self, after: Timespec) {
        let once = Itimerspec { it_interval: NEVER, it_value: after };
        // Valid times on a timer of ours: it cannot fail.
        let _ = timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::empty(), &once);
    }
}

fn lock(birth: &Mutex<Birth>) -> MutexGuard<'_, Birth> {
    birth.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(timer: &OwnedFd, birth: &Mutex<Birth>) {
    let mut expirations = [0u8; 8];
    loop {
        if rustix::io::read(timer, &mut expirations).is_err() {
            continue; // interrupted
        }
        let mut birth = lock(birth);
        if let Some(cell) = &birth.cell {
            put(cell, "cgroup.kill", "1");
            birth.killed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_a_quick_start_pass_and_ends_a_slow_one() {
        // A directory stands for the cell, and its file for the kernel's.
        let path = std::env::temp_dir().join(format!("firebrick-guard-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        let file = path.join("cgroup.kill");
        std::fs::write(&file, "").expect("a file");
        let cell: OwnedFd = std::fs::File::open(&path).expect("the directory").into();
        let guard = Guard::new(Timespec { tv_sec: 1, tv_nsec: 0 }).expect("a guard");
        assert_eq!(guard.over(Some(cell.as_fd()), || 1), (1, false));
        let killed = || std::fs::read_to_string(&file).expect("the file") == "1";
        let stuck = || {
            (0..100).any(|_| {
                killed() || {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    false
                }
            })
        };
        assert_eq!(guard.over(Some(cell.as_fd()), stuck), (true, true));
        std::fs::remove_dir_all(&path).expect("removed");
    }
}
