//! Random numbers that follow from a seed. Each task of a machine has a key, made of that of the task that started it and of how many that one had
//! started before, so that what one reads does not depend on who was faster. Nothing here is secret: whoever knows the seed knows it all.

use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use sha2::{Digest, Sha256};

const KEY: usize = 32;
const WORD: usize = 8;

/// What one key leads to others by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    /// A process the host asked for.
    Exec = b'e' as isize,
    /// A process, of the task that made it.
    Process = b'p' as isize,
    /// A thread, of its process.
    Thread = b't' as isize,
    /// A task that has taken its process over, which a thread does that executes a program.
    Successor = b's' as isize,
    /// A call of `getrandom`.
    Call = b'c' as isize,
    /// A device that is open.
    Open = b'o' as isize,
    /// Of a task that nothing is known of.
    Stray = b'?' as isize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; KEY]);

impl Key {
    pub fn of_seed(seed: &[u8]) -> Self {
        Self(Sha256::digest(seed).into())
    }

    pub fn branch(&self, branch: Branch, number: u64) -> Self {
        let parts = Sha256::new().chain_update(self.0).chain_update([branch as u8]);
        Self(parts.chain_update(number.to_le_bytes()).finalize().into())
    }

    pub fn stream(self) -> Stream {
        Stream { source: Xoshiro256PlusPlus::from_seed(self.0), rest: [0; WORD], left: 0 }
    }
}

/// Endless bytes, by a generator that is quick and no more than that. How they are read, in large pieces or small ones, makes no difference.
pub struct Stream {
    source: Xoshiro256PlusPlus,
    rest: [u8; WORD],
    /// How many bytes at the end of `rest` are still to be read.
    left: usize,
}

impl Stream {
    pub fn fill(&mut self, target: &mut [u8]) {
        let (begun, fresh) = target.split_at_mut(self.left.min(target.len()));
        self.take(begun);
        let mut words = fresh.chunks_exact_mut(WORD);
        for word in &mut words {
            word.copy_from_slice(&self.source.next_u64().to_le_bytes());
        }
        let last = words.into_remainder();
        if !last.is_empty() {
            self.rest = self.source.next_u64().to_le_bytes();
            self.left = WORD;
            self.take(last);
        }
    }

    /// What is left of a word, or a part of that.
    fn take(&mut self, target: &mut [u8]) {
        let from = WORD - self.left;
        target.copy_from_slice(&self.rest[from..from + target.len()]);
        self.left -= target.len();
    }
}

/// A random UUID, as the kernel writes one.
pub fn uuid(mut raw: [u8; 16]) -> String {
    raw[6] = raw[6] & 0x0f | 0x40;
    raw[8] = raw[8] & 0x3f | 0x80;
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: Key, pieces: &[usize]) -> Vec<u8> {
        let mut stream = key.stream();
        let mut piece = |length: &usize| {
            let mut bytes = vec![0; *length];
            stream.fill(&mut bytes);
            bytes
        };
        pieces.iter().flat_map(&mut piece).collect()
    }

    #[test]
    fn the_size_of_pieces_makes_no_difference() {
        let key = Key::of_seed(b"seed");
        let whole = read(key, &[1000]);
        assert_eq!(read(key, &[1, 2, 4, 1, 31, 32, 33, 893, 3]), whole);
        assert!(whole.windows(32).all(|window| window.iter().any(|byte| *byte != window[0])));
    }

    #[test]
    fn every_branch_is_another_stream() {
        let key = Key::of_seed(b"seed");
        let other = [
            key.branch(Branch::Process, 0),
            key.branch(Branch::Process, 1),
            key.branch(Branch::Thread, 0),
            key.branch(Branch::Process, 0).branch(Branch::Process, 0),
            Key::of_seed(b"Seed").branch(Branch::Process, 0),
        ];
        for (index, one) in other.iter().enumerate() {
            assert!(*one != key && !other[..index].contains(one));
        }
        assert_eq!(key.branch(Branch::Call, 7), Key::of_seed(b"seed").branch(Branch::Call, 7));
    }

    #[test]
    fn a_uuid_is_version_4() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
