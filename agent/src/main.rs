//! The Firebrick agent: the first process of a machine, and the guest end of the agent protocol.
//!
//! As PID 1 it makes the machine usable (`boot`), then serves the host over the machine's virtio-serial port, or vsock where there is none.
//! `firebrick-agent --serve-socket PATH` serves the same protocol on a unix socket as an ordinary process, changing nothing of
//! the machine it runs on: that is for tests of the host's side.

mod activities;
mod agent;
mod births;
mod boot;
mod cell;
mod command;
mod console;
mod cuse;
mod disks;
mod ends;
mod exec;
mod failure;
mod files;
mod filter;
mod flow;
mod glob;
mod guard;
mod identity;
mod lane;
mod lineage;
mod link;
mod listener;
mod listing;
mod modules;
mod network;
mod outbox;
mod pace;
mod poll;
mod power;
mod preparing;
mod protocol;
mod proxy;
mod randomness;
mod seed;
mod signals;
mod spawn;
mod tree;
mod tree_receive;
mod tree_send;
mod uevent;
mod usage;
mod user;
#[cfg(test)]
mod vectors;

use std::path::Path;

use rustix::process::{getpid, Resource, Rlimit};

use agent::{Agent, Parts};
use cell::Cells;
use console::say;
use disks::Disks;
use identity::Identities;
use link::Link;
use power::{Ending, Power};
use signals::Signals;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--serve-socket", path] => serve_socket(Path::new(path)),
        ["--version"] => println!("firebrick-agent {}", env!("CARGO_PKG_VERSION")),
        _ if getpid().is_init() => be_first(),
        _ => {
            eprintln!("usage: firebrick-agent --serve-socket PATH | --version");
            std::process::exit(2);
        }
    }
}

/// The first process never ends: what fails is said, and ends the machine.
fn be_first() -> ! {
    std::panic::set_hook(Box::new(|info| fatal(&info.to_string())));
    match boot().and_then(serve) {
        Ok(power) => power.off(),
        Err(error) => fatal(&error),
    }
}

/// Last words, on the console and, if it can be reached, to the host.
fn fatal(message: &str) -> ! {
    say(&format!("fatal: {message}"));
    link::last_words(message);
    rustix::fs::sync();
    Ending::find().end()
}

fn boot() -> boot::Step<Parts> {
    boot::mount_kernel()?;
    boot::open_console()?;
    let ending = Ending::find();
    let news = uevent::Listener::new()?;
    modules::load()?;
    let disks = Disks::find();
    let scratch = boot::enter_root(&disks)?;
    boot::mount_user()?;
    let work = boot::make_work_group()?;
    match network::start() {
        Ok(true) => network::write_resolver(),
        Ok(false) => {}
        Err(errno) => say(&format!("the network is not up: {errno}")),
    }
    disks.link();
    let link = find_link(&news)?;
    let identities = Identities::new(true).map_err(|errno| format!("cannot open /dev/random: {errno}"))?;
    let signals =
        Signals::block(&[libc::SIGCHLD]).map_err(|errno| format!("cannot watch for children: {errno}"))?;
    raise_limits();
    Ok(Parts {
        link,
        cells: Cells::new(Some(work)),
        identities,
        signals,
        power: Power::Machine { scratch, ending },
    })
}

/// The port, which the kernel announces a moment after its driver is loaded; or vsock, if this machine has no such device.
fn find_link(news: &uevent::Listener) -> boot::Step<Link> {
    if !modules::is_present(modules::CONSOLE) {
        return Link::listen_vsock()
            .map_err(|errno| format!("cannot listen on vsock port {}: {errno}", link::VSOCK_PORT));
    }
    loop {
        if let Some(link) = Link::find_port() {
            return Ok(link);
        }
        if !news.wait() {
            return Err("there is no virtio-serial port named firebrick.agent".into());
        }
    }
}

fn serve(parts: Parts) -> boot::Step<Power> {
    let agent = Agent::new(parts).map_err(|errno| format!("cannot set up the event loop: {errno}"))?;
    agent.run().map_err(|errno| format!("the event loop failed: {errno}"))
}

/// Deep trees need a descriptor for each level. Programs get the usual limit back.
fn raise_limits() {
    let limit = Rlimit { current: Some(65_536), maximum: Some(524_288) };
    // Refused to an ordinary user, who then has what there is.
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

fn serve_socket(path: &Path) {
    let served = prepare_socket(path).and_then(serve);
    match served {
        Ok(power) => {
            let _ = std::fs::remove_file(path);
            power.off()
        }
        Err(error) => {
            say(&error);
            std::process::exit(1);
        }
    }
}

fn prepare_socket(path: &Path) -> boot::Step<Parts> {
    let link =
        Link::listen_unix(path).map_err(|errno| format!("cannot listen on {}: {errno}", path.display()))?;
    let signals = Signals::block(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT])
        .map_err(|errno| format!("cannot watch for children: {errno}"))?;
    let identities = Identities::new(false).map_err(|errno| format!("cannot read the boot id: {errno}"))?;
    Ok(Parts { link, cells: Cells::new(None), identities, signals, power: Power::Process })
}
