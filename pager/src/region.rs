//! A piece of the machine's memory: where it lies in Firecracker, where in the memory file, and what is known of each page.

use std::ops::Range;

use crate::bits::Bits;

pub const PAGE: u64 = 4 << 10;
pub const HUGE_PAGE: u64 = 2 << 20;

pub struct Region {
    /// The address in Firecracker.
    pub host: u64,
    pub size: u64,
    /// The place in the memory file.
    pub offset: u64,
    pub page_size: u64,
    /// Pages we put there. A page that Firecracker threw away may still be marked: a fault tells.
    served: Bits,
    /// Pages that were given back once: zeros for ever after.
    removed: Bits,
}

impl Region {
    /// All in bytes, multiples of `page_size`.
    pub fn new(host: u64, size: u64, offset: u64, page_size: u64) -> Self {
        let pages = size / page_size;
        Self { host, size, offset, page_size, served: Bits::new(pages), removed: Bits::new(pages) }
    }

    pub fn pages(&self) -> u64 {
        self.size / self.page_size
    }

    /// The page at an address of Firecracker's, if it is in this region.
    pub fn page_of(&self, address: u64) -> Option<u64> {
        let distance = address.checked_sub(self.host)?;
        (distance < self.size).then_some(distance / self.page_size)
    }

    pub fn host_of(&self, page: u64) -> u64 {
        self.host + page * self.page_size
    }

    pub fn offset_of(&self, page: u64) -> u64 {
        self.offset + page * self.page_size
    }

    pub fn is_removed(&self, page: u64) -> bool {
        self.removed.get(page)
    }

    /// Nothing was put there yet, and nothing given back.
    pub fn is_fresh(&self, page: u64) -> bool {
        !self.served.get(page) && !self.removed.get(page)
    }

    pub fn serve(&mut self, pages: Range<u64>) {
        self.served.set(pages);
    }

    /// Firecracker gave addresses back; what lies outside this region is not ours.
    pub fn remove(&mut self, addresses: Range<u64>) {
        let start = addresses.start.max(self.host);
        let end = addresses.end.min(self.host + self.size);
        if start < end {
            let pages = (start - self.host) / self.page_size..(end - self.host).div_ceil(self.page_size);
            self.removed.set(pages.clone());
            self.served.clear(pages);
        }
    }

    /// The fresh pages around `page`, which is one of them, inside the window of `bytes` it lies in.
    pub fn around(&self, page: u64, bytes: u64) -> Range<u64> {
        let width = (bytes / self.page_size).max(1);
        let window = page / width * width..((page / width + 1) * width).min(self.pages());
        let start = (window.start..page).rev().take_while(|page| self.is_fresh(*page)).last().unwrap_or(page);
        let end = (page + 1..window.end).find(|page| !self.is_fresh(*page)).unwrap_or(window.end);
        start..end
    }

    /// The pages that lie in a range of the memory file.
    pub fn pages_in(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start.clamp(self.offset, self.offset + self.size) - self.offset;
        let end = range.end.clamp(self.offset, self.offset + self.size) - self.offset;
        start / self.page_size..end.div_ceil(self.page_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region::new(0x10_0000, 64 * PAGE, 8 * PAGE, PAGE)
    }

    #[test]
    fn around_a_fault_is_what_is_fresh_in_its_window() {
        let mut region = region();
        assert_eq!(region.around(5, 16 * PAGE), 0..16);
        region.serve(2..4);
        region.remove(region.host_of(9)..region.host_of(10));
        assert_eq!(region.around(5, 16 * PAGE), 4..9);
        assert_eq!(region.around(5, PAGE), 5..6);
        assert_eq!(region.around(63, 16 * PAGE), 48..64);
    }

    #[test]
    fn what_is_removed_stays_so_and_is_clipped_to_the_region() {
        let mut region = region();
        region.serve(0..64);
        region.remove(0..0x10_0000 + 2 * PAGE);
        assert!(region.is_removed(0) && region.is_removed(1) && !region.is_removed(2));
        region.serve(0..1);
        assert!(region.is_removed(0));
        region.remove(u64::MAX - 5..u64::MAX);
        assert!(!region.is_removed(63));
    }

    #[test]
    fn places_in_the_file_and_in_firecracker_correspond() {
        let region = region();
        assert_eq!(region.page_of(0x10_0000 - 1), None);
        assert_eq!(region.page_of(0x10_0000 + 64 * PAGE), None);
        assert_eq!(region.page_of(region.host_of(7) + 9), Some(7));
        assert_eq!(region.pages_in(&(0..9 * PAGE)), 0..1);
        assert_eq!(region.pages_in(&(0..PAGE)), 0..0);
        assert_eq!(region.pages_in(&(70 * PAGE..900 * PAGE)), 62..64);
    }
}
