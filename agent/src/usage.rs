//! What the user's work costs this machine.

use crate::cell::Cells;
use crate::protocol::UsageReport;

pub fn report(cells: &Cells) -> UsageReport {
    let mut report = UsageReport::default();
    if let Some(total) = cells.total() {
        report.cpu_us = total.cpu_us;
        report.memory_bytes = total.memory;
        report.memory_peak_bytes = total.memory_peak;
        report.processes = total.processes;
    }
    // The root is the scratch disk's, laid over the image: its free space is the scratch disk's.
    if let Ok(root) = rustix::fs::statvfs("/") {
        report.scratch_total_bytes = root.f_blocks * root.f_frsize;
        report.scratch_used_bytes = root.f_blocks.saturating_sub(root.f_bfree) * root.f_frsize;
    }
    report
}
