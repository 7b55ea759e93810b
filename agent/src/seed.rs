//! Random numbers that follow from a seed. Each task of a machine has a key, made of that of the task that started it and of how many that one had
//! started before, so that what one reads does not depend on who was faster. Nothing here is secret: whoever knows the seed knows it all.

use sha2::{Digest, Sha256};

const BLOCK: usize = 32;

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
pub struct Key([u8; BLOCK]);

impl Key {
    pub fn of_seed(seed: &[u8]) -> Self {
        Self(Sha256::digest(seed).into())
    }

    pub fn branch(&self, branch: Branch, number: u64) -> Self {
        Self(self.block(branch as u8, number))
    }

    pub fn stream(self) -> Stream {
        Stream { key: self, position: 0 }
    }

    fn block(&self, label: u8, number: u64) -> [u8; BLOCK] {
        Sha256::new()
            .chain_update(self.0)
            .chain_update([label])
            .chain_update(number.to_le_bytes())
            .finalize()
            .into()
    }
}

/// Endless bytes. How they are read, in large pieces or small ones, makes no difference.
pub struct Stream {
    key: Key,
    position: u64,
}

impl Stream {
    pub fn fill(&mut self, mut target: &mut [u8]) {
        while !target.is_empty() {
            let block = self.key.block(b'#', self.position / BLOCK as u64);
            let rest = &block[(self.position % BLOCK as u64) as usize..];
            let length = rest.len().min(target.len());
            target[..length].copy_from_slice(&rest[..length]);
            target = &mut target[length..];
            self.position += length as u64;
        }
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
        assert_eq!(read(key, &[1, 31, 32, 33, 900, 3]), whole);
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
