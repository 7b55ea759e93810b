//! The filter on a thread of this process, which gives up new privileges for it: the rest of the process is as it was.

use std::sync::mpsc;
use std::thread;

use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};

use super::*;
use crate::seed::Key;

fn key() -> Key {
    Key::of_seed(b"seed")
}

fn expected(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    key().stream().fill(&mut bytes);
    bytes
}

/// `getrandom` itself, past whatever a library does.
fn ask(buffer: *mut u8, length: usize, flags: u32) -> Result<usize, Errno> {
    // SAFETY: the kernel looks at the buffer, and says so where it is none.
    let result = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
    usize::try_from(result)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn wait_for(listener: &OwnedFd) {
    let mut polled = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure of ours.
    assert_eq!(unsafe { libc::poll(&raw mut polled, 1, 10_000) }, 1, "nobody asked");
}

/// Run `asks` below a filter, and answer it `times` times with `how`.
fn below_filter<T: Send + 'static>(
    asks: impl FnOnce() -> T + Send + 'static,
    times: usize,
    mut how: impl FnMut(&Call, &OwnedFd),
) -> T {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("sockets");
    let (ready, installed) = mpsc::channel();
    let asking = thread::spawn(move || {
        // SAFETY: takes what this thread may become, nothing else.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        ready.send(install(theirs.as_fd())).expect("the test waits");
        asks()
    });
    installed.recv().expect("the thread runs").expect("a filter");
    let listener = take_listener(ours.as_fd()).expect("a listener");
    for _ in 0..times {
        wait_for(&listener);
        let call = Call::receive(listener.as_fd()).expect("a call");
        how(&call, &listener);
    }
    asking.join().expect("the thread ends")
}

fn answer(call: &Call, listener: &OwnedFd) {
    call.answer(listener.as_fd(), &mut key().stream());
}

#[test]
fn this_kernel_can_do_it() {
    assert_eq!(probe(), Ok(()));
}

#[test]
fn fills_what_is_asked_for_and_no_more() {
    for length in [0, 1, 256, PIECE + 5] {
        let (result, bytes) = below_filter(
            move || {
                let mut bytes = vec![0; length + 8];
                (ask(bytes.as_mut_ptr(), length, libc::GRND_NONBLOCK), bytes)
            },
            1,
            answer,
        );
        assert_eq!(result, Ok(length));
        assert_eq!(bytes, [expected(length), vec![0; 8]].concat());
    }
}

#[test]
fn a_large_buffer_is_filled_in_turns() {
    let most = MOST as usize;
    let result = below_filter(
        move || {
            let mut bytes = vec![0; most + 100];
            ask(bytes.as_mut_ptr(), bytes.len(), 0)
        },
        1,
        answer,
    );
    assert_eq!(result, Ok(most));
}

#[test]
fn refuses_flags_that_mean_nothing() {
    let results = below_filter(
        || {
            let mut bytes = [0; 4];
            [8, libc::GRND_RANDOM | libc::GRND_INSECURE, libc::GRND_RANDOM]
                .map(|flags| ask(bytes.as_mut_ptr(), 4, flags))
        },
        3,
        answer,
    );
    assert_eq!(results, [Err(Errno::INVAL), Err(Errno::INVAL), Ok(4)]);
}

#[test]
fn an_address_that_is_none_is_the_callers_mistake() {
    let result = below_filter(|| ask(8 as *mut u8, 16, 0), 1, answer);
    assert_eq!(result, Err(Errno::FAULT));
}

#[test]
fn the_kernel_may_do_it_instead() {
    let (result, bytes) = below_filter(
        || {
            let mut bytes = vec![0; 32];
            (ask(bytes.as_mut_ptr(), 32, 0), bytes)
        },
        1,
        |call, listener| call.hand_on(listener.as_fd()),
    );
    assert_eq!(result, Ok(32));
    assert!(bytes != expected(32) && bytes != [0; 32]);
}

#[test]
fn what_could_be_dropped_is_refused() {
    let errno = below_filter(
        || {
            let flags = DROPPABLE as c_int | libc::MAP_ANONYMOUS;
            // SAFETY: asks for memory at an address of the kernel's choice.
            let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0) };
            (mapped == libc::MAP_FAILED).then(|| std::io::Error::last_os_error().raw_os_error())
        },
        0,
        answer,
    );
    assert_eq!(errno, Some(Some(libc::EINVAL)));
}
