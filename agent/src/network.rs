//! The network: the loopback always; the first Ethernet device, if there is one, with the addresses of the monitor's user-mode network.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{socket_with, AddressFamily, SocketFlags, SocketType};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAMESERVER: &str = "10.0.2.3";

/// Bring the network up. Returns whether there is more than the loopback.
pub fn start() -> Result<bool, Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    up(&socket, "lo")?;
    let Some(device) = first_device() else { return Ok(false) };
    set_address(&socket, &device, libc::SIOCSIFADDR, ADDRESS)?;
    set_address(&socket, &device, libc::SIOCSIFNETMASK, NETMASK)?;
    up(&socket, &device)?;
    add_default_route(&socket)?;
    Ok(true)
}

/// Where names are asked for, unless the image says so itself.
pub fn write_resolver() {
    const PATH: &str = "/etc/resolv.conf";
    if std::fs::read(PATH).map_or(true, |text| text.is_empty()) {
        // A root image without /etc has no resolver to read it either.
        let _ = std::fs::remove_file(PATH);
        let _ = std::fs::write(PATH, format!("nameserver {NAMESERVER}\n"));
    }
}

/// The first network device that is not the loopback, by name.
fn first_device() -> Option<String> {
    let entries = std::fs::read_dir("/sys/class/net").ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| entry_is_hardware(name)).min()
}

fn entry_is_hardware(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).join("device").exists()
}

fn interface(name: &str) -> Result<libc::ifreq, Errno> {
    // SAFETY: all fields of the structure are integers and arrays of them, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::NAMETOOLONG);
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = byte as libc::c_char;
    }
    Ok(request)
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (target, octet) in data[2..6].iter_mut().zip(address.octets()) {
        *target = octet as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn control<T>(socket: &OwnedFd, request: libc::Ioctl, argument: &T) -> Result<(), Errno> {
    // SAFETY: every caller passes the structure that its request reads; none of these requests writes.
    match unsafe { libc::ioctl(socket.as_raw_fd(), request, argument as *const T) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

fn up(socket: &OwnedFd, name: &str) -> Result<(), Errno> {
    let mut request = interface(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    control(socket, libc::SIOCSIFFLAGS, &request)
}

fn set_address(socket: &OwnedFd, name: &str, which: libc::Ioctl, address: Ipv4Addr) -> Result<(), Errno> {
    let mut request = interface(name)?;
    request.ifr_ifru.ifru_addr = socket_address(address);
    control(socket, which, &request)
}

fn add_default_route(socket: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: all fields of the structure are integers or pointers, for which zero is a value and means "not given".
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(GATEWAY);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    control(socket, libc::SIOCADDRT, &route)
}
