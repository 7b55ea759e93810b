//! What runs for the host: one activity for each open stream, and execs that go on after theirs is gone. They take turns at moving bytes.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use crate::cell::Cell;
use crate::exec::{Ended, Exec, Progress};
use crate::failure::Failure;
use crate::lane::LaneStream;
use crate::listener::{Door, Listener, Waiting};
use crate::outbox::Outbox;
use crate::poll::{Slot, FIRST_KEY};
use crate::preparing::Preparing;
use crate::protocol::{Body, Code, Violation, INPUT, OUTPUT};
use crate::proxy::Proxy;

/// More at once are refused as busy.
const LIMIT: usize = 1024;
/// Of these, what listens.
const LISTENERS: usize = 128;

pub enum Activity {
    Preparing(Box<Preparing>),
    Exec(Box<Exec>),
    Lane(LaneStream),
    Proxy(Box<Proxy>),
    Listener(Listener),
    Waiting(Waiting),
}

impl Activity {
    fn ready(&mut self, slot: Slot) {
        match self {
            Activity::Exec(exec) => exec.ready(slot),
            Activity::Proxy(proxy) => proxy.ready(),
            Activity::Listener(listener) => listener.ready(),
            Activity::Preparing(_) | Activity::Lane(_) | Activity::Waiting(_) => {}
        }
    }

    fn feed(&mut self, channel: u8, body: Body) -> Result<(), Violation> {
        match (self, body) {
            (Activity::Exec(exec), Body::Credit(bytes)) => exec.grant(channel, bytes),
            (Activity::Lane(lane), Body::Credit(bytes)) if channel == OUTPUT => lane.grant(bytes),
            (Activity::Proxy(proxy), Body::Credit(bytes)) if channel == OUTPUT => proxy.grant(bytes),
            (_, Body::Data(_) | Body::Eof) if channel != INPUT => {
                return Err(Violation(format!("the host has nothing to say on channel {channel}")));
            }
            (Activity::Exec(exec), Body::Data(data)) => return exec.data(data),
            (Activity::Lane(lane), Body::Data(data)) => return lane.data(data),
            (Activity::Proxy(proxy), Body::Data(data)) => return proxy.data(data),
            (Activity::Exec(exec), Body::Eof) => exec.eof(),
            (Activity::Lane(lane), Body::Eof) => lane.eof(),
            (Activity::Proxy(proxy), Body::Eof) => proxy.eof(),
            (Activity::Listener(_) | Activity::Waiting(_), Body::Data(_) | Body::Eof) => {
                return Err(Violation("data for a connection that is not there yet".into()));
            }
            (Activity::Preparing(_), Body::Data(_) | Body::Eof) => {
                return Err(Violation("data for a program that has not started yet".into()));
            }
            (_, Body::Credit(_) | Body::Control(_) | Body::Reset) => {}
        }
        Ok(())
    }

    fn advance(&mut self, out: &mut Outbox, scratch: &mut Vec<u8>) -> Progress {
        match self {
            Activity::Exec(exec) => exec.advance(out, scratch),
            Activity::Lane(lane) => match lane.advance(out) {
                true => Progress::Finished,
                false => Progress::Waiting,
            },
            Activity::Proxy(proxy) => match proxy.advance(out) {
                Some(true) => Progress::More,
                Some(false) => Progress::Waiting,
                None => Progress::Finished,
            },
            Activity::Listener(_) | Activity::Preparing(_) => Progress::Waiting,
            Activity::Waiting(waiting) => match waiting.advance(out) {
                Ok(Some(proxy)) => {
                    *self = Activity::Proxy(Box::new(proxy));
                    Progress::More
                }
                Ok(None) => Progress::Waiting,
                Err(()) => Progress::Finished,
            },
        }
    }

    fn is_prepared(&mut self) -> bool {
        match self {
            Activity::Preparing(preparing) => preparing.is_over(),
            _ => false,
        }
    }

    fn exec(&self) -> Option<&Exec> {
        match self {
            Activity::Exec(exec) => Some(exec),
            _ => None,
        }
    }

    fn exec_mut(&mut self) -> Option<&mut Exec> {
        match self {
            Activity::Exec(exec) => Some(exec),
            _ => None,
        }
    }
}

pub struct Activities {
    all: BTreeMap<u32, Activity>,
    /// Which activity an open stream is.
    streams: HashMap<u32, u32>,
    last_stream: u32,
    next_key: u32,
    /// Who moved last.
    turn: u32,
}

impl Activities {
    pub fn new() -> Self {
        Self { all: BTreeMap::new(), streams: HashMap::new(), last_stream: 0, next_key: FIRST_KEY, turn: 0 }
    }

    pub fn is_full(&self) -> bool {
        self.all.len() >= LIMIT
    }

    /// The host opens a stream: the key for its activity.
    pub fn open(&mut self, stream: u32) -> Result<u32, Violation> {
        if stream <= self.last_stream {
            return Err(Violation(format!("stream {stream} was opened before")));
        }
        self.last_stream = stream;
        let key = self.next_key;
        self.next_key = key.checked_add(1).unwrap_or(FIRST_KEY);
        Ok(key)
    }

    pub fn insert(&mut self, stream: u32, key: u32, activity: Activity) {
        self.all.insert(key, activity);
        self.streams.insert(stream, key);
    }

    /// Whether one more may listen.
    pub fn admit_listener(&self) -> Result<(), Failure> {
        let listening =
            self.all.values().filter(|activity| matches!(activity, Activity::Listener(_))).count();
        match listening {
            ..LISTENERS => Ok(()),
            _ => Err(Failure::new(Code::Busy, format!("this machine listens on {LISTENERS} ports already"))),
        }
    }

    /// Where the connections of a listener come in.
    pub fn door_of(&self, stream: u32) -> Result<Rc<Door>, Failure> {
        match self.streams.get(&stream).and_then(|key| self.all.get(key)) {
            Some(Activity::Listener(listener)) => Ok(listener.door()),
            _ => Err(Failure::new(Code::NotFound, format!("nothing listens for stream {stream}"))),
        }
    }

    pub fn exec_of(&self, stream: u32) -> Option<&Exec> {
        self.all.get(self.streams.get(&stream)?)?.exec()
    }

    pub fn feed(&mut self, stream: u32, channel: u8, body: Body) -> Result<(), Violation> {
        match self.streams.get(&stream).and_then(|key| self.all.get_mut(key)) {
            Some(activity) => activity.feed(channel, body),
            // It crossed our last message on the way.
            None if stream <= self.last_stream => Ok(()),
            None => Err(Violation(format!("stream {stream} was never opened"))),
        }
    }

    /// One of its descriptors is ready. It may have ended in this very turn.
    pub fn ready(&mut self, key: u32, slot: Slot) {
        if let Some(activity) = self.all.get_mut(&key) {
            activity.ready(slot);
        }
    }

    /// The host gives a stream up. It is told at once, but of an exec only when all of it is gone.
    pub fn reset(&mut self, stream: u32, out: &mut Outbox) {
        let Some(key) = self.streams.remove(&stream) else { return };
        let due = match self.all.get_mut(&key) {
            Some(Activity::Exec(exec)) => exec.give_up(stream),
            _ => self.all.remove(&key).is_some(),
        };
        if due {
            out.message(stream, &Failure::reset().into_message());
        }
    }

    /// The execs whose files are made, or cannot be: they are activities no longer.
    pub fn take_prepared(&mut self) -> Vec<(u32, Preparing)> {
        let over = self.all.iter_mut().filter_map(|(key, activity)| activity.is_prepared().then_some(*key));
        let keys: Vec<u32> = over.collect();
        keys.into_iter().filter_map(|key| self.take_preparing(key).map(|one| (key, one))).collect()
    }

    fn take_preparing(&mut self, key: u32) -> Option<Preparing> {
        self.streams.retain(|_, other| *other != key);
        match self.all.remove(&key)? {
            Activity::Preparing(one) => Some(*one),
            _ => None,
        }
    }

    /// End every stream, as their connection does. What runs is killed, or with `keep` goes on unheard.
    pub fn let_go_of_all(&mut self, keep: bool) {
        self.streams.clear();
        self.last_stream = 0;
        self.all.retain(|_, activity| activity.exec_mut().map(|exec| exec.let_go(keep)).is_some());
    }

    /// Let everyone move bytes once, the one behind the last first. Returns whether another turn would move more.
    pub fn advance(
        &mut self,
        out: &mut Outbox,
        scratch: &mut Vec<u8>,
        mut give_back: impl FnMut(Cell),
    ) -> bool {
        let behind = self.all.range(self.turn.saturating_add(1)..).map(|(key, _)| *key);
        let before = self.all.range(..=self.turn).map(|(key, _)| *key);
        let order: Vec<u32> = behind.chain(before).collect();
        let mut more = false;
        for key in order {
            match self.all.get_mut(&key).map(|activity| activity.advance(out, scratch)) {
                Some(Progress::More) => {
                    self.turn = key;
                    more = true;
                }
                Some(Progress::Finished) => self.forget(key).map_or((), &mut give_back),
                Some(Progress::Waiting) | None => {}
            }
        }
        more
    }

    fn forget(&mut self, key: u32) -> Option<Cell> {
        self.streams.retain(|_, other| *other != key);
        match self.all.remove(&key)? {
            Activity::Exec(exec) => exec.into_cell(),
            _ => None,
        }
    }

    pub fn execs(&self) -> impl Iterator<Item = &Exec> {
        self.all.values().filter_map(Activity::exec)
    }

    fn execs_mut(&mut self) -> impl Iterator<Item = &mut Exec> {
        self.all.values_mut().filter_map(Activity::exec_mut)
    }

    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.execs().filter_map(Exec::cell)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.execs().filter_map(Exec::deadline).min()
    }

    pub fn tick(&mut self, now: Instant) {
        self.execs_mut().for_each(|exec| exec.tick(now));
    }

    pub fn child_ended(&mut self, pid: i32, ended: Ended) {
        self.execs_mut()
            .filter(|exec| exec.pid() == pid && !exec.has_ended())
            .for_each(|exec| exec.ended(ended));
    }

    /// Some children have died: whoever waits for what its first process left looks again.
    pub fn children_died(&mut self) {
        self.execs_mut().for_each(Exec::child_died);
    }
}
