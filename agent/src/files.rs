//! File requests, each as the plain sequence of calls it is, on a lane. Paths are the user's, resolved in the user's root.

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, CWD};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use crate::failure::{show, Failure};
use crate::lane::{Answer, LaneIo};
use crate::protocol::{
    encode, Code, Entry, EntryKind, FileRequest, Listed, Message, Preparation, FRAME_LIMIT,
};
use crate::tree::MAX_DEPTH;
use crate::{tree_receive, tree_send};

/// More entries than this are not told along with an exit.
const FEW: usize = 16;
/// Nor names and targets of links with more bytes together.
const SHORT: usize = 8 * 1024;

impl FileRequest {
    /// Whether it answers with data before its last message.
    pub fn has_output(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::List { .. } | Self::Download { .. })
    }

    fn path(&self) -> &[u8] {
        match self {
            Self::Write { path, .. }
            | Self::Read { path, .. }
            | Self::Stat { path, .. }
            | Self::List { path } => path,
            Self::Mkdir { path, .. } | Self::Remove { path, .. } | Self::Symlink { path, .. } => path,
            Self::Chmod { path, .. } | Self::Upload { path, .. } | Self::Download { path, .. } => path,
            Self::Move { source, .. } => source,
        }
    }
}

pub fn carry_out(request: &FileRequest, io: &mut LaneIo) -> Answer {
    check_path(request.path())?;
    match request {
        FileRequest::Write { path, mode, uid, gid, parents, append } => {
            let fd = open_for_write(path, *mode, *parents, *append)?;
            write(fd, path, *mode, (*uid, *gid), io)
        }
        FileRequest::Read { path, offset, limit } => read(path, *offset, *limit, io),
        FileRequest::Stat { path, follow } => stat(path, *follow),
        FileRequest::List { path } => list(path, io),
        FileRequest::Mkdir { path, mode, parents } => mkdir(path, *mode, *parents),
        FileRequest::Remove { path, recursive, missing_ok } => remove(path, *recursive, *missing_ok, io),
        FileRequest::Move { source, target, overwrite } => rename(source, target, *overwrite),
        FileRequest::Symlink { path, target } => symlink(path, target),
        FileRequest::Chmod { path, mode } => {
            rustix::fs::chmod(&path[..], permissions(*mode)).map_err(failed("change the mode of", path))?;
            Ok(done())
        }
        FileRequest::Upload { path, uid, gid } => upload(path, *uid, *gid, io),
        FileRequest::Download { path, exclude } => download(path, exclude, io),
    }
}

/// Make what a program is to find, one after the other. Whatever fails, the program shall not start.
pub fn prepare(all: &[Preparation]) -> Result<(), Failure> {
    all.iter().try_for_each(prepare_one).map_err(|failure| Failure { code: Code::Unprepared, ..failure })
}

fn prepare_one(one: &Preparation) -> Result<(), Failure> {
    match one {
        Preparation::Put { path, data, mode } => put(path, data, *mode),
        Preparation::Move { source, target, overwrite } => {
            check_path(source)?;
            rename(source, target, *overwrite).map(drop)
        }
    }
}

fn put(path: &[u8], data: &[u8], mode: Option<u32>) -> Result<(), Failure> {
    check_path(path)?;
    let fd = open_for_write(path, mode, true, false)?;
    write_all(&fd, data).map_err(failed("write", path))?;
    set_mode(&fd, mode).map_err(failed("change the mode of", path))
}

/// What a directory holds, where that is little.
pub fn list_few(path: &[u8]) -> Option<Vec<Listed>> {
    check_path(path).ok()?;
    let directory = open_directory(path).ok()?;
    let mut found = Vec::new();
    let mut bytes = 0;
    for name in few_names(&directory)? {
        let entry = entry_in(&directory, &name)?;
        bytes += name.len() + entry.target.as_ref().map_or(0, |target| target.len());
        found.push(Listed::Entry(entry));
    }
    (bytes <= SHORT).then_some(found)
}

fn few_names(directory: &OwnedFd) -> Option<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).ok()? {
        let name = entry.ok()?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == FEW {
            return None;
        }
        names.push(name);
    }
    names.sort_unstable();
    Some(names)
}

fn done() -> Message {
    Message::Done { entries: None, bytes: None }
}

fn check_path(path: &[u8]) -> Result<(), Failure> {
    match path.starts_with(b"/") && !path.contains(&0) {
        true => Ok(()),
        false => Err(Failure::bad(format!("{:?} is not an absolute path", show(path)))),
    }
}

fn failed<'a>(operation: &'a str, path: &'a [u8]) -> impl Fn(Errno) -> Failure + 'a {
    move |errno| Failure::system(operation, show(path), errno)
}

fn broken<'a>(operation: &'a str, path: &'a [u8]) -> impl Fn(std::io::Error) -> Failure + 'a {
    move |error| match Errno::from_io_error(&error) {
        Some(errno) => Failure::system(operation, show(path), errno),
        None => Failure::reset(),
    }
}

pub fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

fn open_for_write(path: &[u8], mode: Option<u32>, parents: bool, append: bool) -> Result<OwnedFd, Failure> {
    let how = if append { OFlags::APPEND } else { OFlags::TRUNC };
    // Without O_NONBLOCK a fifo would wait for a reader, perhaps for ever.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK | how;
    let mode = permissions(mode.unwrap_or(0o644));
    let opened = match rustix::fs::open(path, flags, mode) {
        Err(Errno::NOENT) if parents => {
            make_parents(path)?;
            rustix::fs::open(path, flags, mode)
        }
        opened => opened,
    };
    opened.map_err(failed("open", path))
}

fn make_parents(path: &[u8]) -> Result<(), Failure> {
    let ends = path.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at > 0).map(|(at, _)| at);
    for end in ends {
        match rustix::fs::mkdir(&path[..end], Mode::from(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Failure::system("make the directory", show(&path[..end]), errno)),
        }
    }
    Ok(())
}

type Owner = (Option<u32>, Option<u32>);

fn write(fd: OwnedFd, path: &[u8], mode: Option<u32>, owner: Owner, io: &mut LaneIo) -> Answer {
    let mut bytes = 0;
    while let Some(piece) = io.next_piece().map_err(broken("receive", path))? {
        write_all(&fd, &piece).map_err(failed("write", path))?;
        bytes += piece.len() as u64;
    }
    if owner != (None, None) {
        chown(&fd, owner).map_err(failed("change the owner of", path))?;
    }
    set_mode(&fd, mode).map_err(failed("change the mode of", path))?;
    Ok(Message::Done { entries: None, bytes: Some(bytes) })
}

/// The file may have been there with another mode, and the mode of a new one has met our umask. Looking is cheaper than changing.
fn set_mode(fd: &OwnedFd, mode: Option<u32>) -> Result<(), Errno> {
    let Some(mode) = mode.map(permissions) else { return Ok(()) };
    match Mode::from_raw_mode(rustix::fs::fstat(fd)?.st_mode & 0o7777) == mode {
        true => Ok(()),
        false => rustix::fs::fchmod(fd, mode),
    }
}

pub fn chown(fd: impl AsFd, (uid, gid): Owner) -> Result<(), Errno> {
    rustix::fs::fchown(fd, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
}

pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn read(path: &[u8], offset: u64, limit: Option<u64>, io: &mut LaneIo) -> Answer {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open", path))?;
    if kind_of(&rustix::fs::fstat(&fd).map_err(failed("stat", path))?) == EntryKind::Directory {
        return Err(Failure::system("read", show(path), Errno::ISDIR));
    }
    if offset > 0 {
        rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(offset)).map_err(failed("seek in", path))?;
    }
    let mut left = limit.unwrap_or(u64::MAX);
    let mut bytes = 0;
    while left > 0 {
        let mut piece = Vec::with_capacity(FRAME_LIMIT.min(usize::try_from(left).unwrap_or(FRAME_LIMIT)));
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut piece)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Failure::system("read", show(path), errno)),
        }
        // The capacity may be more than was asked for.
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= piece.len() as u64;
        bytes += piece.len() as u64;
        io.send(piece).map_err(broken("send", path))?;
    }
    Ok(Message::Done { entries: None, bytes: Some(bytes) })
}

fn stat(path: &[u8], follow: bool) -> Answer {
    let name = path.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or(b"/");
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let stat = rustix::fs::statat(CWD, path, flags).map_err(failed("stat", path))?;
    let target = read_target(CWD, path, &stat);
    Ok(Message::Entry(entry(name, &stat, target)))
}

fn read_target(directory: impl AsFd, path: &[u8], stat: &Stat) -> Option<ByteBuf> {
    let link = kind_of(stat) == EntryKind::Symlink;
    let target = link.then(|| rustix::fs::readlinkat(directory, path, Vec::new()).ok())??;
    Some(ByteBuf::from(target.into_bytes()))
}

fn entry(name: &[u8], stat: &Stat, target: Option<ByteBuf>) -> Entry {
    Entry {
        name: ByteBuf::from(name),
        kind: kind_of(stat),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_ns: mtime_ns(stat),
        target,
        nlink: stat.st_nlink,
    }
}

pub fn mtime_ns(stat: &Stat) -> i64 {
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64)
}

pub fn kind_of(stat: &Stat) -> EntryKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::Character,
        FileType::BlockDevice => EntryKind::Block,
        _ => EntryKind::File,
    }
}

pub fn open_directory(path: &[u8]) -> Result<OwnedFd, Failure> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the directory", path))
}

/// The names in a directory, without `.` and `..`.
pub fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn list(path: &[u8], io: &mut LaneIo) -> Answer {
    let directory = open_directory(path)?;
    for name in names(&directory).map_err(failed("list", path))? {
        // What has gone since is not there to be listed.
        let Some(entry) = entry_in(&directory, &name) else { continue };
        let raw = encode(&Message::Entry(entry));
        io.write_all(&raw).map_err(broken("send", path))?;
    }
    Ok(done())
}

fn entry_in(directory: &OwnedFd, name: &[u8]) -> Option<Entry> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let target = read_target(directory, name, &stat);
    Some(entry(name, &stat, target))
}

fn mkdir(path: &[u8], mode: u32, parents: bool) -> Answer {
    if parents {
        make_parents(path)?;
    }
    match rustix::fs::mkdir(path, permissions(mode)) {
        Ok(()) => {
            rustix::fs::chmod(path, permissions(mode)).map_err(failed("change the mode of", path))?;
            Ok(done())
        }
        Err(Errno::EXIST) if parents && is_directory(path) => Ok(done()),
        Err(errno) => Err(Failure::system("make the directory", show(path), errno)),
    }
}

fn is_directory(path: &[u8]) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| kind_of(&stat) == EntryKind::Directory)
}

fn rename(source: &[u8], target: &[u8], overwrite: bool) -> Answer {
    check_path(target)?;
    let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let renamed = match rustix::fs::renameat_with(CWD, source, CWD, target, flags) {
        // A file system that cannot do it in one step (EINVAL) gets two; they are as good where nobody races us.
        Err(Errno::INVAL) if !overwrite && rustix::fs::lstat(target).is_err() => {
            rustix::fs::rename(source, target)
        }
        renamed => renamed,
    };
    match renamed {
        Ok(()) => Ok(done()),
        Err(errno @ Errno::EXIST) => Err(Failure::system("move to", show(target), errno)),
        Err(errno) => Err(Failure::system("move", format!("{} to {}", show(source), show(target)), errno)),
    }
}

fn symlink(path: &[u8], target: &[u8]) -> Answer {
    rustix::fs::symlink(target, path).map_err(failed("make the link", path))?;
    Ok(done())
}

fn remove(path: &[u8], recursive: bool, missing_ok: bool, io: &LaneIo) -> Answer {
    let removed = match rustix::fs::unlink(path) {
        Err(Errno::ISDIR) if recursive => {
            let directory = open_no_follow(CWD, path).map_err(failed("open the directory", path))?;
            empty_directory(directory, path, io)?;
            rustix::fs::rmdir(path)
        }
        Err(Errno::ISDIR) => rustix::fs::rmdir(path),
        removed => removed,
    };
    match removed {
        Err(Errno::NOENT) if missing_ok => Ok(done()),
        Err(errno) => Err(Failure::system("remove", show(path), errno)),
        Ok(()) => Ok(done()),
    }
}

pub fn open_no_follow(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Remove what a directory holds, never following a link, however deep it is.
fn empty_directory(top: OwnedFd, path: &[u8], io: &LaneIo) -> Result<(), Failure> {
    let failed = failed("remove what is below", path);
    let mut levels = vec![(names(&top).map_err(&failed)?, top)];
    while let Some((left, directory)) = levels.last_mut() {
        io.check()?;
        let below = match left.last() {
            Some(name) => remove_one(directory, name).map_err(&failed)?,
            None => {
                levels.pop();
                let Some((left, parent)) = levels.last_mut() else { break };
                let name = left.pop().unwrap_or_default(); // the one we went into
                rustix::fs::unlinkat(parent, &name[..], AtFlags::REMOVEDIR).map_err(&failed)?;
                continue;
            }
        };
        match below {
            None => drop(left.pop()),
            Some(_) if levels.len() >= MAX_DEPTH => return Err(failed(Errno::LOOP)),
            Some(below) => levels.push((names(&below).map_err(&failed)?, below)),
        }
    }
    Ok(())
}

/// Returns the directory to be emptied first, if it is one.
fn remove_one(parent: &OwnedFd, name: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(Errno::ISDIR) => open_no_follow(parent, name).map(Some),
        Err(errno) => Err(errno),
    }
}

fn upload(path: &[u8], uid: Option<u32>, gid: Option<u32>, io: &mut LaneIo) -> Answer {
    if !is_directory(path) {
        mkdir(path, 0o755, true)?;
    }
    let top = open_directory(path)?;
    let (entries, bytes) = tree_receive::receive(io, top, (uid, gid))?;
    Ok(Message::Done { entries: Some(entries), bytes: Some(bytes) })
}

fn download(path: &[u8], exclude: &[ByteBuf], io: &mut LaneIo) -> Answer {
    let (entries, bytes) = tree_send::send(io, path, exclude)?;
    Ok(Message::Done { entries: Some(entries), bytes: Some(bytes) })
}
