//! Which file each page of a memory comes from, when sparse layers lie over a base: a hole means "as below", and nothing below means zeros.

use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Zero,
    /// The number of the file, at the page's own place in it.
    File(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub pages: Range<u64>,
    pub source: Source,
}

/// Extents side by side, from page 0 to the last.
#[derive(Debug)]
pub struct Overlay {
    extents: Vec<Extent>,
    total: u64,
}

impl Overlay {
    pub fn new(total: u64) -> Self {
        Self { extents: vec![Extent { pages: 0..total, source: Source::Zero }], total }
    }

    pub fn pages(&self) -> u64 {
        self.total
    }

    /// Put a file's data over what is there: ranges of pages, ascending, apart from each other, within the memory.
    pub fn lay(&mut self, data: &[Range<u64>], file: usize) {
        let mut laid = Vec::with_capacity(self.extents.len() + 2 * data.len());
        let mut at = 0;
        for range in data {
            self.keep(&mut laid, at..range.start);
            laid.push(Extent { pages: range.clone(), source: Source::File(file) });
            at = range.end;
        }
        self.keep(&mut laid, at..self.total);
        self.extents = laid;
    }

    fn keep(&self, laid: &mut Vec<Extent>, pages: Range<u64>) {
        let mut at = pages.start;
        while at < pages.end {
            let (source, end) = self.run(at, pages.end);
            laid.push(Extent { pages: at..end, source });
            at = end;
        }
    }

    /// The source of `page`, and the end of the run of pages from there that have the same one, at most `limit`.
    pub fn run(&self, page: u64, limit: u64) -> (Source, u64) {
        let extent = &self.extents[self.extents.partition_point(|extent| extent.pages.end <= page)];
        (extent.source, extent.pages.end.min(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(overlay: &Overlay) -> Vec<Source> {
        (0..overlay.pages()).map(|page| overlay.run(page, page + 1).0).collect()
    }

    #[test]
    fn the_highest_layer_with_data_wins() {
        let mut overlay = Overlay::new(8);
        overlay.lay(&[0..3, 4..8], 0);
        overlay.lay(&[2..4, 4..5], 1);
        overlay.lay(&[4..5, 7..8], 2);
        let file = Source::File;
        let expected = [file(0), file(0), file(1), file(1), file(2), file(0), file(0), file(2)];
        assert_eq!(sources(&overlay), expected);
    }

    #[test]
    fn what_no_file_has_is_zero_and_runs_end_where_the_source_changes() {
        let mut overlay = Overlay::new(10);
        overlay.lay(&[3..4, 4..6], 0);
        assert_eq!(overlay.run(0, 10), (Source::Zero, 3));
        assert_eq!(overlay.run(4, 10), (Source::File(0), 6));
        assert_eq!(overlay.run(4, 5), (Source::File(0), 5));
        assert_eq!(overlay.run(9, 10), (Source::Zero, 10));
    }

    #[test]
    fn any_stack_of_layers_reads_like_page_by_page() {
        let mut state = 1_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut overlay = Overlay::new(64);
            let mut plain = vec![Source::Zero; 64];
            for file in 0..4 {
                let (mut data, mut at) = (Vec::new(), random(8));
                while at < 64 {
                    let end = (at + 1 + random(9)).min(64);
                    data.push(at..end);
                    plain[at as usize..end as usize].fill(Source::File(file));
                    at = end + 1 + random(9);
                }
                overlay.lay(&data, file);
            }
            assert_eq!(sources(&overlay), plain);
        }
    }
}
