//! Copying ahead of somebody who reads in order: while the machine uses what it has just got, what it will ask for next is put there.

use std::ops::Range;

/// One step, and the least that is copied ahead.
const STEP: u64 = 64 << 10;
/// The most: what is wasted when the reader stops.
const MOST: u64 = 512 << 10;

/// All in bytes of the memory file.
#[derive(Default)]
pub struct Ahead {
    next: Range<u64>,
    width: u64,
}

impl Ahead {
    /// A fault was answered with these bytes.
    pub fn fault(&mut self, run: &Range<u64>) {
        if run.start < self.next.start || run.start > self.next.end {
            // Somewhere else. The next one shows whether that is a beginning.
            *self = Self { next: run.end..run.end, width: 0 };
        } else if run.start == self.next.end {
            // All that was copied ahead has been used up.
            self.width = (self.width * 2).clamp(STEP, MOST);
            self.next = run.end..run.end + self.width;
        } else {
            self.next.start = run.end.min(self.next.end);
        }
    }

    pub fn step(&self) -> Option<Range<u64>> {
        (!self.next.is_empty()).then(|| self.next.start..self.next.end.min(self.next.start + STEP))
    }

    pub fn advance(&mut self) {
        self.next.start = self.next.end.min(self.next.start + STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    fn drained(ahead: &mut Ahead) -> u64 {
        let mut bytes = 0;
        while let Some(step) = ahead.step() {
            bytes += step.end - step.start;
            ahead.advance();
        }
        bytes
    }

    #[test]
    fn who_reads_in_order_is_run_ahead_of_further_and_further() {
        let mut ahead = Ahead::default();
        let mut at = 1 << 30;
        let mut widths = Vec::new();
        for _ in 0..6 {
            ahead.fault(&(at..at + 64 * KIB));
            let bytes = drained(&mut ahead);
            widths.push(bytes / KIB);
            at += 64 * KIB + bytes;
        }
        assert_eq!(widths, [0, 64, 128, 256, 512, 512]);
    }

    #[test]
    fn who_jumps_about_is_not() {
        let mut ahead = Ahead::default();
        for at in [9, 2, 700, 55, 3] {
            let start = at << 20;
            ahead.fault(&(start..start + 64 * KIB));
            assert_eq!(ahead.step(), None);
        }
    }

    #[test]
    fn who_is_faster_than_the_copying_is_overtaken_by_nothing() {
        let mut ahead = Ahead::default();
        ahead.fault(&(MOST..MOST + 4 * KIB));
        ahead.fault(&(MOST + 4 * KIB..MOST + 8 * KIB));
        ahead.fault(&(MOST + 8 * KIB..MOST + 12 * KIB));
        assert_eq!(ahead.step(), Some(MOST + 12 * KIB..MOST + 72 * KIB));
    }
}
