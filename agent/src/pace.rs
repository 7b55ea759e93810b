//! How the agent takes the processor from what runs in the machine. Woken for every piece that a program writes, it would interrupt the program
//! each time, and two switches of address space cost more than the piece. While a program floods, the agent waits instead until the program
//! stops by itself, its pipe full, or its turn is over: then there is more to move at once. What is moved is bounded by credit as ever.

/// Of the event loop's thread. Processes inherit it: it hurries again before one is started. A lane is told by itself.
#[derive(Default)]
pub struct Pace {
    patient: bool,
}

impl Pace {
    /// For a thread that has just begun, and may have been started by one that waits for its turn.
    pub fn begin() {
        Self { patient: true }.hurry();
    }

    /// A program floods: do not interrupt it.
    pub fn wait_for_turn(&mut self) {
        self.set(true);
    }

    /// Somebody may be waiting for an answer: run as soon as there is something to do.
    pub fn hurry(&mut self) {
        self.set(false);
    }

    fn set(&mut self, patient: bool) {
        if self.patient == patient {
            return;
        }
        let policy = if patient { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: reads a complete structure of ours; the thread is this one. Where it fails everything works, some of it slower.
        unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
        self.patient = patient;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: asks for a number, of this thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_thread_that_hurries_starts_others_that_hurry() {
        let mut pace = Pace::default();
        pace.wait_for_turn();
        assert_eq!(policy(), libc::SCHED_BATCH);
        pace.hurry();
        assert_eq!(policy(), libc::SCHED_OTHER);
        let inherited = std::thread::spawn(policy).join().expect("a thread that ends");
        assert_eq!(inherited, libc::SCHED_OTHER);
    }

    #[test]
    fn a_thread_that_begins_inherits_no_patience() {
        let mut pace = Pace::default();
        pace.wait_for_turn();
        let begun = std::thread::spawn(|| {
            let inherited = policy();
            Pace::begin();
            (inherited, policy())
        });
        assert_eq!(begun.join().expect("a thread that ends"), (libc::SCHED_BATCH, libc::SCHED_OTHER));
        pace.hurry();
    }
}
