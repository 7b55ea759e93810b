//! The files a machine's memory is read from, mapped for the kernel to copy out of. This process itself never reads a mapping: a file that
//! was cut short is then an error of a call, not a signal.

use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{fstat, seek, FileType, SeekFrom, Stat};
use rustix::io::Errno;
use rustix::mm::{madvise, mmap, Advice, MapFlags, ProtFlags};

use crate::failure::{Failure, Outcome, Status};
use crate::overlay::{Overlay, Source};
use crate::region::PAGE;

/// No machine has more.
const MOST: u64 = 16 << 40;

struct Map {
    file: OwnedFd,
    start: usize,
}

pub struct Memory {
    maps: Vec<Map>,
    overlay: Overlay,
}

impl Memory {
    /// The base and the layers above it. The last one has the memory's size.
    pub fn open(files: Vec<OwnedFd>) -> Outcome<Self> {
        let stats: Vec<Stat> = files.iter().map(check).collect::<Outcome<_>>()?;
        let size = stats.last().map_or(0, |stat| stat.st_size as u64);
        let mut overlay = Overlay::new(size / PAGE);
        let mut maps = Vec::with_capacity(files.len());
        for (number, (file, stat)) in files.into_iter().zip(&stats).enumerate() {
            if stat.st_size as u64 > size {
                return Err(broken(number, "is larger than the layer above it"));
            }
            let data = data_of(&file, stat)
                .map_err(|errno| broken(number, &format!("does not say where its data is: {errno}")))?;
            if number > 0 {
                check_holes(number, stat, &data)?;
            }
            overlay.lay(&data, number);
            let start = map(&file, stat.st_size as usize)
                .map_err(|errno| broken(number, &format!("cannot be mapped: {errno}")))?;
            maps.push(Map { file, start });
        }
        Ok(Self { maps, overlay })
    }

    pub fn size(&self) -> u64 {
        self.overlay.pages() * PAGE
    }

    /// Where the bytes at `offset` lie (nowhere: they are zeros), and the end of the run, at most `limit`.
    pub fn run(&self, offset: u64, limit: u64) -> (Option<u64>, u64) {
        let (source, end) = self.overlay.run(offset / PAGE, limit / PAGE);
        let address = match source {
            Source::Zero => None,
            Source::File(number) => Some(self.maps[number].start as u64 + offset),
        };
        (address, end * PAGE)
    }

    /// Read what is at `offset`, whatever files it comes from.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let limit = offset + buffer.len() as u64;
        let mut at = offset;
        while at < limit {
            let (source, end) = self.overlay.run(at / PAGE, limit / PAGE);
            let piece = &mut buffer[(at - offset) as usize..(end * PAGE - offset) as usize];
            match source {
                Source::Zero => piece.fill(0),
                Source::File(number) => read_exactly(&self.maps[number].file, piece, at)?,
            }
            at = end * PAGE;
        }
        Ok(())
    }

    /// Have the bytes in memory, so that copying them waits for no disk. Best effort: what cannot be read fails where it is copied.
    pub fn warm(&self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let (address, end) = self.run(at, range.end);
            if let Some(address) = address {
                // SAFETY: the range lies in a mapping of ours that lives as long as the process, and reading ahead changes nothing in it.
                let _ = unsafe { madvise(address as *mut _, (end - at) as usize, Advice::LinuxPopulateRead) };
            }
            at = end;
        }
    }
}

fn broken(number: usize, what: &str) -> Failure {
    let name = if number == 0 { "the memory file".into() } else { format!("layer {number}") };
    Failure::new(Status::Memory, format!("{name} {what}"))
}

fn check(file: &OwnedFd) -> Outcome<Stat> {
    let failed = |text: &str| Failure::new(Status::Memory, format!("a memory file {text}"));
    let stat = fstat(file).map_err(|errno| failed(&format!("cannot be examined: {errno}")))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed("is not a regular file"));
    }
    let size = stat.st_size as u64;
    if size == 0 || size > MOST || size % PAGE != 0 {
        return Err(failed(&format!("has {size} bytes, which is no whole number of pages")));
    }
    Ok(stat)
}

/// Where a file has data, in pages.
fn data_of(file: &OwnedFd, stat: &Stat) -> Result<Vec<Range<u64>>, Errno> {
    let size = stat.st_size as u64;
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno),
        };
        at = seek(file, SeekFrom::Hole(start))?.min(size);
        let pages = start / PAGE..at.div_ceil(PAGE);
        match found.last_mut() {
            Some(last) if last.end >= pages.start => last.end = pages.end,
            _ => found.push(pages),
        }
    }
    Ok(found)
}

/// A file system that cannot tell holes to the page would put zeros over what lies below: better no machine than that one.
fn check_holes(number: usize, stat: &Stat, data: &[Range<u64>]) -> Outcome<()> {
    let told: u64 = data.iter().map(|range| range.end - range.start).sum::<u64>() * PAGE;
    let held = stat.st_blocks as u64 * 512;
    if stat.st_blksize as u64 > PAGE || told > held {
        return Err(broken(number, "lies on a file system that does not tell its holes to the page"));
    }
    Ok(())
}

fn map(file: &OwnedFd, length: usize) -> Result<usize, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing in this process reads.
    let start = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0)? };
    Ok(start as usize)
}

fn read_exactly(file: &OwnedFd, mut buffer: &mut [u8], mut at: u64) -> Result<(), Errno> {
    while !buffer.is_empty() {
        match rustix::io::pread(file, &mut *buffer, at) {
            Ok(0) => return Err(Errno::FAULT),
            Ok(count) => {
                buffer = &mut buffer[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
