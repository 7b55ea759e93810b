//! Random numbers that are the same each time, for a machine that is told so: `getrandom` of what the host starts is answered from here (see
//! `filter`), and so are devices that lie over the kernel's (see `cuse`). What a task reads follows from the seed and from its descent (`lineage`).
//!
//! One thread answers, for as long as the machine lives: a process that outlives its exec asks on. Nothing of this is for keys: who knows
//! the seed knows every number.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use rustix::time::Timespec;
use serde_bytes::ByteBuf;

use crate::births::Births;
use crate::console::say;
use crate::cuse::{Device, Kind, Source};
use crate::failure::{show, Failure};
use crate::filter::{self, Call};
use crate::lineage::Lineage;
use crate::modules;
use crate::protocol::Code;
use crate::seed::Key;

const STACK: usize = 256 * 1024;
/// Tens of thousands of events fit into the queue.
const PAUSE: Duration = Duration::from_millis(100);
const SEED_LIMIT: usize = 512;
const MODULES: usize = 8;

/// Devices of ours, and what they lie over.
const DEVICES: [(&str, Kind, u32, &[&str]); 2] = [
    ("firebrick-random", Kind::Bytes, 0o666, &["/dev/random", "/dev/urandom"]),
    ("firebrick-uuid", Kind::Uuid, 0o444, &["/proc/sys/kernel/random/uuid"]),
];

/// Whose event it is: those of devices come next, then those of filters.
const BIRTHS: u64 = 0;
const FIRST_DEVICE: u64 = 1;
const FIRST_FILTER: u64 = FIRST_DEVICE + DEVICES.len() as u64;

struct State {
    births: Births,
    lineage: Lineage,
    filters: HashMap<u64, Arc<OwnedFd>>,
    next_filter: u64,
}

impl State {
    /// Whoever asks now was born, or made to ask, before: so all of it is known after this.
    fn catch_up(&mut self) {
        let Self { births, lineage, .. } = self;
        if births.drain(|event| lineage.observe(event)) {
            say("too many processes were started at once: random numbers may differ from now on");
        }
    }
}

struct Shared {
    epoll: OwnedFd,
    state: Mutex<State>,
    /// This machine is a copy by now, which is to have random numbers of its own.
    over: AtomicBool,
}

impl Shared {
    /// Nothing panics while holding the lock (and a panic ends the agent), so a poisoned one is as good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `once`: after an event it is not watched until `watch_births`.
    fn watch(&self, fd: BorrowedFd<'_>, key: u64, once: bool) -> Result<(), Errno> {
        let flags = if once { EventFlags::IN | EventFlags::ONESHOT } else { EventFlags::IN };
        epoll::add(&self.epoll, fd, EventData::new_u64(key), flags)
    }

    fn watch_births(&self) {
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        // It was added, and is open: it cannot fail.
        let _ = epoll::modify(&self.epoll, self.lock().births.as_fd(), EventData::new_u64(BIRTHS), flags);
    }

    /// The key that `of` finds for a task, or none where nothing is to be the same any more.
    fn key(&self, of: impl FnOnce(&mut Lineage) -> Key) -> Option<Key> {
        if self.over.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.lock();
        state.catch_up();
        Some(of(&mut state.lineage))
    }
}

pub struct Randomness {
    shared: Arc<Shared>,
}

impl Randomness {
    /// From now on. `modules` are files of kernel modules this needs, in the order to load them; they are removed. After a failure
    /// the machine has the kernel's random numbers still; modules, and devices that lie over nothing, may be there.
    pub fn begin(seed: &[u8], modules: &[ByteBuf]) -> Result<Self, Failure> {
        if seed.is_empty() || seed.len() > SEED_LIMIT || modules.len() > MODULES {
            return Err(Failure::bad("a seed has 1 to 512 bytes, and at most 8 modules"));
        }
        filter::probe().map_err(|errno| unsupported("filter system calls", errno))?;
        let births = Births::open().map_err(|errno| unsupported("hear of new processes", errno))?;
        modules.iter().try_for_each(load)?;
        let state = State {
            births,
            lineage: Lineage::new(Key::of_seed(seed), rustix::process::getpid().as_raw_pid()),
            filters: HashMap::new(),
            next_filter: FIRST_FILTER,
        };
        let shared = Shared::new(state).map_err(|errno| unsupported("wait for events", errno))?;
        let devices = make_devices(&shared)?;
        let shared = Arc::new(shared);
        let serving = shared.clone();
        let thread = std::thread::Builder::new().name("randomness".into()).stack_size(STACK);
        thread
            .spawn(move || serve(&serving, devices))
            .map_err(|error| Failure::new(Code::Busy, format!("cannot start a thread: {error}")))?;
        let laid = Laid::over_all()?;
        std::mem::forget(laid); // for ever
        Ok(Self { shared })
    }

    /// The machine is a copy: what is started now asks the kernel, and so does what was started before, by way of us.
    pub fn forget(&self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }

    /// For a process that is about to be started; `None` where it is to be like any other. Others get their random numbers meanwhile: its start may
    /// wait for one of them, which has mounted the file system it is on.
    pub fn birth(&self) -> Result<Option<Birth<'_>>, Errno> {
        if self.shared.over.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let mut state = self.shared.lock();
        state.catch_up();
        state.lineage.expect(true);
        Ok(Some(Birth { shared: &self.shared, ours, theirs }))
    }
}

/// A process is being started. The end of this is that of the start, whether it succeeded or not.
pub struct Birth<'a> {
    shared: &'a Shared,
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Birth<'_> {
    /// Where the child sends the listener of its filter.
    pub fn door(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }
}

impl Drop for Birth<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.catch_up();
        state.lineage.expect(false);
        let Some(listener) = filter::take_listener(self.ours.as_fd()) else { return };
        let key = state.next_filter;
        match self.shared.watch(listener.as_fd(), key, false) {
            Ok(()) => {
                state.next_filter += 1;
                state.filters.insert(key, Arc::new(listener));
            }
            Err(errno) => say(&format!("a process will get no random numbers: {errno}")),
        }
    }
}

impl Shared {
    fn new(state: State) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let shared = Self { epoll, state: Mutex::new(state), over: AtomicBool::new(false) };
        shared.watch(shared.lock().births.as_fd(), BIRTHS, true)?;
        Ok(shared)
    }
}

fn unsupported(operation: &str, errno: Errno) -> Failure {
    Failure { code: Code::Unsupported, ..Failure::system(operation, "in this machine", errno) }
}

fn load(path: &ByteBuf) -> Result<(), Failure> {
    let text = std::str::from_utf8(path).map_err(|_| Failure::bad(format!("{} is no module", show(path))))?;
    let loaded = modules::load_file(text).map_err(|error| Failure::new(Code::Unsupported, error));
    let _ = std::fs::remove_file(text);
    loaded
}

fn make_devices(shared: &Shared) -> Result<Vec<Device>, Failure> {
    let make = |(key, (name, kind, mode, _)): (u64, (&str, Kind, u32, _))| {
        let device = Device::make(name, kind, mode)?;
        shared.watch(device.as_fd(), key, false).map(|()| device)
    };
    let made: Result<_, Errno> = (FIRST_DEVICE..).zip(DEVICES).map(make).collect();
    made.map_err(|errno| unsupported("make a device", errno))
}

/// Devices that lie over the kernel's; taken away again when this is dropped.
#[derive(Default)]
struct Laid(Vec<&'static str>);

impl Laid {
    fn over_all() -> Result<Self, Failure> {
        let mut laid = Self::default();
        for (name, _, _, targets) in DEVICES {
            for target in targets {
                rustix::mount::mount_bind(format!("/dev/{name}"), *target)
                    .map_err(|errno| unsupported("lay a device over another", errno))?;
                laid.0.push(target);
            }
        }
        Ok(laid)
    }
}

impl Drop for Laid {
    fn drop(&mut self) {
        for target in &self.0 {
            let _ = rustix::mount::unmount(*target, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Births are looked at when somebody asks, and else now and then, so that the queue does not overflow: to be woken by each would slow them down.
fn serve(shared: &Shared, mut devices: Vec<Device>) {
    let mut events = Vec::with_capacity(16);
    let mut look: Option<Instant> = None;
    loop {
        events.clear();
        if look.is_some_and(|at| at <= Instant::now()) {
            look = None;
            shared.watch_births();
        }
        let timeout = look.map(timeout_until);
        if epoll::wait(&shared.epoll, spare_capacity(&mut events), timeout.as_ref()).is_err() {
            continue; // interrupted
        }
        for event in &events {
            let flags = event.flags;
            match event.data.u64() {
                BIRTHS => {
                    shared.lock().catch_up();
                    look = Some(Instant::now() + PAUSE);
                }
                key @ FIRST_FILTER.. => serve_filter(shared, key, flags.contains(EventFlags::IN)),
                key => devices[(key - FIRST_DEVICE) as usize]
                    .serve(|task| Source::of(shared.key(|lineage| lineage.open(task)))),
            }
        }
    }
}

fn timeout_until(at: Instant) -> Timespec {
    let left = at.saturating_duration_since(Instant::now());
    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
}

/// One call, or the end of all that could make one.
fn serve_filter(shared: &Shared, key: u64, asked: bool) {
    if !asked {
        shared.lock().filters.remove(&key);
        return;
    }
    let Some(listener) = shared.lock().filters.get(&key).cloned() else { return };
    let Some(call) = Call::receive(listener.as_fd()) else { return };
    // Not under the lock: memory of a caller can be slow to write to, and that is to hold up nobody who starts a process.
    match shared.key(|lineage| lineage.call(call.task)) {
        Some(key) => call.answer(listener.as_fd(), &mut key.stream()),
        None => call.hand_on(listener.as_fd()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Without the kernel's events, of which nobody tells us here.
    fn randomness() -> (Randomness, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, kernels) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).expect("sockets");
        let state = State {
            births: ours.into(),
            lineage: Lineage::new(Key::of_seed(b"seed"), 1),
            filters: HashMap::new(),
            next_filter: FIRST_FILTER,
        };
        let shared = Shared::new(state).expect("something to wait with");
        (Randomness { shared: Arc::new(shared) }, kernels)
    }

    #[test]
    fn who_asks_while_a_process_is_started_is_answered() {
        let (randomness, _kernels) = randomness();
        let birth = randomness.birth().expect("sockets").expect("a birth");
        let (answered, answer) = mpsc::channel();
        let shared = randomness.shared.clone();
        std::thread::spawn(move || answered.send(shared.key(|lineage| lineage.call(7)).is_some()));
        assert_eq!(answer.recv_timeout(Duration::from_secs(10)), Ok(true));
        drop(birth);
    }

    #[test]
    fn a_copy_has_no_births() {
        let (randomness, _kernels) = randomness();
        randomness.forget();
        assert!(randomness.birth().expect("nothing was asked for").is_none());
        assert!(randomness.shared.key(|lineage| lineage.call(7)).is_none());
    }
}
