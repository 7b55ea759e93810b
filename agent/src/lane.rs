//! Lanes: threads for what can block. A file operation may wait for the disk, or for ever on a file system that a job has mounted; the event
//! loop must not. A lane runs one request at a time as plain sequential code over `LaneIo`, which moves its bytes to and from the loop
//! within the credit. Idle lanes are kept, so that a small request costs a switch and not a thread.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{eventfd, EventfdFlags};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::flow::{spend, GRANT};
use crate::outbox::Outbox;
use crate::pace::Pace;
use crate::protocol::{Code, Message, Violation, FRAME_LIMIT, INITIAL_CREDIT, INPUT, OUTPUT};

/// More requests at once than this are refused as busy: one that hangs stays lost.
const REQUESTS: usize = 64;
/// A lane whose request is answered is free a moment later than the host knows: others stand in for it.
const LANES: usize = 2 * REQUESTS;
const STACK: usize = 256 * 1024;
/// Pieces of output between a lane and the loop.
const AHEAD: usize = 2;

pub type Answer = Result<Message, Failure>;
type Errand = Box<dyn FnOnce() + Send>;

enum Piece {
    Data(Vec<u8>),
    End,
}

enum Output {
    Data(Vec<u8>),
    Answer(Answer),
}

struct Shared {
    /// What the lane has read and the host may send again.
    consumed: AtomicU32,
    given_up: AtomicBool,
}

/// The lanes' bell, which the event loop waits for.
pub struct Bell(OwnedFd);

impl Bell {
    fn ring(&self) {
        // Fails only when the counter is at its end, and then the bell is ringing already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[derive(Default)]
struct Queue {
    errands: VecDeque<Errand>,
    lanes: usize,
    idle: usize,
    /// Requests that are not answered.
    open: usize,
}

type SharedQueue = Arc<(Mutex<Queue>, Condvar)>;

/// One of the requests that may be open at once, as long as it lives.
struct Place(SharedQueue);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0 .0).open -= 1;
    }
}

pub struct Lanes {
    queue: SharedQueue,
    bell: Arc<Bell>,
}

impl Lanes {
    pub fn new() -> Result<Self, Errno> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Arc::default(), bell: Arc::new(Bell(bell)) })
    }

    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Run `work` on a lane. `output`: it answers with data on channel 1 before its message.
    pub fn start(
        &self,
        stream: u32,
        output: bool,
        work: impl FnOnce(&mut LaneIo) -> Answer + Send + 'static,
    ) -> Result<LaneStream, Failure> {
        let (to_lane, input) = mpsc::channel();
        let (sender, from_lane) = mpsc::sync_channel(AHEAD);
        let shared = Arc::new(Shared { consumed: AtomicU32::new(0), given_up: AtomicBool::new(false) });
        let mut io = LaneIo {
            input,
            piece: Vec::new(),
            offset: 0,
            ended: false,
            output: Vec::new(),
            sender,
            shared: shared.clone(),
            bell: self.bell.clone(),
        };
        let place = self.place()?;
        self.put(Box::new(move || {
            let answer = work(&mut io);
            io.finish(answer, place);
        }));
        Ok(LaneStream {
            stream,
            input: Some(to_lane),
            allowance: INITIAL_CREDIT,
            from_lane,
            current: None,
            credit: INITIAL_CREDIT,
            output,
            shared,
        })
    }

    /// Run something that needs no stream.
    pub fn run(&self, errand: Errand) -> Result<(), Failure> {
        let place = self.place()?;
        self.put(Box::new(move || {
            errand();
            drop(place);
        }));
        Ok(())
    }

    /// A place for one more request, and a lane for it.
    fn place(&self) -> Result<Place, Failure> {
        let mut queue = lock(&self.queue.0);
        if queue.open == REQUESTS {
            return Err(Failure::new(
                Code::Busy,
                format!("{REQUESTS} file operations are under way already"),
            ));
        }
        if queue.idle <= queue.errands.len() && queue.lanes < LANES {
            let shared = self.queue.clone();
            let spawned = std::thread::Builder::new()
                .name("lane".into())
                .stack_size(STACK)
                .spawn(move || live(&shared));
            spawned.map_err(|error| Failure::new(Code::Busy, format!("cannot start a lane: {error}")))?;
            queue.lanes += 1;
        }
        queue.open += 1;
        Ok(Place(self.queue.clone()))
    }

    fn put(&self, errand: Errand) {
        let (mutex, condition) = &*self.queue;
        lock(mutex).errands.push_back(errand);
        condition.notify_one();
    }

    /// Run something, ring when it is done.
    pub fn run_and_ring(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let bell = self.bell.clone();
        self.run(Box::new(move || {
            work();
            bell.ring();
        }))
    }

    /// As `run_and_ring`, for what has an answer.
    pub fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Reply<T>, Failure> {
        let (sender, receiver) = mpsc::channel();
        self.run_and_ring(move || {
            let _ = sender.send(work()); // whoever asked may be gone
        })?;
        Ok(Reply(receiver))
    }
}

/// The answer to `Lanes::ask`.
pub struct Reply<T>(Receiver<T>);

impl<T> Reply<T> {
    /// It, once it is there; it is given once.
    pub fn take(&self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// Nothing panics while holding the lock (and a panic ends the agent), so a poisoned one is as good.
fn lock(mutex: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn live(shared: &(Mutex<Queue>, Condvar)) {
    Pace::begin();
    let (mutex, condition) = shared;
    let mut queue = lock(mutex);
    loop {
        match queue.errands.pop_front() {
            Some(errand) => {
                drop(queue);
                errand();
                queue = lock(mutex);
            }
            None => {
                queue.idle += 1;
                queue = condition.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        }
    }
}

/// The lane's end: reads what the host sends, writes what goes to it. Errors of kind `ConnectionReset`: the host gave the stream up.
pub struct LaneIo {
    input: Receiver<Piece>,
    piece: Vec<u8>,
    offset: usize,
    ended: bool,
    output: Vec<u8>,
    sender: SyncSender<Output>,
    shared: Arc<Shared>,
    bell: Arc<Bell>,
}

impl LaneIo {
    /// The next piece of input as it came, without a copy; `None` at its end.
    pub fn next_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.offset < self.piece.len() {
            let rest = self.piece.split_off(self.offset);
            self.piece.clear();
            return Ok(Some(rest));
        }
        if self.ended {
            return Ok(None);
        }
        match self.input.recv() {
            Ok(Piece::Data(data)) => {
                self.consume(data.len());
                Ok(Some(data))
            }
            Ok(Piece::End) => {
                self.ended = true;
                Ok(None)
            }
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn consume(&mut self, length: usize) {
        let length = length as u32; // a piece is a frame
        let before = self.shared.consumed.fetch_add(length, Ordering::Relaxed);
        if before < GRANT && before + length >= GRANT {
            self.bell.ring();
        }
    }

    /// Send a whole piece, without a copy.
    pub fn send(&mut self, piece: Vec<u8>) -> io::Result<()> {
        self.flush()?;
        if piece.is_empty() {
            return Ok(());
        }
        self.emit(Output::Data(piece))
    }

    fn emit(&mut self, output: Output) -> io::Result<()> {
        self.sender.send(output).map_err(|_| io::ErrorKind::ConnectionReset)?;
        self.bell.ring();
        Ok(())
    }

    /// For work that moves no bytes for long.
    pub fn check(&self) -> Result<(), Failure> {
        match self.shared.given_up.load(Ordering::Relaxed) {
            true => Err(Failure::reset()),
            false => Ok(()),
        }
    }

    fn finish(mut self, answer: Answer, place: Place) {
        // If nobody listens any more, nobody is told.
        let _ = self.flush();
        drop(place); // whoever has the answer may ask for something else
        let _ = self.emit(Output::Answer(answer));
    }
}

impl Read for LaneIo {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.offset == self.piece.len() {
            let Some(piece) = self.next_piece()? else { return Ok(0) };
            self.piece = piece;
            self.offset = 0;
        }
        let length = target.len().min(self.piece.len() - self.offset);
        target[..length].copy_from_slice(&self.piece[self.offset..self.offset + length]);
        self.offset += length;
        Ok(length)
    }
}

impl Write for LaneIo {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.output.len() >= FRAME_LIMIT {
            self.flush()?;
        }
        let length = bytes.len().min(FRAME_LIMIT - self.output.len());
        self.output.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.output) {
            empty if empty.is_empty() => Ok(()),
            full => self.emit(Output::Data(full)),
        }
    }
}

/// The loop's end of a request that runs on a lane. Dropping it gives the request up.
pub struct LaneStream {
    stream: u32,
    input: Option<Sender<Piece>>,
    allowance: u32,
    from_lane: Receiver<Output>,
    current: Option<(Vec<u8>, usize)>,
    credit: u32,
    output: bool,
    shared: Arc<Shared>,
}

impl Drop for LaneStream {
    fn drop(&mut self) {
        self.shared.given_up.store(true, Ordering::Relaxed);
    }
}

impl LaneStream {
    pub fn grant(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes);
    }

    pub fn data(&mut self, data: Vec<u8>) -> Result<(), Violation> {
        spend(&mut self.allowance, data.len())?;
        match &self.input {
            // A lane that has ended takes nothing any more; its answer is on the way.
            Some(input) => {
                let _ = input.send(Piece::Data(data));
                Ok(())
            }
            None => Err(Violation("data after the end of a channel".into())),
        }
    }

    pub fn eof(&mut self) {
        if let Some(input) = &self.input {
            let _ = input.send(Piece::End);
        }
    }

    /// Move bytes as far as room and credit go. Returns whether the request is over.
    pub fn advance(&mut self, out: &mut Outbox) -> bool {
        let consumed = self.shared.consumed.load(Ordering::Relaxed);
        if consumed >= GRANT {
            self.shared.consumed.fetch_sub(consumed, Ordering::Relaxed);
            self.allowance += consumed;
            out.credit(self.stream, INPUT, consumed);
        }
        loop {
            if !self.send_current(out) {
                return false;
            }
            match self.from_lane.try_recv() {
                Ok(Output::Data(data)) => self.current = Some((data, 0)),
                Ok(Output::Answer(answer)) => {
                    self.report(answer, out);
                    return true;
                }
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => {
                    self.report(Err(Failure::reset()), out);
                    return true;
                }
            }
        }
    }

    /// Returns whether the piece at hand, if any, is all sent.
    fn send_current(&mut self, out: &mut Outbox) -> bool {
        while let Some((data, offset)) = &mut self.current {
            let length = (data.len() - *offset).min(self.credit as usize);
            if length == 0 || !out.has_room() {
                return false;
            }
            out.data(self.stream, OUTPUT, &data[*offset..*offset + length]);
            *offset += length;
            self.credit -= length as u32; // at most the credit
            if *offset == data.len() {
                self.current = None;
            }
        }
        true
    }

    fn report(&mut self, answer: Answer, out: &mut Outbox) {
        if self.output {
            out.eof(self.stream, OUTPUT);
        }
        out.message(self.stream, &answer.unwrap_or_else(Failure::into_message));
    }
}
