//! Words for whoever reads the machine's console.

use std::io::Write;

/// A line on the console. As PID 1 standard error is the console; a console that fails has nobody to tell.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "firebrick-agent: {text}");
}
