//! Receiving a tree: whatever the sender says, nothing is made outside the target.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timestamps, Uid, UTIME_OMIT};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::failure::{show, Failure};
use crate::files::{chown, mtime_ns, open_no_follow, permissions};
use crate::protocol::{self, Code};
use crate::tree::{broken, Moved, Record, RecordKind, MAX_DEPTH};

const RECORD_LIMIT: u32 = 65_536;
const EXTENT_LIMIT: u32 = 1 << 20;

/// A directory we are in, to be completed when we leave it: what is made inside changes its times, and its mode may forbid it.
struct Level {
    name: Vec<u8>,
    directory: OwnedFd,
    complete: Option<(Mode, i64)>,
}

impl Level {
    fn leave(self) -> Result<(), Failure> {
        let Some((mode, mtime)) = self.complete else { return Ok(()) };
        let done = rustix::fs::fchmod(&self.directory, mode)
            .and_then(|()| rustix::fs::futimens(&self.directory, &times(mtime)));
        done.map_err(|errno| Failure::system("complete the directory", show(&self.name), errno))
    }
}

struct Receiver<'a, R> {
    input: &'a mut R,
    levels: Vec<Level>,
    owner: (Option<u32>, Option<u32>),
    /// Only root can give files away; anybody else keeps what it makes.
    may_chown: bool,
    moved: Moved,
    buffer: Vec<u8>,
}

/// Receive a tree below `top`. `owner` is used where set, else what the records say.
pub fn receive(
    input: &mut impl Read,
    top: OwnedFd,
    owner: (Option<u32>, Option<u32>),
) -> Result<Moved, Failure> {
    let top = Level { name: Vec::new(), directory: top, complete: None };
    let may_chown = rustix::process::geteuid().is_root();
    let mut receiver =
        Receiver { input, levels: vec![top], owner, may_chown, moved: (0, 0), buffer: Vec::new() };
    while let Some(record) = receiver.next_record()? {
        receiver.make(&record)?;
        receiver.moved.0 += 1;
    }
    receiver.levels.drain(..).rev().try_for_each(Level::leave)?;
    Ok(receiver.moved)
}

impl<R: Read> Receiver<'_, R> {
    fn next_record(&mut self) -> Result<Option<Record>, Failure> {
        let length = self.read_u32()?;
        if length == 0 {
            return Ok(None);
        }
        if length > RECORD_LIMIT {
            return Err(Failure::bad(format!("a record of {length} bytes in a tree stream")));
        }
        let mut raw = vec![0; length as usize];
        self.input.read_exact(&mut raw).map_err(broken)?;
        let record = protocol::decode(&raw)
            .map_err(|violation| Failure::bad(format!("in a tree stream: {violation}")))?;
        Ok(Some(record))
    }

    fn read_u32(&mut self) -> Result<u32, Failure> {
        let mut raw = [0; 4];
        self.input.read_exact(&mut raw).map_err(broken)?;
        Ok(u32::from_le_bytes(raw))
    }

    fn make(&mut self, record: &Record) -> Result<(), Failure> {
        let failed = |errno| Failure::system("make", show(&record.path), errno);
        let parts = components(&record.path)?;
        let Some((name, parents)) = parts.split_last() else { return self.make_top(record) };
        self.enter(parents, &record.path)?;
        match record.kind {
            RecordKind::Directory => self.make_directory(name, record),
            RecordKind::File => self.make_file(name, record),
            RecordKind::Symlink => {
                let target = target_of(record)?;
                let parent = self.here();
                replacing(parent, name, || rustix::fs::symlinkat(target, parent, *name)).map_err(failed)?;
                self.complete_link(name, record).map_err(failed)
            }
            RecordKind::Hardlink => {
                let (from, old) = self.find(target_of(record)?)?;
                let parent = self.here();
                replacing(parent, name, || {
                    rustix::fs::linkat(&from, &old[..], parent, *name, AtFlags::empty())
                })
                .map_err(failed)
            }
        }
    }

    fn make_top(&mut self, record: &Record) -> Result<(), Failure> {
        if record.kind != RecordKind::Directory {
            return Err(Failure::bad("the root of a tree for a directory is not a directory"));
        }
        self.leave_to(0)?;
        self.give(&self.levels[0].directory, record)
            .map_err(|errno| Failure::system("change the owner of", "the target", errno))?;
        self.levels[0].complete = Some((permissions(record.mode), record.mtime_ns));
        Ok(())
    }

    fn here(&self) -> &OwnedFd {
        // The target is the first level, and leaving stops short of it until the end.
        &self.levels[self.levels.len() - 1].directory
    }

    /// Leave directories until only `depth` below the target are open; at 0 the target itself stays.
    fn leave_to(&mut self, depth: usize) -> Result<(), Failure> {
        while self.levels.len() > depth + 1 {
            self.levels.pop().map_or(Ok(()), Level::leave)?;
        }
        Ok(())
    }

    /// Make `parents` the directories we are in. They must be there, and be directories: a link on the way is refused.
    fn enter(&mut self, parents: &[&[u8]], path: &[u8]) -> Result<(), Failure> {
        let common =
            self.levels[1..].iter().zip(parents).take_while(|(level, name)| level.name == **name).count();
        self.leave_to(common)?;
        for name in &parents[common..] {
            let directory = open_no_follow(self.here(), name).map_err(|errno| refuse_link(errno, path))?;
            // It was completed when we left it, and is to look the same when we leave it again.
            let complete =
                rustix::fs::fstat(&directory).ok().map(|stat| (permissions(stat.st_mode), mtime_ns(&stat)));
            self.levels.push(Level { name: name.to_vec(), directory, complete });
        }
        Ok(())
    }

    /// The directory and name of an entry of this tree, for a hard link to it.
    fn find(&self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), Failure> {
        let parts = components(path)?;
        let (name, parents) =
            parts.split_last().ok_or_else(|| Failure::bad("a hard link to the root of the tree"))?;
        let duplicate = rustix::io::fcntl_dupfd_cloexec(&self.levels[0].directory, 3);
        let mut directory = duplicate.map_err(|errno| Failure::system("find", show(path), errno))?;
        for part in parents {
            directory = open_no_follow(&directory, part).map_err(|errno| refuse_link(errno, path))?;
        }
        Ok((directory, name.to_vec()))
    }

    fn make_directory(&mut self, name: &[u8], record: &Record) -> Result<(), Failure> {
        let failed = |errno| Failure::system("make the directory", show(&record.path), errno);
        match rustix::fs::mkdirat(self.here(), name, Mode::from(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let directory =
            open_no_follow(self.here(), name).map_err(|errno| refuse_link(errno, &record.path))?;
        self.give(&directory, record).map_err(failed)?;
        let complete = Some((permissions(record.mode), record.mtime_ns));
        self.levels.push(Level { name: name.to_vec(), directory, complete });
        Ok(())
    }

    fn make_file(&mut self, name: &[u8], record: &Record) -> Result<(), Failure> {
        let failed = |errno| Failure::system("write", show(&record.path), errno);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.here();
        let file = replacing(parent, name, || rustix::fs::openat(parent, name, flags, Mode::from(0o600)))
            .map_err(failed)?;
        let size = record.size.ok_or_else(|| Failure::bad("a file without a size in a tree stream"))?;
        self.receive_extents(&file, size, &record.path)?;
        rustix::fs::ftruncate(&file, size).map_err(failed)?;
        self.give(&file, record).map_err(failed)?;
        rustix::fs::fchmod(&file, permissions(record.mode)).map_err(failed)?;
        rustix::fs::futimens(&file, &times(record.mtime_ns)).map_err(failed)
    }

    fn receive_extents(&mut self, file: &OwnedFd, size: u64, path: &[u8]) -> Result<(), Failure> {
        let mut end = 0;
        loop {
            let mut raw = [0; 8];
            self.input.read_exact(&mut raw).map_err(broken)?;
            let offset = u64::from_le_bytes(raw);
            let length = self.read_u32()?;
            if length == 0 && offset == size {
                return Ok(());
            }
            let next = offset.saturating_add(u64::from(length));
            if length == 0 || length > EXTENT_LIMIT || offset < end || next > size {
                return Err(Failure::bad(format!(
                    "an extent of {length} bytes at {offset} in {} of {size} bytes",
                    show(path)
                )));
            }
            end = next;
            self.receive_extent(file, offset, length, path)?;
        }
    }

    fn receive_extent(
        &mut self,
        file: &OwnedFd,
        mut offset: u64,
        length: u32,
        path: &[u8],
    ) -> Result<(), Failure> {
        self.buffer.resize(length as usize, 0);
        self.input.read_exact(&mut self.buffer).map_err(broken)?;
        let mut left = &self.buffer[..];
        while !left.is_empty() {
            match rustix::io::pwrite(file, left, offset) {
                Ok(written) => {
                    left = &left[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::system("write", show(path), errno)),
            }
        }
        self.moved.1 += u64::from(length);
        Ok(())
    }

    fn owner_of(&self, record: &Record) -> (u32, u32) {
        (self.owner.0.unwrap_or(record.uid), self.owner.1.unwrap_or(record.gid))
    }

    fn give(&self, fd: impl AsFd, record: &Record) -> Result<(), Errno> {
        let (uid, gid) = self.owner_of(record);
        if self.may_chown {
            chown(fd, (Some(uid), Some(gid)))?;
        }
        Ok(())
    }

    fn complete_link(&self, name: &[u8], record: &Record) -> Result<(), Errno> {
        let (uid, gid) = self.owner_of(record);
        if self.may_chown {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(self.here(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        rustix::fs::utimensat(self.here(), name, &times(record.mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn target_of(record: &Record) -> Result<&[u8], Failure> {
    match &record.target {
        Some(target) if !target.is_empty() && !target.contains(&0) => Ok(target),
        _ => Err(Failure::bad(format!("the link {} in a tree stream has no target", show(&record.path)))),
    }
}

/// Do it; if something but a directory is in the way, put it away and do it again.
fn replacing<T>(parent: &OwnedFd, name: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            make()
        }
        made => made,
    }
}

fn refuse_link(errno: Errno, path: &[u8]) -> Failure {
    // O_NOFOLLOW with O_DIRECTORY says NOTDIR for a link as well.
    match errno {
        Errno::LOOP | Errno::NOTDIR => Failure {
            errno: Some(errno.raw_os_error()),
            ..Failure::new(Code::BadRequest, format!("a part of {} is a link or no directory", show(path)))
        },
        errno => Failure::system("enter the directory of", show(path), errno),
    }
}

/// The components of a relative path; none for the root. Everything that could lead elsewhere is refused.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, Failure> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let wrong = |part: &&[u8]| part.is_empty() || *part == b"." || *part == b".." || part.contains(&0);
    if parts.len() > MAX_DEPTH || parts.iter().any(wrong) {
        return Err(Failure::bad(format!("the path {:?} in a tree stream is refused", show(path))));
    }
    Ok(parts)
}

fn times(mtime_ns: i64) -> Timestamps {
    let last_modification =
        Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification }
}
