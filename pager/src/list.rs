//! Prefetch lists: runs of pages of a memory file, in the order they were needed.
//!
//!     firebrick-prefetch 1
//!     <first page> <pages>      pages of 4096 bytes; any number of lines
//!     end <lines>

use std::fmt::Write;
use std::ops::Range;

use crate::failure::{Failure, Outcome, Status};
use crate::region::PAGE;

const HEAD: &str = "firebrick-prefetch 1";
const MOST_RUNS: usize = 1 << 20;
/// What one run records: the start of a machine, not its life.
const RECORDED_RUNS: usize = 1 << 16;
/// More text than that no list has.
pub const MOST_BYTES: usize = 32 << 20;

/// What a list says, as ranges of bytes within a memory of `size` bytes.
pub fn parse(text: &str, size: u64) -> Outcome<Vec<Range<u64>>> {
    let bad = |line: usize, what: &str| {
        Failure::new(Status::Memory, format!("line {} of the prefetch list {what}", line + 1))
    };
    let mut lines = text.lines().enumerate();
    if lines.next().map(|(_, line)| line) != Some(HEAD) {
        return Err(bad(0, &format!("is not \"{HEAD}\"")));
    }
    let mut runs = Vec::new();
    for (number, line) in lines {
        if let Some(count) = line.strip_prefix("end ") {
            let complete = count.parse() == Ok(runs.len());
            return complete
                .then_some(runs)
                .ok_or_else(|| bad(number, "does not end with the number of runs"));
        }
        let run =
            run_of(line, size / PAGE).ok_or_else(|| bad(number, "is no run of pages of this memory"))?;
        if runs.len() == MOST_RUNS {
            return Err(bad(number, "is one too many"));
        }
        runs.push(run);
    }
    Err(bad(text.lines().count(), "is missing: the list was cut short"))
}

fn run_of(line: &str, pages: u64) -> Option<Range<u64>> {
    let (first, count) = line.split_once(' ')?;
    let (first, count): (u64, u64) = (first.parse().ok()?, count.parse().ok()?);
    let end = first.checked_add(count)?;
    (count > 0 && end <= pages).then_some(first * PAGE..end * PAGE)
}

/// Takes down what is served, up to a limit.
pub struct Recorder {
    runs: Vec<Range<u64>>,
    limit: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new(RECORDED_RUNS)
    }
}

impl Recorder {
    fn new(limit: usize) -> Self {
        Self { runs: Vec::new(), limit }
    }

    /// Bytes of the memory file were needed.
    pub fn note(&mut self, range: Range<u64>) {
        if let Some(last) = self.runs.last_mut().filter(|last| last.end == range.start) {
            last.end = range.end;
        } else if self.runs.len() < self.limit {
            self.runs.push(range);
        }
    }

    pub fn text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for run in &self.runs {
            let _ = writeln!(text, "{} {}", run.start / PAGE, (run.end - run.start) / PAGE);
        }
        let _ = writeln!(text, "end {}", self.runs.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_can_be_read() {
        let mut recorder = Recorder::new(2);
        for range in [PAGE..2 * PAGE, 2 * PAGE..4 * PAGE, 0..PAGE, 9 * PAGE..10 * PAGE] {
            recorder.note(range);
        }
        let text = recorder.text();
        assert_eq!(text, "firebrick-prefetch 1\n1 3\n0 1\nend 2\n");
        assert_eq!(parse(&text, 4 * PAGE), Ok(vec![PAGE..4 * PAGE, 0..PAGE]));
    }

    #[test]
    fn what_is_no_list_of_this_memory_is_refused() {
        for text in [
            "",
            "firebrick-prefetch 2\nend 0\n",
            "firebrick-prefetch 1\n",
            "firebrick-prefetch 1\n1 1\n",
            "firebrick-prefetch 1\n1 1\nend 2\n",
            "firebrick-prefetch 1\n4 1\nend 1\n",
            "firebrick-prefetch 1\n0 0\nend 1\n",
            "firebrick-prefetch 1\n18446744073709551615 2\nend 1\n",
            "firebrick-prefetch 1\n-1 2\nend 1\n",
            "firebrick-prefetch 1\n1\nend 1\n",
        ] {
            assert_eq!(parse(text, 4 * PAGE).expect_err(text).status, Status::Memory, "{text:?}");
        }
    }
}
