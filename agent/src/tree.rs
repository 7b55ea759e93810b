//! Tree streams: a directory tree in one pass, either way, with holes, links and modes. The receiver walks by descriptor, one component at a
//! time and never through a link, so that no record reaches outside its target whatever the sender says. Memory is bounded by the
//! depth of the tree and, for the sender, by the names of one directory and the files with several names.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, SeekFrom, Stat, Timestamps, Uid, CWD, UTIME_OMIT};
use rustix::io::Errno;
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::failure::{show, Failure};
use crate::files::{chown, kind_of, mtime_ns, names, open_no_follow, permissions};
use crate::glob;
use crate::protocol::{self, Code, EntryKind};

const RECORD_LIMIT: u32 = 65_536;
const EXTENT_LIMIT: u32 = 1 << 20;
/// What the sender puts in one extent: an extent and its header fill a frame.
const PIECE: usize = protocol::FRAME_LIMIT - 12;
const MAX_DEPTH: usize = 1024;

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    File,
    Directory,
    Symlink,
    Hardlink,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Record {
    pub path: ByteBuf,
    pub kind: RecordKind,
    pub mode: u32,
    pub mtime_ns: i64,
    pub uid: u32,
    pub gid: u32,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub target: Option<ByteBuf>,
}

/// Entries and bytes moved.
pub type Moved = (u64, u64);

fn broken(error: io::Error) -> Failure {
    match (error.kind(), Errno::from_io_error(&error)) {
        (io::ErrorKind::ConnectionReset, None) => Failure::reset(),
        (_, Some(errno)) => Failure::system("move", "a tree", errno),
        (_, None) => Failure::bad("the tree stream is cut short"),
    }
}

// --- receiving ---

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

// --- sending ---

struct Sender<'a, W> {
    output: &'a mut W,
    exclude: &'a [ByteBuf],
    /// Where the files with several names were sent first.
    linked: HashMap<(u64, u64), Vec<u8>>,
    moved: Moved,
}

/// Send the file or directory at `path`, without what matches `exclude`.
pub fn send(output: &mut impl Write, path: &[u8], exclude: &[ByteBuf]) -> Result<Moved, Failure> {
    let failed = |errno| Failure::system("open", show(path), errno);
    let mut sender = Sender { output, exclude, linked: HashMap::new(), moved: (0, 0) };
    // A link at the end is followed: it is the user who named it.
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty()).map_err(failed)?;
    match kind_of(&stat) {
        EntryKind::Directory => {
            let top = crate::files::open_directory(path)?;
            sender.send_tree(top, &stat)?;
        }
        EntryKind::File => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
            sender.send_file(&file, b"")?;
        }
        _ => return Err(Failure::bad(format!("{} is neither a file nor a directory", show(path)))),
    }
    sender.output.write_all(&0u32.to_le_bytes()).map_err(broken)?;
    Ok(sender.moved)
}

impl<W: Write> Sender<'_, W> {
    fn send_tree(&mut self, top: OwnedFd, stat: &Stat) -> Result<(), Failure> {
        self.send_record(b"", RecordKind::Directory, stat, None)?;
        let list = |directory: &OwnedFd, path: &[u8]| {
            names(directory)
                .map(|mut names| {
                    names.reverse();
                    names
                })
                .map_err(|errno| Failure::system("list", show(path), errno))
        };
        let mut levels = vec![(Vec::new(), list(&top, b"")?, top)];
        while let Some((prefix, left, directory)) = levels.last_mut() {
            let Some(name) = left.pop() else {
                levels.pop();
                continue;
            };
            let path = if prefix.is_empty() { name.clone() } else { [&prefix[..], b"/", &name].concat() };
            if let Some(below) = self.send_entry(directory, &name, &path)? {
                if levels.len() == MAX_DEPTH {
                    return Err(Failure::new(
                        Code::TooLarge,
                        format!("{} is more than {MAX_DEPTH} deep", show(&path)),
                    ));
                }
                levels.push((path.clone(), list(&below, &path)?, below));
            }
        }
        Ok(())
    }

    /// Returns the directory to go into, if it is one.
    fn send_entry(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Option<OwnedFd>, Failure> {
        if self.exclude.iter().any(|pattern| glob::matches(pattern, path)) {
            return Ok(None);
        }
        let failed = |errno| Failure::system("read", show(path), errno);
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None), // gone since it was listed
            stat => stat.map_err(failed)?,
        };
        match kind_of(&stat) {
            EntryKind::Directory => {
                let below = open_no_follow(parent, name).map_err(failed)?;
                self.send_record(path, RecordKind::Directory, &stat, None)?;
                return Ok(Some(below));
            }
            EntryKind::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed)?;
                self.send_record(path, RecordKind::Symlink, &stat, Some(target.as_bytes()))?;
            }
            EntryKind::File => self.send_linked(parent, name, path, &stat)?,
            _ => {} // devices, fifos and sockets are nothing elsewhere
        }
        Ok(None)
    }

    fn send_linked(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), Failure> {
        let identity = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.linked.get(&identity).cloned() {
            return self.send_record(path, RecordKind::Hardlink, stat, Some(&first));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(parent, name, flags, Mode::empty());
        let file = file.map_err(|errno| Failure::system("open", show(path), errno))?;
        if stat.st_nlink > 1 {
            self.linked.insert(identity, path.to_vec());
        }
        self.send_file(&file, path)
    }

    fn send_file(&mut self, file: &OwnedFd, path: &[u8]) -> Result<(), Failure> {
        // The file as it is open now, which a job may have exchanged since it was listed.
        let stat = rustix::fs::fstat(file).map_err(|errno| Failure::system("stat", show(path), errno))?;
        if kind_of(&stat) != EntryKind::File {
            return Err(Failure::bad(format!("{} has changed while it was read", show(path))));
        }
        self.send_record(path, RecordKind::File, &stat, None)?;
        let size = size_of(&stat);
        let mut at = 0;
        while let Some((start, end)) = next_data(file, at, size) {
            at = self.send_data(file, start, end, path)?;
            if at < end {
                break; // it has become shorter
            }
        }
        self.send_extent(size, &[])
    }

    /// Returns how far the data went.
    fn send_data(&mut self, file: &OwnedFd, mut at: u64, end: u64, path: &[u8]) -> Result<u64, Failure> {
        let mut piece = vec![0; PIECE.min(usize::try_from(end - at).unwrap_or(PIECE))];
        while at < end {
            let want = piece.len().min(usize::try_from(end - at).unwrap_or(PIECE));
            match rustix::io::pread(file, &mut piece[..want], at) {
                Ok(0) => break,
                Ok(length) => {
                    self.send_extent(at, &piece[..length])?;
                    self.moved.1 += length as u64;
                    at += length as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::system("read", show(path), errno)),
            }
        }
        Ok(at)
    }

    fn send_extent(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let length = bytes.len() as u32; // at most PIECE
        self.output.write_all(&offset.to_le_bytes()).map_err(broken)?;
        self.output.write_all(&length.to_le_bytes()).map_err(broken)?;
        self.output.write_all(bytes).map_err(broken)
    }

    fn send_record(
        &mut self,
        path: &[u8],
        kind: RecordKind,
        stat: &Stat,
        target: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let raw = protocol::encode(&Record {
            path: ByteBuf::from(path),
            kind,
            mode: stat.st_mode & 0o7777,
            mtime_ns: mtime_ns(stat),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: Some(if kind == RecordKind::File { size_of(stat) } else { 0 }),
            target: target.map(ByteBuf::from),
        });
        self.moved.0 += 1;
        self.output.write_all(&(raw.len() as u32).to_le_bytes()).map_err(broken)?;
        self.output.write_all(&raw).map_err(broken)
    }
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// The next range at or behind `at` that is not a hole.
fn next_data(file: &OwnedFd, at: u64, size: u64) -> Option<(u64, u64)> {
    if at >= size {
        return None;
    }
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) if start < size => {
            let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size);
            Some((start, end.min(size)))
        }
        Ok(_) | Err(Errno::NXIO) => None, // a hole up to the end
        Err(_) => Some((at, size)),       // a file system that knows no holes
    }
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
