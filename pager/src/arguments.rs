//! What the page server is told: descriptors that are open already, so that it needs no right to any path.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::failure::{Failure, Outcome, Status};
use crate::region::{HUGE_PAGE, PAGE};

pub const USAGE: &str = "usage: firebrick-pager --listen FD --memory FD [--layer FD]... [--prefetch FD] \
                         [--record FD] [--around BYTES] [--user ID] | --version";
const AROUND: u64 = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    pub listen: RawFd,
    /// The base first, then each layer above it.
    pub memory: Vec<RawFd>,
    pub prefetch: Option<RawFd>,
    /// Where the prefetch list of this run is written to.
    pub record: Option<RawFd>,
    /// How many bytes are copied around a fault, a power of two.
    pub around: u64,
    /// Whom to become, and the only one who is served.
    pub user: Option<u32>,
}

impl Arguments {
    pub fn parse(words: &[String]) -> Outcome<Self> {
        let (mut listen, mut base, mut layers) = (None, None, Vec::new());
        let (mut prefetch, mut record, mut around, mut user) = (None, None, AROUND, None);
        let mut words = words.iter();
        while let Some(option) = words.next() {
            let value = words.next().ok_or_else(|| usage(&format!("{option} needs a value")))?;
            match option.as_str() {
                "--listen" => listen = Some(number(option, value)?),
                "--memory" => base = Some(number(option, value)?),
                "--layer" => layers.push(number(option, value)?),
                "--prefetch" => prefetch = Some(number(option, value)?),
                "--record" => record = Some(number(option, value)?),
                "--around" => around = number(option, value)?,
                "--user" => user = Some(number(option, value)?),
                _ => return Err(usage(&format!("there is no option {option}"))),
            }
        }
        if !around.is_power_of_two() || !(PAGE..=HUGE_PAGE).contains(&around) {
            return Err(usage("--around is a power of two from 4096 to 2097152"));
        }
        if record.is_some() && prefetch.is_some() {
            return Err(usage(
                "--record and --prefetch exclude each other: what is there already does not fault",
            ));
        }
        let listen = listen.ok_or_else(|| usage("--listen is missing"))?;
        let mut memory = vec![base.ok_or_else(|| usage("--memory is missing"))?];
        memory.append(&mut layers);
        let arguments = Self { listen, memory, prefetch, record, around, user };
        arguments.check_descriptors()?;
        Ok(arguments)
    }

    /// Each descriptor is owned once, and none is a standard stream.
    fn check_descriptors(&self) -> Outcome<()> {
        let mut all: Vec<RawFd> = self.memory.clone();
        all.push(self.listen);
        all.extend(self.prefetch);
        all.extend(self.record);
        all.sort_unstable();
        if all.iter().any(|fd| *fd < 3) || all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(usage("descriptors are numbers from 3 up, each named once"));
        }
        Ok(())
    }
}

fn usage(sentence: &str) -> Failure {
    Failure::new(Status::Usage, format!("{sentence}; {USAGE}"))
}

fn number<T: std::str::FromStr>(option: &str, value: &str) -> Outcome<T> {
    value.parse().map_err(|_| usage(&format!("{option} {value} is not a number it can be")))
}

/// Own a descriptor this process was started with.
pub fn inherited(fd: RawFd) -> Outcome<OwnedFd> {
    // SAFETY: asks about a number; nothing is owned or closed.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(usage(&format!("descriptor {fd} is not open")));
    }
    // SAFETY: it is open, was opened for this process, and the arguments were checked to name it once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Outcome<Arguments> {
        Arguments::parse(&words.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn layers_lie_above_the_base_in_their_order() {
        let arguments = parse("--layer 5 --listen 3 --memory 4 --layer 6").expect("they are right");
        assert_eq!(arguments.memory, [4, 5, 6]);
        assert_eq!(arguments.around, AROUND);
    }

    #[test]
    fn what_is_wrong_is_a_usage_error() {
        for words in [
            "",
            "--listen 3",
            "--memory 4",
            "--listen",
            "--listen x --memory 4",
            "--listen 3 --memory 3",
            "--listen 0 --memory 4",
            "--listen 3 --memory 4 --around 5000",
            "--listen 3 --memory 4 --around 4194304",
            "--listen 3 --memory 4 --record 5 --prefetch 6",
            "--listen 3 --memory 4 --frobnicate 1",
        ] {
            assert_eq!(parse(words).expect_err(words).status, Status::Usage, "{words}");
        }
    }
}
