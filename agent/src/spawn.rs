//! Starting a process. The child shares our memory until it executes (as after vfork), so that nothing is copied however large we are, it
//! is born in its control group (moving it there would wait for a grace period of the kernel), and it reports a failure through memory.

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int, c_void};
use rustix::io::Errno;

use crate::filter;
use crate::user::User;

const STACK: usize = 64 * 1024;
/// libc's own constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;
const DEFAULT_OPEN_FILES: u64 = 1024;

/// Everything the child needs, made ready before: between its birth and exec it may not allocate, lock or fail in any way but by errno.
pub struct Launch<'a> {
    /// Paths to try in turn, as a search along PATH does.
    pub candidates: &'a [CString],
    pub argv: &'a [CString],
    pub env: &'a [CString],
    pub cwd: &'a CStr,
    /// `None` stays who we are.
    pub user: Option<&'a User>,
    pub stdio: [BorrowedFd<'a>; 3],
    /// Standard input is a terminal and becomes the controlling one.
    pub terminal: bool,
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Where it sends the listener of a filter on its random numbers; `None` has no filter.
    pub filter: Option<BorrowedFd<'a>>,
    /// It is killed when we end. The first process of a machine never does; one in a test may.
    pub dies_with_us: bool,
}

/// Which step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Clone,
    Prepare,
    Filter,
    User,
    Directory,
    Execute,
}

struct Child {
    candidates: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    cwd: *const c_char,
    ids: Option<(u32, u32, *const u32, usize)>,
    stdio: [RawFd; 3],
    terminal: bool,
    filter: Option<RawFd>,
    /// Who must be our parent still, where the child dies with it.
    parent: Option<libc::pid_t>,
    failed: Option<(Step, c_int)>,
}

/// Starts processes, one at a time: they are born on one stack.
pub struct Launcher {
    stack: ptr::NonNull<c_void>,
}

impl Launcher {
    pub fn new() -> Result<Self, Errno> {
        use rustix::mm::{mmap_anonymous, MapFlags, ProtFlags};
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing of ours.
        let stack = unsafe {
            mmap_anonymous(ptr::null_mut(), STACK, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
        };
        ptr::NonNull::new(stack).map(|stack| Self { stack }).ok_or(Errno::NOMEM)
    }

    /// Start it. Returns its process id once it executes; the caller reaps it.
    pub fn start(&mut self, launch: &Launch<'_>) -> Result<i32, (Step, Errno)> {
        let mut child = Child {
            candidates: pointers(launch.candidates),
            argv: pointers(launch.argv),
            env: pointers(launch.env),
            cwd: launch.cwd.as_ptr(),
            ids: launch.user.map(|user| (user.uid, user.gid, user.groups.as_ptr(), user.groups.len())),
            stdio: launch.stdio.map(|fd| fd.as_raw_fd()),
            terminal: launch.terminal,
            filter: launch.filter.map(|door| door.as_raw_fd()),
            // SAFETY: asks for our own number and cannot fail.
            parent: launch.dies_with_us.then(|| unsafe { libc::getpid() }),
            failed: None,
        };
        let pid = self.clone(&mut child, launch.cgroup).map_err(|errno| (Step::Clone, errno))?;
        // The kernel lets us go on only when the child has executed or ended, so its note is complete.
        match child.failed {
            None => Ok(pid),
            Some((step, errno)) => {
                reap(pid);
                Err((step, Errno::from_raw_os_error(errno)))
            }
        }
    }

    fn clone(&mut self, child: &mut Child, cgroup: Option<BorrowedFd<'_>>) -> Result<i32, Errno> {
        // SAFETY: all fields of this kernel structure are integers, for which zero is a value, and means "not used".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        args.stack = self.stack.as_ptr() as u64;
        args.stack_size = STACK as u64;
        if let Some(cgroup) = cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        // SAFETY: the stack is ours and used by one child at a time, since CLONE_VFORK stops us until this child has left it; `child`
        // outlives the call for the same reason; `run_child` never returns.
        let result = unsafe { clone3(&args, run_child, child) };
        // A negative result is an errno.
        i32::try_from(result).map_err(|_| Errno::INVAL).and_then(|pid| {
            if pid < 0 {
                Err(Errno::from_raw_os_error(-pid))
            } else {
                Ok(pid)
            }
        })
    }
}

#[cfg(not(target_arch = "x86_64"))]
compile_error!("clone3 on a stack of its own is written for x86-64");

/// The system call `clone3`, with the child calling `entry(child)` on the stack named in `args`.
///
/// # Safety
/// `args` must name a stack that nothing else uses, and `entry` must not return.
unsafe fn clone3(args: &libc::clone_args, entry: extern "C" fn(*mut Child) -> !, child: *mut Child) -> isize {
    let result: isize;
    // SAFETY: the parent sees an ordinary system call: rax, rcx and r11 change. The child starts behind `syscall` with rax zero and rsp at
    // the end of its own stack, which is aligned for the call; r8 and r9 are as we set them.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r8") entry,
            in("r9") child,
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

extern "C" fn run_child(child: *mut Child) -> ! {
    // SAFETY: the parent has made it, waits, and looks at it again only after we are gone.
    let child = unsafe { &mut *child };
    child.failed = Some(become_program(child));
    // SAFETY: ends the child at once, running nothing of the parent's on the way out.
    unsafe { libc::_exit(127) }
}

/// Returns only when something failed.
fn become_program(child: &Child) -> (Step, c_int) {
    // SAFETY: system calls on values the parent has prepared, in a process of our own; none of them touches memory the parent relies on.
    // The raw calls for groups and ids are on purpose: the C library's would stop the parent's threads to change them as well.
    unsafe {
        if libc::setsid() < 0 || !place_stdio(child) {
            return (Step::Prepare, errno());
        }
        // Before the user, who may not without giving up sudo.
        if let Some(door) = child.filter {
            if let Err(errno) = filter::install(BorrowedFd::borrow_raw(door)) {
                return (Step::Filter, errno.raw_os_error());
            }
        }
        if let Some((uid, gid, groups, count)) = child.ids {
            let failed = libc::syscall(libc::SYS_setgroups, count, groups) < 0
                || libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0
                || libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0;
            if failed {
                return (Step::User, errno());
            }
        }
        // After the user: changing that takes it back. A parent that has died before this has not been seen to: hence the second look.
        if let Some(parent) = child.parent {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return (Step::Prepare, errno());
            }
            if libc::getppid() != parent {
                return (Step::Prepare, libc::ESRCH);
            }
        }
        if libc::chdir(child.cwd) < 0 {
            return (Step::Directory, errno());
        }
        reset_process();
        execute(child)
    }
}

/// # Safety
/// Only in the child.
unsafe fn place_stdio(child: &Child) -> bool {
    // All three are above 2 (`main` sees to it), so none is overwritten before its turn; dup2 clears close-on-exec.
    for (target, fd) in child.stdio.iter().enumerate() {
        // SAFETY: duplicates descriptors of this process.
        if unsafe { libc::dup2(*fd, target as c_int) } < 0 {
            return false;
        }
    }
    // SAFETY: takes the terminal on descriptor 0 as the controlling one of the session just made.
    !child.terminal || unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } == 0
}

/// What exec would hand on and the program should not get: our signal mask, our deafness to SIGPIPE, our limit of open files.
///
/// # Safety
/// Only in the child.
unsafe fn reset_process() {
    // SAFETY: changes this process alone: handlers are not shared with the parent (no CLONE_SIGHAND).
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur > DEFAULT_OPEN_FILES {
            limit.rlim_cur = DEFAULT_OPEN_FILES;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Try the candidates as execvp does: a file that may not be executed is remembered, and the search goes on.
///
/// # Safety
/// Only in the child.
unsafe fn execute(child: &Child) -> (Step, c_int) {
    let mut worst = libc::ENOENT;
    for path in child.candidates.iter().filter(|path| !path.is_null()) {
        // SAFETY: path, arguments and environment are arrays of C strings, ended by null, that the parent keeps alive.
        unsafe { libc::execve(*path, child.argv.as_ptr(), child.env.as_ptr()) };
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => return (Step::Execute, other),
        }
    }
    (Step::Execute, worst)
}

fn errno() -> c_int {
    // SAFETY: the thread's own errno; the parent's thread, whose storage we share, is stopped.
    unsafe { *libc::__errno_location() }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// A child that never became a program: nobody is told of it.
fn reap(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        while matches!(
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()),
            Err(Errno::INTR)
        ) {}
    }
}

/// Where to look for a program: itself if it names a path, else along `path`.
pub fn candidates(program: &CStr, path: &[u8]) -> Vec<CString> {
    let name = program.to_bytes();
    if name.contains(&b'/') {
        return vec![program.to_owned()];
    }
    path.split(|byte| *byte == b':')
        .map(|directory| [if directory.is_empty() { b"." } else { directory }, b"/", name].concat())
        .filter_map(|path| CString::new(path).ok())
        .collect()
}

#[cfg(test)]
#[path = "spawn_test.rs"]
mod tests;
