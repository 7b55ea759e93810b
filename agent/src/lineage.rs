//! Who started whom: the tasks of a machine that descend from what the host asked for, each with the key of its random numbers.
//!
//! The kernel's process events (connector `cn_proc`) tell it. A birth is told before the new task runs, and into a queue of ours, so
//! whoever reads that queue to its end knows every task that can ask for anything.

use std::collections::{HashMap, HashSet};

use crate::seed::{Branch, Key};

/// Header of netlink and of the connector, before the event.
pub const HEADERS: usize = 16 + 20;
pub const FORK: u32 = 1;
pub const EXEC: u32 = 2;
pub const EXIT: u32 = 0x8000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `task` is `process` for the first of a process; its `parent` is then the task that made it.
    Birth {
        parent: i32,
        task: i32,
        process: i32,
    },
    Program {
        process: i32,
    },
    Exit {
        task: i32,
        process: i32,
    },
}

impl Event {
    /// What one message of the connector says, if that is of interest.
    pub fn parse(message: &[u8]) -> Option<Self> {
        // struct proc_event: what, processor, time, and then what depends on the first.
        let event = message.get(HEADERS..)?;
        let word =
            |index: usize| Some(u32::from_ne_bytes(event.get(index * 4..index * 4 + 4)?.try_into().ok()?));
        let number = |index: usize| word(4 + index).map(|word| word as i32);
        match word(0)? {
            FORK => Some(Self::Birth { parent: number(0)?, task: number(2)?, process: number(3)? }),
            EXEC => Some(Self::Program { process: number(1)? }),
            EXIT => Some(Self::Exit { task: number(0)?, process: number(1)? }),
            _ => None,
        }
    }
}

struct Task {
    key: Key,
    children: u64,
    calls: u64,
    opens: u64,
}

impl Task {
    fn new(key: Key) -> Self {
        Self { key, children: 0, calls: 0, opens: 0 }
    }
}

struct Process {
    key: Key,
    threads: u64,
    tasks: HashSet<i32>,
}

pub struct Lineage {
    root: Key,
    /// Our own number: what we start is what the host asked for.
    us: i32,
    execs: u64,
    strays: u64,
    /// We are about to start a process.
    expecting: bool,
    tasks: HashMap<i32, Task>,
    processes: HashMap<i32, Process>,
}

impl Lineage {
    pub fn new(root: Key, us: i32) -> Self {
        Self {
            root,
            us,
            execs: 0,
            strays: 0,
            expecting: false,
            tasks: HashMap::new(),
            processes: HashMap::new(),
        }
    }

    /// From now on, until it is told otherwise, a process that we start is one of the host's.
    pub fn expect(&mut self, expecting: bool) {
        self.expecting = expecting;
    }

    pub fn observe(&mut self, event: Event) {
        match event {
            Event::Birth { parent, task, process } if task == process => self.process_born(parent, process),
            Event::Birth { task, process, .. } => self.thread_born(task, process),
            Event::Program { process } => self.executed(process),
            Event::Exit { task, process } => self.exited(task, process),
        }
    }

    fn process_born(&mut self, parent: i32, process: i32) {
        let key = match self.tasks.get_mut(&parent) {
            Some(task) => task.key.branch(Branch::Process, next(&mut task.children)),
            None if parent == self.us && self.expecting => {
                self.root.branch(Branch::Exec, next(&mut self.execs))
            }
            None => return, // the kernel's own, or of before the seed
        };
        self.processes.insert(process, Process { key, threads: 0, tasks: HashSet::from([process]) });
        self.tasks.insert(process, Task::new(key));
    }

    /// The kernel names the parent of the whole process as that of a thread, so a thread is counted by its process.
    fn thread_born(&mut self, task: i32, process: i32) {
        if let Some(of) = self.processes.get_mut(&process) {
            let key = of.key.branch(Branch::Thread, next(&mut of.threads));
            of.tasks.insert(task);
            self.tasks.insert(task, Task::new(key));
        }
    }

    /// All other tasks of the process are gone, and where a thread of it has executed, that one has the number of the first.
    fn executed(&mut self, process: i32) {
        let Some(of) = self.processes.get_mut(&process) else { return };
        for task in std::mem::replace(&mut of.tasks, HashSet::from([process])) {
            if task != process {
                self.tasks.remove(&task);
            }
        }
        let key = of.key;
        let threads = &mut of.threads;
        self.tasks.entry(process).or_insert_with(|| Task::new(key.branch(Branch::Successor, next(threads))));
    }

    fn exited(&mut self, task: i32, process: i32) {
        self.tasks.remove(&task);
        if let Some(of) = self.processes.get_mut(&process) {
            of.tasks.remove(&task);
            if of.tasks.is_empty() {
                self.processes.remove(&process);
            }
        }
    }

    /// The key of the next call of `getrandom` of this task.
    pub fn call(&mut self, task: i32) -> Key {
        match self.tasks.get_mut(&task) {
            Some(of) => of.key.branch(Branch::Call, next(&mut of.calls)),
            None => self.stray(),
        }
    }

    /// The key of the next device that this task opens.
    pub fn open(&mut self, task: i32) -> Key {
        match self.tasks.get_mut(&task) {
            Some(of) => of.key.branch(Branch::Open, next(&mut of.opens)),
            None => self.stray(),
        }
    }

    /// Of one that no event told of: what is started past the agent.
    fn stray(&mut self) -> Key {
        self.root.branch(Branch::Stray, next(&mut self.strays))
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.processes.is_empty()
    }

    #[cfg(test)]
    fn knows(&self, task: i32) -> bool {
        self.tasks.contains_key(&task)
    }
}

/// What it is, and count on.
fn next(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: i32 = 1;

    fn lineage() -> Lineage {
        Lineage::new(Key::of_seed(b"seed"), US)
    }

    fn born(lineage: &mut Lineage, parent: i32, process: i32) {
        lineage.observe(Event::Birth { parent, task: process, process });
    }

    fn with_exec(process: i32) -> Lineage {
        let mut lineage = lineage();
        lineage.expect(true);
        born(&mut lineage, US, process);
        lineage.expect(false);
        lineage
    }

    #[test]
    fn who_asks_first_makes_no_difference() {
        let (mut one, mut two) = (with_exec(100), with_exec(7));
        for (lineage, shell, first, second) in [(&mut one, 100, 101, 102), (&mut two, 7, 9, 8)] {
            born(lineage, shell, first);
            born(lineage, shell, second);
        }
        let (first, second) = (one.call(101), one.call(102));
        let (second_too, first_too) = (two.call(8), two.call(9));
        assert!((first, second) == (first_too, second_too) && first != second);
        assert_ne!(one.call(101), first);
        assert_ne!(one.open(101), two.call(9));
    }

    #[test]
    fn what_is_started_past_us_is_nobodys() {
        let mut lineage = lineage();
        born(&mut lineage, US, 50);
        born(&mut lineage, 2, 51);
        lineage.observe(Event::Birth { parent: US, task: 52, process: US });
        assert!(lineage.is_empty());
        assert_ne!(lineage.call(50), lineage.call(50));
    }

    #[test]
    fn threads_are_counted_by_their_process() {
        let mut lineage = with_exec(10);
        lineage.observe(Event::Birth { parent: US, task: 11, process: 10 });
        lineage.observe(Event::Birth { parent: US, task: 12, process: 10 });
        assert!(lineage.knows(12));
        assert_ne!(lineage.call(11), lineage.call(12));
        lineage.observe(Event::Exit { task: 11, process: 10 });
        assert!(lineage.knows(10) && !lineage.knows(11));
    }

    #[test]
    fn a_thread_that_executes_takes_its_process_over() {
        let mut lineage = with_exec(10);
        lineage.observe(Event::Birth { parent: US, task: 11, process: 10 });
        lineage.observe(Event::Exit { task: 10, process: 10 });
        lineage.observe(Event::Program { process: 10 });
        assert!(lineage.knows(10) && !lineage.knows(11));
        lineage.observe(Event::Exit { task: 10, process: 10 });
        assert!(lineage.is_empty());
    }

    #[test]
    fn a_program_keeps_the_key_of_its_process() {
        let (mut one, mut two) = (with_exec(10), with_exec(10));
        one.call(10);
        two.call(10);
        one.observe(Event::Program { process: 10 });
        assert_eq!(one.call(10), two.call(10));
    }

    #[test]
    fn numbers_that_come_again_are_others() {
        let mut lineage = with_exec(10);
        born(&mut lineage, 10, 11);
        let first = lineage.call(11);
        lineage.observe(Event::Exit { task: 11, process: 11 });
        born(&mut lineage, 10, 11);
        assert_ne!(lineage.call(11), first);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let message = |what: u32, words: &[u32]| {
            let mut raw = vec![0; HEADERS];
            let head = [what, 1, 0x1234, 0];
            raw.extend(head.iter().chain(words).flat_map(|word| word.to_ne_bytes()));
            raw
        };
        assert_eq!(
            Event::parse(&message(FORK, &[10, 9, 12, 11])),
            Some(Event::Birth { parent: 10, task: 12, process: 11 })
        );
        assert_eq!(Event::parse(&message(EXEC, &[5, 5])), Some(Event::Program { process: 5 }));
        assert_eq!(Event::parse(&message(EXIT, &[6, 5, 0, 0])), Some(Event::Exit { task: 6, process: 5 }));
        assert_eq!(Event::parse(&message(4, &[6, 5])), None);
        assert_eq!(Event::parse(&message(FORK, &[10])), None);
        assert_eq!(Event::parse(&[0; 20]), None);
    }
}
