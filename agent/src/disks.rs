//! The machine's virtio disks by the names the host gave them.
//!
//! A monitor that can say a disk's serial says its name there. One that cannot (Firecracker) has the names on the kernel's command line, in the
//! order of the disks: `firebrick.disks=root,scratch,NAME` makes `/dev/vda` the disk `root`. The argument wins where it is given.

use std::path::{Path, PathBuf};

const ARGUMENT: &str = "firebrick.disks=";

/// Names and devices.
pub struct Disks(Vec<(String, PathBuf)>);

impl Disks {
    pub fn find() -> Self {
        let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self(by_order(&line).unwrap_or_else(by_serial))
    }

    pub fn get(&self, name: &str) -> Option<&Path> {
        self.0.iter().find(|(its, _)| its == name).map(|(_, device)| device.as_path())
    }

    /// All of them as `/dev/disk/by-serial/NAME`.
    pub fn link(&self) {
        for (name, device) in &self.0 {
            // A convenience: a machine is as good without it.
            let _ = std::fs::create_dir_all("/dev/disk/by-serial");
            let _ = std::os::unix::fs::symlink(device, Path::new("/dev/disk/by-serial").join(name));
        }
    }
}

/// `None` where the command line does not name the disks.
fn by_order(line: &str) -> Option<Vec<(String, PathBuf)>> {
    let names = line.split_whitespace().find_map(|word| word.strip_prefix(ARGUMENT))?;
    let numbered = names.split(',').enumerate().filter(|(_, name)| is_name(name));
    Some(numbered.map(|(index, name)| (name.to_owned(), device(index))).collect())
}

fn by_serial() -> Vec<(String, PathBuf)> {
    let Ok(disks) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let named = disks.flatten().filter_map(|disk| {
        let serial = std::fs::read_to_string(disk.path().join("serial")).ok()?;
        let name = serial.trim();
        is_name(name).then(|| (name.to_owned(), Path::new("/dev").join(disk.file_name())))
    });
    named.collect()
}

/// It becomes part of a path.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with('.')
}

/// What the kernel calls its virtio disk with this number: vda to vdz, then vdaa.
fn device(index: usize) -> PathBuf {
    let mut letters = Vec::new();
    let mut left = index + 1;
    while left > 0 {
        left -= 1;
        letters.insert(0, char::from(b'a' + (left % 26) as u8));
        left /= 26;
    }
    PathBuf::from(format!("/dev/vd{}", letters.into_iter().collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Vec<String> {
        let disks = by_order(line).unwrap_or_default();
        disks.iter().map(|(name, device)| format!("{name}={}", device.display())).collect()
    }

    #[test]
    fn disks_have_the_names_of_the_command_line_in_its_order() {
        assert_eq!(
            named("quiet firebrick.disks=root,scratch,data reboot=k"),
            ["root=/dev/vda", "scratch=/dev/vdb", "data=/dev/vdc"]
        );
        assert!(by_order("quiet").is_none());
    }

    #[test]
    fn a_name_that_is_no_file_name_keeps_its_place_and_nothing_else() {
        assert_eq!(named("firebrick.disks=root,../etc,,.x,data"), ["root=/dev/vda", "data=/dev/vde"]);
    }

    #[test]
    fn devices_are_counted_as_the_kernel_does() {
        for (index, name) in
            [(0, "vda"), (25, "vdz"), (26, "vdaa"), (51, "vdaz"), (52, "vdba"), (702, "vdaaa")]
        {
            assert_eq!(device(index), Path::new("/dev").join(name));
        }
    }
}
