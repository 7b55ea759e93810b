//! Kernel modules of the initramfs, and the virtio devices that decide which of them are wanted.
//!
//! A line of `/modules` is the path of a module, then numbers of virtio devices separated by spaces. With numbers, the module is loaded only
//! where one of these devices is present: a machine does not pay for drivers of devices it does not have.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::boot::Step;

const LIST: &str = "/modules";

/// Numbers of virtio devices, as the specification has them.
pub const CONSOLE: u32 = 3;

/// Load what `/modules` lists, in its order. A module for hardware that is not there, or that is built in, is no mistake.
pub fn load() -> Step<()> {
    let Ok(list) = std::fs::read_to_string(LIST) else { return Ok(()) };
    for line in list.lines().filter(|line| !line.trim().is_empty()) {
        let (path, devices) = parse(line)?;
        if devices.is_empty() || devices.iter().any(|&number| is_present(number)) {
            load_file(path)?;
        }
        // Its memory is better used elsewhere, and would be part of every snapshot.
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_file(LIST);
    Ok(())
}

fn parse(line: &str) -> Step<(&str, Vec<u32>)> {
    let mut words = line.split_whitespace();
    let path = words.next().unwrap_or_default();
    let devices = words.map(str::parse).collect::<Result<_, _>>();
    Ok((
        path,
        devices.map_err(|_| format!("the list of modules has no device numbers after {path}: {line}"))?,
    ))
}

pub fn load_file(path: &str) -> Step<()> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| format!("cannot open the module {path}: {errno}"))?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(errno) => Err(format!("cannot load the module {path}: {errno}")),
    }
}

/// Whether this machine has a virtio device with this number. The devices show when the driver of their bus is loaded.
pub fn is_present(number: u32) -> bool {
    let Ok(devices) = std::fs::read_dir("/sys/bus/virtio/devices") else { return false };
    let wanted = format!("0x{number:04x}");
    devices.flatten().any(|device| {
        std::fs::read_to_string(device.path().join("device")).is_ok_and(|text| text.trim() == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_path_and_device_numbers() {
        assert_eq!(parse("/lib/squashfs.ko"), Ok(("/lib/squashfs.ko", vec![])));
        assert_eq!(parse(" /lib/vsock.ko 19 1 "), Ok(("/lib/vsock.ko", vec![19, 1])));
        assert!(parse("/lib/vsock.ko vsock").is_err());
    }
}
