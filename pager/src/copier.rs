//! Putting pages into the machine's memory, and knowing which ones are there.

use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;

use crate::ahead::Ahead;
use crate::failure::{Failure, Outcome, Status};
use crate::list::Recorder;
use crate::memory::Memory;
use crate::region::{Region, PAGE};
use crate::uffd::Uffd;

/// How far an attempt came.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// The machine's memory is being changed: hear what the kernel has to say first.
    Later,
    /// Firecracker has ended.
    Gone,
}

pub struct Copier {
    pub uffd: Uffd,
    pub record: Option<Recorder>,
    pub ahead: Ahead,
    regions: Vec<Region>,
    memory: Arc<Memory>,
    around: u64,
    /// One huge page put together from several files.
    stage: Vec<u8>,
}

impl Copier {
    pub fn new(uffd: Uffd, regions: Vec<Region>, memory: Arc<Memory>, around: u64, record: bool) -> Self {
        let record = record.then(Recorder::default);
        Self { uffd, record, ahead: Ahead::default(), regions, memory, around, stage: Vec::new() }
    }

    /// Firecracker gave addresses back.
    pub fn remove(&mut self, addresses: &Range<u64>) {
        for region in &mut self.regions {
            region.remove(addresses.clone());
        }
    }

    /// Answer a fault, and put there what is around it.
    pub fn fault(&mut self, address: u64) -> Outcome<Progress> {
        let found = self
            .regions
            .iter()
            .enumerate()
            .find_map(|(number, region)| region.page_of(address).map(|page| (number, page)));
        let Some((number, page)) = found else {
            return Err(Failure::new(
                Status::Serving,
                format!("a page at {address:#x} is wanted, which is in no mapping of the handshake"),
            ));
        };
        let region = &self.regions[number];
        if !region.is_fresh(page) {
            return self.put(number, page..page + 1);
        }
        let pages = region.around(page, self.around);
        let progress = self.put(number, pages.clone())?;
        if progress == Progress::Done {
            let region = &self.regions[number];
            let bytes = region.offset_of(pages.start)..region.offset_of(pages.end);
            match &mut self.record {
                // Nothing but what was needed shall be in the list.
                Some(record) => record.note(bytes),
                None => self.ahead.fault(&bytes),
            }
        }
        Ok(progress)
    }

    /// Put there what nobody has asked for yet: bytes of the memory file.
    pub fn prefetch(&mut self, bytes: &Range<u64>) -> Outcome<Progress> {
        for number in 0..self.regions.len() {
            let pages = self.regions[number].pages_in(bytes);
            let mut page = pages.start;
            while page < pages.end {
                if !self.regions[number].is_fresh(page) {
                    page += 1;
                    continue;
                }
                let end = (page..pages.end).find(|page| !self.regions[number].is_fresh(*page));
                let run = page..end.unwrap_or(pages.end);
                page = run.end;
                match self.put(number, run)? {
                    Progress::Done => {}
                    other => return Ok(other),
                }
            }
        }
        Ok(Progress::Done)
    }

    /// Pages of one kind: all fresh, or a single one.
    fn put(&mut self, number: usize, pages: Range<u64>) -> Outcome<Progress> {
        let mut page = pages.start;
        let mut singly = false;
        while page < pages.end {
            let end = if singly { page + 1 } else { pages.end };
            match self.put_some(number, page..end) {
                Ok(count) => {
                    self.regions[number].serve(page..page + count);
                    page += count;
                }
                Err(Errno::EXIST) => {
                    let region = &mut self.regions[number];
                    region.serve(page..page + 1);
                    let _ = self.uffd.wake(region.host_of(page), region.page_size);
                    page += 1;
                }
                Err(Errno::AGAIN) => return Ok(Progress::Later),
                Err(Errno::SRCH) => return Ok(Progress::Gone),
                // Across the border of two mappings, or where nothing is mapped any more.
                Err(Errno::NOENT) if end > page + 1 => singly = true,
                Err(Errno::NOENT) => page += 1,
                Err(errno) => return Err(refused(errno, self.regions[number].offset_of(page))),
            }
        }
        Ok(Progress::Done)
    }

    /// As many pages as one call can put. Returns their number.
    fn put_some(&mut self, number: usize, pages: Range<u64>) -> Result<u64, Errno> {
        let region = &self.regions[number];
        let (host, offset, size) =
            (region.host_of(pages.start), region.offset_of(pages.start), region.page_size);
        let limit = region.offset_of(pages.end);
        let (source, end) =
            if region.is_removed(pages.start) { (None, limit) } else { self.memory.run(offset, limit) };
        let length = (end - offset) / size * size;
        let bytes = match source {
            Some(source) if length > 0 => self.uffd.copy(host, source, length)?,
            None if size == PAGE => self.uffd.zero(host, length)?,
            _ => self.put_staged(host, offset, size, self.regions[number].is_removed(pages.start))?,
        };
        Ok(bytes / size)
    }

    /// One huge page of zeros, or of pieces of several files.
    fn put_staged(&mut self, host: u64, offset: u64, size: u64, zeros: bool) -> Result<u64, Errno> {
        self.stage.resize(size as usize, 0);
        if zeros {
            self.stage.fill(0);
        } else {
            self.memory.read(offset, &mut self.stage)?;
        }
        self.uffd.copy(host, self.stage.as_ptr() as u64, size)
    }
}

fn refused(errno: Errno, offset: u64) -> Failure {
    let why = match errno {
        Errno::FAULT => "the memory file is shorter than it was, or cannot be read".into(),
        Errno::NOMEM => "the host has no memory (or no huge page) left".into(),
        errno => errno.to_string(),
    };
    Failure::new(
        Status::Serving,
        format!("cannot put the page at {offset} of the memory file into the machine: {why}"),
    )
}
