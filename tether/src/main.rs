//! Becomes another program, which dies with the process that started this one.
//!
//!     firebrick-tether PARENT PROGRAM [ARGUMENT...]
//!
//! PARENT is the number of the process that starts it. The kernel sends the program SIGKILL when the thread that did ends; where that has ended before
//! the kernel could be asked, nothing is started. PROGRAM is a path; the environment, the working directory and all open files are passed on.
//!
//! It ends with status 126 where PROGRAM cannot be run and 127 where there is none, as a shell does, and says why.
//!
//! There is no `main` of Rust's, and nothing of its run-time: this stands before each program the host starts, and before each virtual machine.

#![cfg_attr(not(test), no_main)]

use std::ffi::{c_char, c_int, CStr};

const USAGE: c_int = 2;
const NOT_RUN: c_int = 126;
const NOT_FOUND: c_int = 127;

/// What the C library calls.
///
/// # Safety
///
/// `argv` has `argc` strings and a null pointer after them.
#[cfg_attr(not(test), no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    if argc < 3 {
        return fail(USAGE, &[c"usage: firebrick-tether PARENT PROGRAM [ARGUMENT...]"]);
    }
    // SAFETY: there are at least three strings, which live as long as the process.
    let (parent, program) = unsafe { (CStr::from_ptr(*argv.add(1)), CStr::from_ptr(*argv.add(2))) };
    let Some(number) = process_number(parent) else {
        return fail(USAGE, &[c"firebrick-tether: this is not the number of a process: ", parent]);
    };
    // SAFETY: these are the arguments the kernel wants for it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: it only asks.
    if unsafe { libc::getppid() } != number {
        return fail(
            NOT_RUN,
            &[c"firebrick-tether: process ", parent, c" is gone, or not this one's parent"],
        );
    }
    // SAFETY: what begins at the third string ends with the null pointer.
    unsafe { libc::execv(program.as_ptr(), argv.add(2)) };
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: it is a string of the C library's, and nobody asks for another.
    let why = unsafe { CStr::from_ptr(libc::strerror(error)) };
    let status = if error == libc::ENOENT { NOT_FOUND } else { NOT_RUN };
    fail(status, &[c"firebrick-tether: cannot run ", program, c": ", why])
}

/// A decimal number above zero.
fn process_number(text: &CStr) -> Option<libc::pid_t> {
    text.to_str().ok()?.parse().ok().filter(|number| *number > 0)
}

/// Say it on standard error, and return the status.
fn fail(status: c_int, words: &[&CStr]) -> c_int {
    for text in words.iter().chain(&[c"\n"]) {
        // SAFETY: the bytes are those of the string. What cannot be written nobody would read.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.count_bytes()) };
    }
    status
}

#[cfg(test)]
mod tests {
    use super::process_number;

    #[test]
    fn a_process_has_a_number_above_zero() {
        assert_eq!(process_number(c"42"), Some(42));
        for wrong in [c"", c"0", c"-1", c"x", c"4294967296", c"1 "] {
            assert_eq!(process_number(wrong), None);
        }
    }
}
