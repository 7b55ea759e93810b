//! Who this machine is: entropy, clock and names, given by the host at the start and again after a fork. Without it nothing of the user runs.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec};

use crate::console::say;
use crate::failure::Failure;
use crate::protocol::Identity;
use crate::seed::uuid;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Laid over the kernel's in a fork, which would otherwise say that it is the boot of its template.
const OWN_BOOT_ID: &str = "/run/firebrick-boot-id";
const ADD_ENTROPY: libc::c_ulong = 0x4008_5203;
const RESEED: libc::c_ulong = 0x5207;

pub struct Identities {
    /// `None` where this process is not the machine's first and must not change it.
    random: Option<OwnedFd>,
    boot_id: String,
    boot_id_laid: bool,
    /// The one the host gave last; empty before.
    machine_id: String,
}

impl Identities {
    pub fn new(of_machine: bool) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let random = of_machine.then(|| rustix::fs::open("/dev/random", flags, Mode::empty())).transpose()?;
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_string();
        Ok(Self { random, boot_id, boot_id_laid: false, machine_id: String::new() })
    }

    /// Whether this process is the machine's first, and may change it.
    pub fn of_machine(&self) -> bool {
        self.random.is_some()
    }

    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Whether this is the machine it was named as last.
    pub fn is(&self, machine_id: &str) -> bool {
        !machine_id.is_empty() && self.machine_id == machine_id
    }

    /// Become what the host says; `quiet`: perhaps in a copy of the machine that was, which is to know it, unless it is told that it is the same
    /// machine by the id it has. An error leaves the machine without an identity.
    pub fn apply(&mut self, identity: &Identity, quiet: bool) -> Result<(), Failure> {
        check(identity)?;
        let forked = quiet && !self.is(&identity.machine_id);
        self.machine_id.clone_from(&identity.machine_id);
        let Some(random) = &self.random else { return Ok(()) };
        let failed = |operation: &'static str| move |errno| Failure::system(operation, "this machine", errno);
        add_entropy(random, &identity.entropy).map_err(failed("seed the random numbers of"))?;
        set_clock(identity.realtime_ns).map_err(failed("set the clock of"))?;
        rustix::system::sethostname(identity.hostname.as_bytes()).map_err(failed("name"))?;
        write_names(identity);
        if forked {
            self.boot_id = new_boot_id().map_err(failed("make a boot id for"))?;
        }
        // Laid the first time too, when it says what the kernel says: a fork then has a file to write, not a mount to make.
        self.replace_boot_id();
        Ok(())
    }

    fn replace_boot_id(&mut self) {
        let written =
            std::fs::write(OWN_BOOT_ID, format!("{}\n", self.boot_id)).map_err(|error| error.to_string());
        let laid = written.and_then(|()| match std::mem::replace(&mut self.boot_id_laid, true) {
            true => Ok(()),
            false => rustix::mount::mount_bind(OWN_BOOT_ID, BOOT_ID).map_err(|errno| errno.to_string()),
        });
        if let Err(error) = laid {
            say(&format!("cannot replace the boot id: {error}"));
        }
    }
}

fn check(identity: &Identity) -> Result<(), Failure> {
    let hex = identity.machine_id.len() == 32
        && identity.machine_id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let named = (1..=64).contains(&identity.hostname.len()) && identity.hostname.bytes().all(plain);
    match (32..=512).contains(&identity.entropy.len()) && hex && named {
        true => Ok(()),
        false => Err(Failure::bad(
            "an identity needs 32 to 512 bytes of entropy, a host name and a machine id of 32 hex digits",
        )),
    }
}

fn add_entropy(random: &OwnedFd, entropy: &[u8]) -> Result<(), Errno> {
    // struct rand_pool_info: bits credited, length, bytes; both numbers are ints, at most 4096 here.
    let mut info = Vec::with_capacity(8 + entropy.len());
    info.extend_from_slice(&(entropy.len() as i32 * 8).to_ne_bytes());
    info.extend_from_slice(&(entropy.len() as i32).to_ne_bytes());
    info.extend_from_slice(entropy);
    // SAFETY: the kernel reads the header and as many bytes behind it as the header says.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), ADD_ENTROPY, info.as_ptr()) };
    // SAFETY: takes no argument.
    let reseeded = unsafe { libc::ioctl(random.as_raw_fd(), RESEED) };
    match added < 0 || reseeded < 0 {
        true => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        false => Ok(()),
    }
}

fn set_clock(realtime_ns: u64) -> Result<(), Errno> {
    let time = Timespec {
        tv_sec: (realtime_ns / 1_000_000_000) as i64,
        tv_nsec: (realtime_ns % 1_000_000_000) as i64,
    };
    rustix::time::clock_settime(ClockId::Realtime, time)
}

/// The files that say who this machine is. A job may have made them impossible to write (it is root): that is its own loss.
fn write_names(identity: &Identity) {
    if !std::path::Path::new("/etc").is_dir() {
        return; // nor is there a program to read them
    }
    let files = [
        ("/etc/machine-id", format!("{}\n", identity.machine_id)),
        ("/etc/hostname", format!("{}\n", identity.hostname)),
        ("/etc/hosts", format!("127.0.0.1 localhost {}\n::1 localhost\n", identity.hostname)),
    ];
    for (path, text) in files {
        if let Err(errno) = replace(path, &text) {
            say(&format!("cannot write {path}: {errno}"));
        }
    }
}

/// Give the file this text. A plain file is written over, which costs a fork a tenth of what a new one does; anything else gets a new file in
/// its place: a link is not followed, a fifo not waited for.
fn replace(path: &str, text: &str) -> Result<(), Errno> {
    if overwrite(path, text).is_ok() {
        return Ok(());
    }
    let new = format!("{path}.firebrick");
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::TRUNC
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let file = rustix::fs::open(&new, flags, Mode::from(0o644))?;
    crate::files::write_all(&file, text.as_bytes())?;
    rustix::fs::rename(&new, path)
}

fn overwrite(path: &str, text: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let facts = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    crate::files::write_all(&file, text.as_bytes())?;
    match facts.st_size == text.len() as i64 {
        true => Ok(()),
        false => rustix::fs::ftruncate(&file, text.len() as u64),
    }
}

/// From the kernel's random numbers, which have just become this machine's own.
fn new_boot_id() -> Result<String, Errno> {
    let mut raw = [0u8; 16];
    rustix::rand::getrandom(&mut raw, rustix::rand::GetRandomFlags::NONBLOCK)?;
    Ok(uuid(raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_bytes::ByteBuf;

    fn identity(entropy: usize, hostname: &str, machine_id: &str) -> Identity {
        Identity {
            entropy: ByteBuf::from(vec![1; entropy]),
            realtime_ns: 1,
            hostname: hostname.into(),
            machine_id: machine_id.into(),
        }
    }

    #[test]
    fn refuses_half_an_identity() {
        let id = "0123456789abcdef0123456789abcdef";
        assert!(check(&identity(32, "fork-7.example", id)).is_ok());
        assert!(check(&identity(31, "a", id)).is_err());
        assert!(check(&identity(513, "a", id)).is_err());
        assert!(check(&identity(32, "", id)).is_err());
        assert!(check(&identity(32, "a\nb", id)).is_err());
        assert!(check(&identity(32, "a", &id[1..])).is_err());
        assert!(check(&identity(32, "a", &id.to_uppercase())).is_err());
    }

    #[test]
    fn boot_ids_are_version_4_and_differ() {
        let new = || new_boot_id().expect("random numbers");
        let (one, two) = (new(), new());
        assert!(one != two && one.len() == 36 && &one[14..15] == "4");
    }
}
