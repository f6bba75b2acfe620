//! What all threads of a soak share: the phase that it is in, and what went wrong first.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Before the first round.
    #[default]
    Start,
    /// Streams, faults and children.
    Running,
    /// Streams only.
    Recovering,
    /// The streams that begin now stand still before their end.
    Settling { last: bool },
    /// The last ones end too.
    Over,
}

/// What a stream that begins now has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It ends, and another follows.
    Free,
    /// It stands still before its end until [`Control::hold`] returns; then another follows.
    Holds,
    /// As `Holds`, and none follows.
    Last,
}

#[derive(Debug, Default)]
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    received: AtomicU64,
    wrong: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Streams that stand still, and have been read.
    settled: usize,
    failure: Option<String>,
}

impl Control {
    /// A thread that is part of the soak: if it panics, that has failed.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let (control, own_name) = (Arc::clone(self), name.to_owned());
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(body)).is_err() {
                control.fail(format!("a thread named {own_name} panicked: see above"));
            }
        })
    }

    pub(super) fn resume(&self) {
        self.enter(Phase::Running);
    }

    pub(super) fn recover(&self) {
        self.enter(Phase::Recovering);
    }

    pub(super) fn settle(&self, last: bool) {
        self.enter(Phase::Settling { last });
    }

    pub(super) fn end(&self) {
        self.enter(Phase::Over);
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = phase;
        if !matches!(phase, Phase::Settling { .. }) {
            state.settled = 0;
        }
        self.changed.notify_all();
    }

    pub(super) fn course(&self) -> Course {
        match self.lock().phase {
            Phase::Settling { last: false } => Course::Holds,
            Phase::Settling { last: true } | Phase::Over => Course::Last,
            Phase::Start | Phase::Running | Phase::Recovering => Course::Free,
        }
    }

    /// A reader has all of a stream that stands still.
    pub(super) fn count_settled(&self) {
        self.lock().settled += 1;
    }

    pub(super) fn settled(&self) -> usize {
        self.lock().settled
    }

    /// Waits until streams that stand still go on.
    pub(super) fn hold(&self) {
        let mut state = self.lock();
        while matches!(state.phase, Phase::Settling { .. }) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for `interval` of running; `false` once the soak is over.
    pub(super) fn pause(&self, interval: Duration) -> bool {
        let mut state = self.lock();
        let mut left = interval;
        loop {
            match state.phase {
                Phase::Over => return false,
                Phase::Running if left.is_zero() => return true,
                Phase::Running => {
                    let since = Instant::now();
                    let waited = self.changed.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    left = left.saturating_sub(since.elapsed());
                }
                Phase::Start | Phase::Recovering | Phase::Settling { .. } => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Something went wrong. What went wrong first is told.
    pub(super) fn fail(&self, message: String) {
        self.lock().failure.get_or_insert(message);
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.lock().failure.clone().map_or(Ok(()), Err)
    }

    pub(super) fn count_received(&self, bytes: usize) {
        // Relaxed, here and below: counters order nothing.
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn count_wrong(&self, bytes: usize) {
        self.wrong.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn wrong_bytes(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is valid whoever panicked under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
