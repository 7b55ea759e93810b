//! One bit for each page.

use std::ops::Range;

pub struct Bits(Vec<u64>);

impl Bits {
    pub fn new(count: u64) -> Self {
        Self(vec![0; count.div_ceil(64) as usize])
    }

    pub fn get(&self, index: u64) -> bool {
        self.0[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    pub fn set(&mut self, range: Range<u64>) {
        self.words(range, |word, mask| *word |= mask);
    }

    pub fn clear(&mut self, range: Range<u64>) {
        self.words(range, |word, mask| *word &= !mask);
    }

    fn words(&mut self, range: Range<u64>, change: impl Fn(&mut u64, u64)) {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / 64 + 1) * 64);
            let mask = (u64::MAX >> (64 - (end - at))) << (at % 64);
            change(&mut self.0[(at / 64) as usize], mask);
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_set_and_cleared_exactly() {
        for (start, end) in [(0, 0), (0, 1), (63, 64), (63, 65), (0, 64), (5, 200), (64, 128), (199, 200)] {
            let mut bits = Bits::new(200);
            bits.set(start..end);
            assert!((0..200).all(|index| bits.get(index) == (start..end).contains(&index)), "{start}..{end}");
            let mut bits = Bits::new(200);
            bits.set(0..200);
            bits.clear(start..end);
            assert!((0..200).all(|index| bits.get(index) != (start..end).contains(&index)), "{start}..{end}");
        }
    }
}
