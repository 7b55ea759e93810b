//! From the kernel's first process to a machine the agent can serve in: mounts, modules, disks, and the step into the user's root.
//!
//! The initramfs holds `/init` (this program), `/modules` (kernel modules in the order to load them, see `modules`) and empty directories. The
//! root image is the virtio disk named `root` (see `disks`), never written; over it lies the disk named `scratch`.
//! Without a root disk the initramfs itself is the user's root.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{mount, mount_move, MountFlags};

use crate::cell::put;
use crate::disks::Disks;

/// A step of the boot that failed, in words for the console.
pub type Step<T> = Result<T, String>;

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static str,
}

const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// What the kernel has to say, needed before anything can be found.
const KERNEL: [Mount; 3] = [
    Mount { kind: "proc", target: "/proc", flags: NO_PROGRAMS, data: "" },
    Mount { kind: "sysfs", target: "/sys", flags: NO_PROGRAMS, data: "" },
    Mount { kind: "devtmpfs", target: "/dev", flags: MountFlags::NOSUID, data: "mode=0755" },
];

/// What programs expect, in the user's root.
const USER: [Mount; 4] = [
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID,
        data: "gid=5,mode=620,ptmxmode=666",
    },
    Mount { kind: "tmpfs", target: "/dev/shm", flags: NO_DEVICES, data: "mode=1777" },
    Mount { kind: "tmpfs", target: "/run", flags: NO_DEVICES, data: "mode=0755" },
    Mount { kind: "cgroup2", target: "/sys/fs/cgroup", flags: NO_PROGRAMS, data: "" },
];

/// Carried from the initramfs into the user's root.
const CARRIED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// File systems a root image may have, the likeliest first.
const ROOT_KINDS: [&str; 3] = ["squashfs", "erofs", "ext4"];

const NEW_ROOT: &str = "/root";
const SCRATCH: &str = "/scratch";
const IMAGE: &str = "/image";

pub fn mount_kernel() -> Step<()> {
    KERNEL.iter().try_for_each(apply)
}

pub fn mount_user() -> Step<()> {
    USER.iter().try_for_each(apply)?;
    // Links programs expect beside the devices.
    for (path, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = rustix::fs::symlink(target, path);
    }
    make_temporary()
}

fn apply(one: &Mount) -> Step<()> {
    make_directory(one.target, 0o755)?;
    let data = std::ffi::CString::new(one.data).unwrap_or_default();
    match mount(one.kind, one.target, one.kind, one.flags, data.as_c_str()) {
        // The kernel may have mounted /dev itself.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(format!("cannot mount {} on {}: {errno}", one.kind, one.target)),
    }
}

fn make_directory(path: &str, mode: u32) -> Step<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(format!("cannot make the directory {path}: {errno}")),
    }
}

/// /tmp is part of the scratch disk: builds put more there than memory holds.
fn make_temporary() -> Step<()> {
    make_directory("/tmp", 0o1777)?;
    rustix::fs::chmod("/tmp", Mode::from_raw_mode(0o1777))
        .map_err(|errno| format!("cannot open up /tmp: {errno}"))
}

/// Mount the user's root and step into it. Returns the scratch disk's root, if there is one.
pub fn enter_root(disks: &Disks) -> Step<Option<OwnedFd>> {
    let Some(root) = disks.get("root") else { return Ok(None) };
    make_directory(IMAGE, 0o755)?;
    mount_image(root)?;
    let scratch = match disks.get("scratch") {
        Some(disk) => Some(mount_scratch(disk)?),
        None => {
            apply(&Mount { kind: "tmpfs", target: SCRATCH, flags: MountFlags::empty(), data: "mode=0755" })?;
            None
        }
    };
    lay_over()?;
    switch_root()?;
    Ok(scratch)
}

/// `firebrick.rootfs=` on the kernel's command line names the kind; else the known ones are tried.
fn mount_image(disk: &Path) -> Step<()> {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let named = line.split_whitespace().find_map(|word| word.strip_prefix("firebrick.rootfs="));
    let kinds: Vec<&str> = named.map_or(ROOT_KINDS.to_vec(), |kind| vec![kind]);
    let mut worst = Errno::NODEV;
    for kind in &kinds {
        match mount(disk, IMAGE, *kind, MountFlags::RDONLY, c"") {
            Ok(()) => return Ok(()),
            Err(Errno::NODEV) => {} // the kernel does not know this kind
            Err(errno) => worst = errno,
        }
    }
    Err(format!("cannot mount the root image {} as {}: {worst}", disk.display(), kinds.join(", ")))
}

fn mount_scratch(disk: &Path) -> Step<OwnedFd> {
    make_directory(SCRATCH, 0o755)?;
    mount(disk, SCRATCH, "ext4", MountFlags::NOATIME, c"")
        .map_err(|errno| format!("cannot mount the scratch disk {}: {errno}", disk.display()))?;
    rustix::fs::open(SCRATCH, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| format!("cannot open the scratch disk: {errno}"))
}

fn lay_over() -> Step<()> {
    make_directory(NEW_ROOT, 0o755)?;
    make_directory("/scratch/upper", 0o755)?;
    make_directory("/scratch/work", 0o755)?;
    let data = c"lowerdir=/image,upperdir=/scratch/upper,workdir=/scratch/work";
    mount("overlay", NEW_ROOT, "overlay", MountFlags::empty(), data)
        .map_err(|errno| format!("cannot lay the scratch disk over the root image: {errno}"))
}

/// As switch_root does, without a new program: what is mounted moves along, and the new root becomes ours.
fn switch_root() -> Step<()> {
    for path in CARRIED {
        let target = format!("{NEW_ROOT}{path}");
        make_directory(&target, 0o755)?;
        mount_move(path, &target).map_err(|errno| format!("cannot move {path} into the root: {errno}"))?;
    }
    let failed = |errno| format!("cannot step into the root: {errno}");
    rustix::process::chdir(NEW_ROOT).map_err(failed)?;
    mount_move(".", "/").map_err(failed)?;
    rustix::process::chroot(".").map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

/// The control group of everything the user runs, limited so that the agent and the kernel always have what they need.
pub fn make_work_group() -> Step<OwnedFd> {
    let open = |path: &str| {
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| format!("cannot open {path}: {errno}"))
    };
    let top = open("/sys/fs/cgroup")?;
    put(&top, "cgroup.subtree_control", "+memory +pids +cpu");
    make_directory("/sys/fs/cgroup/work", 0o755)?;
    let work = open("/sys/fs/cgroup/work")?;
    put(&work, "cgroup.subtree_control", "+memory");
    put(&work, "memory.max", &memory_limit().to_string());
    put(&work, "pids.max", &process_limit().to_string());
    Ok(work)
}

/// All memory that is free now but a reserve: 5 %, at least 16 MiB and at most 48. What the kernel holds already is nobody's to use.
fn memory_limit() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok());
    let available = available.map_or_else(total_memory, |kib: u64| kib * 1024);
    available - (available / 20).clamp(16 << 20, 48 << 20).min(available / 4)
}

fn total_memory() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram as u64 * u64::from(system.mem_unit)
}

/// Three quarters of what the kernel can hold, and no more than fit in the memory: a fork bomb is to meet this limit, which costs nothing, and not
/// the end of memory, which costs the slow death of one process after the other.
fn process_limit() -> u64 {
    const MEMORY_EACH: u64 = 512 << 10;
    const LEAST: u64 = 128;
    let read = |path| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let threads = read("/proc/sys/kernel/threads-max").unwrap_or(1024);
    let pids = read("/proc/sys/kernel/pid_max").unwrap_or(32768);
    (threads.min(pids) / 4 * 3).min((memory_limit() / MEMORY_EACH).max(LEAST))
}

/// Standard streams: the console where there is one, so that words are seen, else nothing. Descriptors 0 to 2 are taken either way.
pub fn open_console() -> Step<()> {
    let console = rustix::fs::open("/dev/console", OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
    let console = console.or_else(|_| rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()));
    let console = console.map_err(|errno| format!("cannot open /dev/null: {errno}"))?;
    rustix::stdio::dup2_stdin(&console)
        .and_then(|()| rustix::stdio::dup2_stdout(&console))
        .and_then(|()| rustix::stdio::dup2_stderr(&console))
        .map_err(|errno| format!("cannot set up the standard streams: {errno}"))
}
