//! The event loop: one thread, one link to the host, and what runs for it. Each turn waits, reads what the host sent, lets every activity
//! move at most one turn's worth of bytes, and writes. Nothing in here blocks; what could is on a lane.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::activities::{Activities, Activity};
use crate::cell::Cells;
use crate::console::say;
use crate::exec::{self, Exec, Surroundings};
use crate::failure::Failure;
use crate::files;
use crate::guard::{Guard, PATIENCE};
use crate::identity::Identities;
use crate::lane::Lanes;
use crate::link::Link;
use crate::listener::{Listener, Waiting};
use crate::outbox::Outbox;
use crate::pace::Pace;
use crate::poll::{self, Poller, Ready, Slot, Token};
use crate::power::{Power, Shutdown};
use crate::preparing::Preparing;
use crate::protocol::{
    self, Body, Code, Decoder, ExecRequest, FileRequest, Frame, Message, Order, Request, SeedRequest,
    Violation,
};
use crate::proxy::Proxy;
use crate::randomness::Randomness;
use crate::signals::Signals;
use crate::spawn::Launcher;
use crate::usage;

/// What is read from the host in one turn, in pieces the size of a virtio buffer, so that one call empties many of them.
const READ_PIECE: usize = 4096;
const READ_PIECES: usize = 64;
const READS: usize = 8;
/// More than a port holds.
const LAST_READS: usize = 64;

/// Where a snapshot stands.
enum Quiet {
    No,
    /// Freezing and syncing; the flag is set when the sync is done.
    Settling(Arc<AtomicBool>),
    Yes,
}

pub struct Agent {
    poller: Rc<Poller>,
    link: Link,
    decoder: Decoder,
    outbox: Outbox,
    pace: Pace,
    input: Vec<u8>,
    scratch: Vec<u8>,
    activities: Activities,
    cells: Cells,
    lanes: Rc<Lanes>,
    launcher: Launcher,
    guard: Guard,
    signals: Signals,
    null: OwnedFd,
    identities: Identities,
    has_identity: bool,
    /// Where random numbers come from, once the host has given a seed.
    randomness: Arc<OnceLock<Randomness>>,
    /// It has, or has tried to.
    seeded: bool,
    /// The connection was lost while the machine was quiesced: whose its streams are is not known before an identity comes, or a
    /// `continue`. Nothing moves meanwhile.
    held: bool,
    quiet: Quiet,
    power: Power,
    shutdown: Option<Shutdown>,
    link_readable: bool,
}

/// What an agent needs to have been made before.
pub struct Parts {
    pub link: Link,
    pub cells: Cells,
    pub identities: Identities,
    pub signals: Signals,
    pub power: Power,
}

impl Agent {
    pub fn new(parts: Parts) -> Result<Self, Errno> {
        let poller = Rc::new(Poller::new()?);
        let lanes = Rc::new(Lanes::new()?);
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        parts.link.watch(&poller)?;
        poller.add(&parts.signals, Token::new(poll::SIGNALS, Slot::Input))?;
        poller.add(lanes.bell(), Token::new(poll::LANES, Slot::Input))?;
        parts.cells.watch(&poller)?;
        let outbox = Outbox::new(parts.link.port()?)?;
        Ok(Self {
            poller,
            link: parts.link,
            decoder: Decoder::default(),
            outbox,
            pace: Pace::default(),
            input: vec![0; READ_PIECE * READ_PIECES],
            scratch: Vec::new(),
            activities: Activities::new(),
            cells: parts.cells,
            lanes,
            launcher: Launcher::new()?,
            guard: Guard::new(PATIENCE)?,
            signals: parts.signals,
            null,
            identities: parts.identities,
            has_identity: false,
            randomness: Arc::default(),
            seeded: false,
            held: false,
            quiet: Quiet::No,
            power: parts.power,
            shutdown: None,
            link_readable: false,
        })
    }

    /// Serve until the machine is told to power off. Returns what is needed for that.
    pub fn run(mut self) -> Result<Power, Errno> {
        let mut events = Vec::with_capacity(64);
        let mut more = false;
        loop {
            let timeout = if more || self.can_read() { Some(Duration::ZERO) } else { self.timeout() };
            self.poller.wait(&mut events, timeout)?;
            for event in &events {
                self.dispatch(&poll::ready(event))?;
            }
            self.tick();
            self.read_link();
            more = self.advance();
            self.settle();
            self.flush();
            if self.shutdown_done() {
                return Ok(self.power);
            }
        }
    }

    fn can_read(&self) -> bool {
        self.link_readable && !self.outbox.is_full()
    }

    fn timeout(&self) -> Option<Duration> {
        let ends = [self.activities.deadline(), self.shutdown.as_ref().map(Shutdown::deadline)];
        let next = ends.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn dispatch(&mut self, ready: &Ready) -> Result<(), Errno> {
        match ready.token.key {
            poll::LINK => self.link_changed(ready.hung_up),
            poll::LISTENER => {
                if self.link.accept(&self.poller)? {
                    self.end_connection();
                    self.greet();
                }
            }
            poll::SIGNALS => self.reap(),
            poll::LANES => self.lanes.bell().silence(),
            poll::FREEZER => {}
            key => self.activities.ready(key, ready.token.slot),
        }
        Ok(())
    }

    // --- the connection ---

    fn link_changed(&mut self, hung_up: bool) {
        if hung_up && self.link.is_port() {
            return self.port_closed();
        }
        if self.link.is_port() && !self.link.connected && !self.link.condemned {
            self.greet();
        }
        self.link_readable = true;
    }

    /// What the host sent before it closed the port still counts, and none of it may be left for whoever opens it next.
    fn port_closed(&mut self) {
        for _ in 0..LAST_READS {
            let Ok(length @ 1..) = self.read_pieces() else { break };
            self.receive(length);
        }
        self.lose_connection();
    }

    fn greet(&mut self) {
        self.link.connected = true;
        self.link_readable = true;
        self.say_hello();
    }

    fn say_hello(&mut self) {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        self.outbox.message(
            0,
            &Message::Hello {
                version: protocol::VERSION,
                minimum: protocol::VERSION,
                agent: env!("CARGO_PKG_VERSION").into(),
                kernel: release,
                boot_id: self.identities.boot_id().into(),
                quiesced: matches!(self.quiet, Quiet::Yes),
                features: protocol::FEATURES.map(Into::into).into(),
            },
        );
        self.cells.prepare();
    }

    /// The host has gone.
    fn lose_connection(&mut self) {
        self.link_readable = false;
        self.link.close(false);
        self.end_connection();
    }

    /// The host broke the protocol.
    fn refuse(&mut self, violation: &Violation) {
        say(&format!("the connection is ended: {violation}"));
        let tell = self.link.close(true);
        self.end_connection();
        if tell {
            self.outbox.hang_up();
        }
    }

    fn end_connection(&mut self) {
        self.decoder = Decoder::default();
        self.outbox.clear();
        if matches!(self.quiet, Quiet::Yes) {
            self.held |= self.has_identity;
            self.has_identity = false;
            return;
        }
        self.activities.let_go_of_all(false);
        self.thaw();
    }

    /// Read what there is, one turn's worth at most.
    fn read_link(&mut self) {
        for _ in 0..READS {
            if !self.can_read() {
                return;
            }
            match self.read_pieces() {
                Ok(0) if self.link.connected || !self.link.is_port() => self.lose_connection(),
                Ok(0) | Err(Errno::AGAIN) => self.link_readable = false,
                Ok(length) => self.receive(length),
                Err(Errno::INTR) => {}
                Err(_) => self.lose_connection(),
            }
        }
    }

    /// One virtio buffer, and if that was full, many more: most of what the host says is short.
    fn read_pieces(&mut self) -> Result<usize, Errno> {
        let link = self.link.stream().ok_or(Errno::AGAIN)?;
        let (first, rest) = self.input.split_at_mut(READ_PIECE);
        let length = rustix::io::read(link, &mut *first)?;
        if length < READ_PIECE {
            return Ok(length);
        }
        let mut pieces: Vec<_> = rest.chunks_mut(READ_PIECE).map(std::io::IoSliceMut::new).collect();
        // Whatever is wrong is met again by the next read.
        Ok(length + rustix::io::readv(link, &mut pieces).unwrap_or(0))
    }

    fn receive(&mut self, length: usize) {
        if self.link.condemned {
            return;
        }
        let input = std::mem::take(&mut self.input);
        let mut left = &input[..length];
        let result = loop {
            match self.decoder.next(&mut left) {
                Ok(Some(frame)) => {
                    if let Err(violation) = self.take(frame) {
                        break Err(violation);
                    }
                }
                Ok(None) => break Ok(()),
                Err(violation) => break Err(violation),
            }
        };
        self.input = input;
        if let Err(violation) = result {
            self.refuse(&violation);
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Violation> {
        let stream = frame.stream;
        if matches!(frame.body, Body::Control(_)) {
            self.outbox.flooded = false;
            self.pace.hurry();
        }
        match frame.body {
            Body::Control(raw) if stream == 0 => self.obey(protocol::decode(&raw)?),
            // Of somebody who does not know yet that he must say first who he is.
            Body::Control(_) if self.held => {
                self.outbox.message(stream, &no_identity().into_message());
                Ok(())
            }
            _ if self.held => Ok(()),
            Body::Control(raw) => self.answer(stream, protocol::decode(&raw)?),
            Body::Reset => {
                self.activities.reset(stream, &mut self.outbox);
                Ok(())
            }
            body => self.activities.feed(stream, frame.channel, body),
        }
    }

    fn flush(&mut self) {
        let Some(link) = self.link.stream().filter(|_| !self.outbox.is_empty()) else { return };
        match self.outbox.flush(link) {
            Ok(()) | Err(Errno::AGAIN) => {}
            Err(_) => self.lose_connection(),
        }
    }

    // --- orders ---

    fn obey(&mut self, order: Order) -> Result<(), Violation> {
        match order {
            Order::HelloRequest => self.say_hello(),
            Order::Identity(identity) => return self.identify(&identity),
            Order::Ping { token } => self.outbox.message(0, &Message::Pong { token }),
            Order::Quiesce => self.quiesce(),
            Order::Continue { machine_id } => return self.go_on(&machine_id),
            Order::Resume => {
                self.let_go_of_held();
                self.thaw();
                self.outbox.message(0, &Message::Resumed);
            }
            Order::Usage => {
                let report = usage::report(&self.cells);
                self.outbox.message(0, &Message::UsageReport(report));
            }
            Order::Poweroff { grace_ms } => self.begin_shutdown(Duration::from_millis(grace_ms)),
        }
        Ok(())
    }

    /// The host of a machine that was saved, on a new connection: the streams are its own still. Whoever restores the machine
    /// does not know its identity.
    fn go_on(&mut self, machine_id: &str) -> Result<(), Violation> {
        if !self.held || !self.identities.is(machine_id) {
            return Err(Violation("there is nothing for this host to continue".into()));
        }
        self.held = false;
        self.has_identity = true;
        self.outbox.message(0, &Message::Continued);
        Ok(())
    }

    fn let_go_of_held(&mut self) {
        if std::mem::take(&mut self.held) {
            self.activities.let_go_of_all(true);
        }
    }

    fn identify(&mut self, identity: &protocol::Identity) -> Result<(), Violation> {
        let quiet = matches!(self.quiet, Quiet::Yes);
        if quiet {
            self.held = false;
            self.activities.let_go_of_all(true);
            self.has_identity = false;
            if !self.identities.is(&identity.machine_id) {
                self.randomness.get().into_iter().for_each(Randomness::forget);
            }
        }
        self.identities.apply(identity, quiet).map_err(|failure| Violation(failure.message))?;
        self.has_identity = true;
        self.thaw();
        self.outbox.message(0, &Message::IdentityDone { boot_id: self.identities.boot_id().into() });
        Ok(())
    }

    fn quiesce(&mut self) {
        if !matches!(self.quiet, Quiet::No) {
            return;
        }
        self.cells.freeze(true, self.activities.cells());
        let synced = Arc::new(AtomicBool::new(false));
        let done = synced.clone();
        let sync = self.lanes.run_and_ring(move || {
            rustix::fs::sync();
            done.store(true, Ordering::Release);
        });
        if sync.is_err() {
            // All lanes are taken: what is not on the disk yet is in the memory of the snapshot.
            synced.store(true, Ordering::Release);
        }
        self.quiet = Quiet::Settling(synced);
    }

    /// Say `quiesced` once everything has come to a stop.
    fn settle(&mut self) {
        let Quiet::Settling(synced) = &self.quiet else { return };
        if synced.load(Ordering::Acquire) && self.cells.frozen() {
            self.quiet = Quiet::Yes;
            self.outbox.message(0, &Message::Quiesced);
        }
    }

    fn thaw(&mut self) {
        if !matches!(self.quiet, Quiet::No) {
            self.cells.freeze(false, self.activities.cells());
            self.quiet = Quiet::No;
        }
    }

    // --- requests ---

    fn answer(&mut self, stream: u32, request: Request) -> Result<(), Violation> {
        if matches!(request, Request::Signal { .. } | Request::Resize(_)) {
            self.tell(stream, &request);
            return Ok(());
        }
        let key = self.activities.open(stream)?;
        match self.admit().and_then(|()| self.start(stream, key, request)) {
            Ok(activity) => self.activities.insert(stream, key, activity),
            Err(failure) => self.outbox.message(stream, &failure.into_message()),
        }
        Ok(())
    }

    fn admit(&self) -> Result<(), Failure> {
        if !self.has_identity {
            return Err(no_identity());
        }
        if !matches!(self.quiet, Quiet::No) {
            return Err(Failure::new(Code::Busy, "this machine stands still for a snapshot"));
        }
        if self.shutdown.is_some() || self.activities.is_full() {
            return Err(Failure::new(
                Code::Busy,
                "this machine is shutting down, or has too many streams open",
            ));
        }
        Ok(())
    }

    fn start(&mut self, stream: u32, key: u32, request: Request) -> Result<Activity, Failure> {
        match request {
            Request::Exec(request) if request.before.is_empty() => self.start_exec(stream, key, &request),
            Request::Exec(request) => {
                Ok(Activity::Preparing(Box::new(Preparing::start(stream, request, &self.lanes)?)))
            }
            Request::Connect(request) => {
                Ok(Activity::Proxy(Box::new(Proxy::start(stream, key, &request, &self.poller)?)))
            }
            Request::Listen(request) => {
                self.activities.admit_listener()?;
                let listener = Listener::start(key, &request, &self.poller)?;
                self.outbox.message(stream, &Message::Listening { port: listener.port() });
                Ok(Activity::Listener(listener))
            }
            Request::Accept(request) => {
                let door = self.activities.door_of(request.listener)?;
                Ok(Activity::Waiting(Waiting::new(stream, key, door)))
            }
            Request::Seed(request) => self.start_seed(stream, request),
            Request::File(request) => self.start_lane(stream, request),
            Request::Signal { .. } | Request::Resize(_) => {
                Err(Failure::bad("there is no exec on this stream"))
            }
        }
    }

    fn start_exec(&mut self, stream: u32, key: u32, request: &ExecRequest) -> Result<Activity, Failure> {
        let around = Surroundings {
            poller: &self.poller,
            launcher: &mut self.launcher,
            guard: &self.guard,
            cells: &mut self.cells,
            lanes: &self.lanes,
            null: &self.null,
            randomness: self.randomness.get(),
        };
        let exec = Exec::start(stream, key, request, around)?;
        self.outbox.message(stream, &Message::Started { pid: exec.pid() });
        Ok(Activity::Exec(Box::new(exec)))
    }

    /// Start what is prepared. Not while all stands still: a process born into a frozen cell would stop us with it.
    fn start_prepared(&mut self) {
        if !matches!(self.quiet, Quiet::No) {
            return;
        }
        let all = self.activities.take_prepared();
        if !all.is_empty() {
            self.pace.hurry(); // they would inherit patience
        }
        for (key, prepared) in all {
            let (stream, request, result) = prepared.into_parts();
            let started = result.and_then(|()| self.admit());
            match started.and_then(|()| self.start_exec(stream, key, &request)) {
                Ok(activity) => self.activities.insert(stream, key, activity),
                Err(failure) => self.outbox.message(stream, &failure.into_message()),
            }
        }
    }

    fn start_lane(&mut self, stream: u32, request: FileRequest) -> Result<Activity, Failure> {
        let output = request.has_output();
        let lane = self.lanes.start(stream, output, move |io| files::carry_out(&request, io))?;
        Ok(Activity::Lane(lane))
    }

    /// What is started before the answer may have random numbers of either kind.
    fn start_seed(&mut self, stream: u32, request: SeedRequest) -> Result<Activity, Failure> {
        if !self.identities.of_machine() {
            return Err(Failure::new(Code::Unsupported, "only the first process of a machine can be seeded"));
        }
        if self.seeded {
            return Err(Failure::new(Code::Exists, "this machine was given a seed before"));
        }
        let randomness = self.randomness.clone();
        let lane = self.lanes.start(stream, false, move |_| {
            let begun = Randomness::begin(&request.seed, &request.modules)?;
            let _ = randomness.set(begun); // there is one request of this kind
            Ok(Message::Done { entries: None, bytes: None })
        })?;
        self.seeded = true;
        Ok(Activity::Lane(lane))
    }

    /// A message for an exec that may have ended: then it is too late and means nothing.
    fn tell(&mut self, stream: u32, request: &Request) {
        match (self.activities.exec_of(stream), request) {
            (Some(exec), Request::Signal { number, group }) => exec.signal(*number, *group),
            (Some(exec), Request::Resize(size)) => exec.resize(*size),
            _ => {}
        }
    }

    // --- turns ---

    fn advance(&mut self) -> bool {
        if matches!(self.quiet, Quiet::Yes) {
            return false;
        }
        self.start_prepared();
        let cells = &mut self.cells;
        let more = self.activities.advance(&mut self.outbox, &mut self.scratch, |cell| cells.give_back(cell));
        match self.outbox.flooded {
            true => self.pace.wait_for_turn(),
            false => self.pace.hurry(),
        }
        more && self.outbox.has_room()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.activities.tick(now);
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.tick(now, || self.cells.kill_all(self.activities.cells()));
        }
    }

    /// Collect every child that has ended: ours, and as PID 1 all orphans.
    fn reap(&mut self) {
        while let Some(signal) = self.signals.take() {
            if signal != libc::SIGCHLD {
                self.begin_shutdown(Duration::ZERO);
            }
        }
        while let Some((pid, ended)) = exec::reap() {
            self.activities.child_ended(pid, ended);
        }
        self.activities.children_died();
    }

    // --- the end ---

    fn begin_shutdown(&mut self, grace: Duration) {
        if self.shutdown.is_none() {
            self.thaw();
            self.power.terminate(self.activities.cells());
            self.shutdown = Some(Shutdown::new(grace));
        }
    }

    fn shutdown_done(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| {
            let running = match self.cells.work() {
                Some(_) => self.cells.populated(),
                None => self.activities.execs().next().is_some(),
            };
            !running || shutdown.is_over(Instant::now())
        })
    }
}

fn no_identity() -> Failure {
    Failure::new(Code::NoIdentity, "this machine has no identity yet")
}
