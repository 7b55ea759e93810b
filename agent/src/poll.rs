//! The one place that waits: epoll, edge-triggered, with tokens that say who is meant.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::protocol::{ERROR_OUTPUT, INPUT};

/// Which descriptor of an activity is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Input = 0,
    Output = 1,
    ErrorOutput = 2,
}

impl Slot {
    pub fn of_channel(channel: u8) -> Self {
        match channel {
            INPUT => Slot::Input,
            ERROR_OUTPUT => Slot::ErrorOutput,
            _ => Slot::Output,
        }
    }
}

/// Keys of activities are above these, which stand for the loop's own descriptors.
pub const LINK: u32 = 0;
pub const LISTENER: u32 = 1;
pub const SIGNALS: u32 = 2;
pub const LANES: u32 = 3;
pub const FREEZER: u32 = 4;
pub const FIRST_KEY: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub key: u32,
    pub slot: Slot,
}

impl Token {
    pub fn new(key: u32, slot: Slot) -> Self {
        Self { key, slot }
    }

    fn pack(self) -> u64 {
        u64::from(self.key) << 8 | self.slot as u64
    }

    fn unpack(raw: u64) -> Self {
        Self { key: (raw >> 8) as u32, slot: Slot::of_channel(raw as u8) }
    }
}

pub struct Ready {
    pub token: Token,
    /// The other side is gone (for now, where it can come back).
    pub hung_up: bool,
}

pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Watch for everything that can happen to it. It is forgotten when it is closed.
    pub fn add(&self, fd: impl AsFd, token: Token) -> Result<(), Errno> {
        let interest =
            EventFlags::IN | EventFlags::OUT | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, fd, EventData::new_u64(token.pack()), interest)
    }

    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> Result<(), Errno> {
        events.clear();
        let timeout = timeout.map(|duration| Timespec {
            tv_sec: duration.as_secs() as i64,
            tv_nsec: i64::from(duration.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

pub fn ready(event: &Event) -> Ready {
    let flags = event.flags;
    Ready {
        token: Token::unpack(event.data.u64()),
        hung_up: flags.intersects(EventFlags::HUP | EventFlags::ERR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for (key, slot) in [(LINK, Slot::Input), (FIRST_KEY, Slot::Output), (u32::MAX, Slot::ErrorOutput)] {
            let token = Token::new(key, slot);
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
