//! The seccomp filter that hands calls of `getrandom` to the agent, and the agent's answers.
//!
//! It is installed with the privilege to do so and without `no_new_privs`, so that sudo goes on to work below it. A call that the agent
//! has taken is interrupted by nothing but death, as one of the kernel's for few bytes is (Linux 5.19).

use std::ffi::{c_int, c_uint, c_ulong, c_void};
use std::io::{IoSlice, IoSliceMut};
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::sock_filter;
use rustix::io::Errno;
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::seed::Stream;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32: u32 = 0x4000_0000;
const GETRANDOM_I386: u32 = 355;
const DROPPABLE: u32 = 8;
const MAP_TYPE: u32 = 0xf;

const NEW_LISTENER: c_ulong = 1 << 3;
const WAIT_KILLABLE: c_ulong = 1 << 5;
const FILTER_FLAGS: c_ulong = NEW_LISTENER | WAIT_KILLABLE;

const RECEIVE: c_ulong = 0xc050_2100;
const SEND: c_ulong = 0xc018_2101;
const IS_VALID: c_ulong = 0x4008_2102;

/// More than this is not filled at once: the caller asks again for the rest, as it must when a signal comes.
const MOST: u64 = 1 << 20;
const PIECE: usize = 1 << 16;

/// Offsets in `seccomp_data`; of an argument, its lower half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FLAGS_OF_MMAP: u32 = 16 + 3 * 8;

pub const fn load(offset: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

const fn mask(bits: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, jt: 0, jf: 0, k: bits }
}

pub const fn equal(value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt, jf, k: value }
}

pub const fn give(action: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

/// `getrandom` of every ABI is told. A mapping that may be dropped is refused, as by a kernel that does not know it: programs
/// keep there what the vDSO draws random numbers from without a call, and then make the call.
static PROGRAM: [sock_filter; 15] = [
    load(ARCHITECTURE),
    equal(X86_64, 3, 0),
    equal(I386, 0, 9),
    load(NUMBER), // i386
    equal(GETRANDOM_I386, 8, 7),
    load(NUMBER), // x86-64 and x32
    equal(libc::SYS_getrandom as u32, 6, 0),
    equal(X32 | libc::SYS_getrandom as u32, 5, 0),
    equal(libc::SYS_mmap as u32, 0, 3),
    load(FLAGS_OF_MMAP),
    mask(MAP_TYPE),
    equal(DROPPABLE, 2, 0),
    give(libc::SECCOMP_RET_ALLOW),
    give(libc::SECCOMP_RET_USER_NOTIF),
    give(libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
];

/// Whether this kernel can do it, and speaks of it in structures of the sizes that ours have.
pub fn probe() -> Result<(), Errno> {
    let action: u32 = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: all fields of this structure are integers, for which zero is a value.
    let mut sizes: libc::seccomp_notif_sizes = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads a number, and writes the sizes.
    unsafe {
        seccomp(libc::SECCOMP_GET_ACTION_AVAIL, 0, (&raw const action).cast())?;
        seccomp(libc::SECCOMP_GET_NOTIF_SIZES, 0, (&raw mut sizes).cast())?;
    }
    let fit = usize::from(sizes.seccomp_notif) == size_of::<libc::seccomp_notif>()
        && usize::from(sizes.seccomp_notif_resp) == size_of::<libc::seccomp_notif_resp>();
    match fit {
        // With no filter at all a kernel that knows the flags cannot read it, and one that does not says so before.
        // SAFETY: null is read as a filter, and is none.
        true => match unsafe { seccomp(libc::SECCOMP_SET_MODE_FILTER, FILTER_FLAGS, std::ptr::null()) } {
            Err(Errno::FAULT) => Ok(()),
            Err(errno) => Err(errno),
            Ok(_) => Err(Errno::INVAL),
        },
        false => Err(Errno::NOTSUP),
    }
}

/// Filter this task and what descends from it, and send the listener over `socket`. Allocates nothing: for a child before it executes.
pub fn install(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let program = libc::sock_fprog { len: PROGRAM.len() as u16, filter: PROGRAM.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the program, which is there for ever, and gives a descriptor nobody else knows.
    let listener = unsafe {
        let raw = seccomp(libc::SECCOMP_SET_MODE_FILTER, FILTER_FLAGS, (&raw const program).cast())?;
        OwnedFd::from_raw_fd(raw)
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let handed = [listener.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&handed));
    sendmsg(socket, &[IoSlice::new(b"l")], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// The listener that came over the other end of `socket`, if one did.
pub fn take_listener(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags).ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut handed) => handed.next(),
        _ => None,
    })
}

/// A task that waits for its random numbers.
#[derive(Debug)]
pub struct Call {
    id: u64,
    pub task: i32,
    buffer: u64,
    length: u64,
    flags: u32,
}

impl Call {
    /// The next one, or `None` where it has gone meanwhile.
    pub fn receive(listener: BorrowedFd<'_>) -> Option<Self> {
        // SAFETY: all fields of this structure are integers, and the kernel wants them zero.
        let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a structure of that size, see `probe`.
        let received = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut told) };
        let [buffer, length, flags, ..] = told.data.args;
        let call = Self { id: told.id, task: told.pid as i32, buffer, length, flags: flags as u32 };
        (received == 0).then_some(call)
    }

    /// Fill the caller's buffer from `stream`, and let it go on.
    pub fn answer(&self, listener: BorrowedFd<'_>, stream: &mut Stream) {
        let result = match self.flags_are_valid() {
            true => self.fill(listener, stream),
            false => Err(libc::EINVAL),
        };
        let (value, error) = result.map_or_else(|errno| (0, -errno), |length| (length as i64, 0));
        self.reply(listener, value, error, 0);
    }

    /// Let the kernel do what was asked of it.
    pub fn hand_on(&self, listener: BorrowedFd<'_>) {
        self.reply(listener, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
    }

    fn flags_are_valid(&self) -> bool {
        let both = libc::GRND_RANDOM | libc::GRND_INSECURE;
        self.flags & !(both | libc::GRND_NONBLOCK) == 0 && self.flags & both != both
    }

    /// As much as can be written counts: an address that is none is an error only at the beginning.
    fn fill(&self, listener: BorrowedFd<'_>, stream: &mut Stream) -> Result<u64, c_int> {
        let wanted = self.length.min(MOST);
        let mut done = 0;
        let mut piece = [0; PIECE];
        while done < wanted {
            let length = PIECE.min((wanted - done) as usize);
            stream.fill(&mut piece[..length]);
            let written = self.write(listener, done, &piece[..length]);
            done += written;
            if written < length as u64 {
                break;
            }
        }
        match done == 0 && wanted > 0 {
            true => Err(libc::EFAULT),
            false => Ok(done),
        }
    }

    /// Nothing where the caller is gone, whose number may be another's by now.
    fn write(&self, listener: BorrowedFd<'_>, offset: u64, bytes: &[u8]) -> u64 {
        // SAFETY: the kernel reads the id.
        if unsafe { libc::ioctl(listener.as_raw_fd(), IS_VALID as _, &raw const self.id) } != 0 {
            return 0;
        }
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let target = self.buffer.wrapping_add(offset) as usize as *mut libc::c_void;
        let remote = libc::iovec { iov_base: target, iov_len: bytes.len() };
        // SAFETY: reads bytes of ours; what is written is another process's, where that may write itself.
        let written =
            unsafe { libc::process_vm_writev(self.task, &raw const local, 1, &raw const remote, 1, 0) };
        u64::try_from(written).unwrap_or(0)
    }

    /// Fails where the caller is gone: then nobody waits.
    fn reply(&self, listener: BorrowedFd<'_>, value: i64, error: i32, flags: u32) {
        let response = libc::seccomp_notif_resp { id: self.id, val: value, error, flags };
        // SAFETY: the kernel reads a structure of that size, see `probe`.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const response) };
    }
}

/// # Safety
/// `argument` must be what the operation takes.
unsafe fn seccomp(operation: c_uint, flags: c_ulong, argument: *const c_void) -> Result<RawFd, Errno> {
    // SAFETY: as promised by the caller.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, c_ulong::from(operation), flags, argument) };
    match result < 0 {
        true => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        false => Ok(result as RawFd),
    }
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod tests;
