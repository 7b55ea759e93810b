//! The Firebrick page server: the memory of one restored Firecracker machine, served over userfaultfd.
//!
//! Firecracker connects to a socket this program is given, says in one message where its memory lies, and hands over a userfaultfd. From then on
//! each page a guest touches first is copied from the memory file and the layers above it. The program ends with Firecracker, with its
//! owner, or on SIGTERM or SIGINT; SIGUSR1 writes the prefetch list early.
//!
//! Exit statuses: 0 the machine ended or a signal came; 2 called wrongly; 3 a handshake that cannot be used; 4 memory or a list that cannot be
//! used; 5 serving broke off, the machine must be killed; 6 the host refused something.

mod ahead;
mod arguments;
mod bits;
mod copier;
mod failure;
mod handshake;
mod list;
mod mapping;
mod memory;
mod overlay;
mod region;
mod replay;
mod server;
mod signals;
mod uffd;
mod user;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;

use arguments::{inherited, Arguments};
use copier::Copier;
use failure::{Failure, Outcome, Status};
use memory::Memory;
use replay::Replay;
use server::Server;
use signals::Signals;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == ["--version"] {
        println!("firebrick-pager {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match Arguments::parse(&words).and_then(|arguments| serve(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("firebrick-pager: {}", failure.sentence);
            ExitCode::from(failure.status as u8)
        }
    }
}

fn serve(arguments: &Arguments) -> Outcome<()> {
    if let Some(id) = arguments.user {
        user::become_user(id)
            .map_err(|errno| Failure::system(Status::Host, &format!("become user {id}"), errno))?;
    }
    let signals = Signals::block(&[libc::SIGTERM, libc::SIGINT, libc::SIGUSR1])
        .map_err(|errno| Failure::system(Status::Host, "take signals", errno))?;
    let listener = inherited(arguments.listen)?;
    let files: Vec<OwnedFd> = arguments.memory.iter().map(|fd| inherited(*fd)).collect::<Outcome<_>>()?;
    let list = arguments.record.map(inherited).transpose()?.map(File::from);
    let memory = Arc::new(Memory::open(files)?);
    let runs = arguments.prefetch.map(|fd| read_list(fd, memory.size())).transpose()?;
    // Reading ahead begins before Firecracker comes: it takes a while to.
    let replay = runs
        .map(|runs| Replay::start(&runs, &memory))
        .transpose()
        .map_err(|errno| Failure::system(Status::Host, "start reading ahead", errno))?;
    let Some(peer) = handshake::meet(&listener, &signals, memory.size())? else { return Ok(()) };
    drop(listener);
    let copier = Copier::new(peer.uffd, peer.regions, memory, arguments.around, list.is_some());
    let served = Server { copier, replay, signals, process: peer.process, list, put_off: 0 }.run();
    drop(peer.connection);
    served
}

fn read_list(fd: RawFd, memory: u64) -> Outcome<Vec<Range<u64>>> {
    let failed =
        |what: String| Failure::new(Status::Memory, format!("the prefetch list cannot be read: {what}"));
    let mut text = String::new();
    let file = File::from(inherited(fd)?);
    file.take(list::MOST_BYTES as u64)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.to_string()))?;
    list::parse(&text, memory)
}
