//! Sending a tree, as it is now: a job may be changing it meanwhile.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom, Stat, CWD};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use crate::failure::{show, Failure};
use crate::files::{kind_of, mtime_ns, names, open_no_follow};
use crate::glob;
use crate::protocol::{self, Code, EntryKind};
use crate::tree::{broken, Moved, Record, RecordKind, MAX_DEPTH};

/// What is put in one extent: an extent and its header fill a frame.
const PIECE: usize = protocol::FRAME_LIMIT - 12;

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
