//! The processor time of threads, also of those that have ended.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The processor time of the threads that ran on one channel, one after the other.
#[derive(Debug, Default)]
pub(super) struct CpuTime(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of threads that have ended.
    past: Duration,
    /// The clock of the thread that runs. It is cleared before the thread ends, under the lock.
    clock: Option<libc::clockid_t>,
}

impl CpuTime {
    /// Counts the calling thread's time from now until the result is dropped. Under Miri, which has
    /// no clocks of threads, there is none.
    pub(super) fn enter(&self) -> impl Drop + '_ {
        struct Entered<'a>(&'a CpuTime);

        impl Drop for Entered<'_> {
            fn drop(&mut self) {
                let mut state = self.0.lock();
                if !cfg!(miri) {
                    state.past += to_duration(clock_gettime(ClockId::ThreadCPUTime));
                }
                state.clock = None;
            }
        }

        let mut clock = 0;
        let has_clock = !cfg!(miri)
            // SAFETY: the calling thread is alive, and the result goes to a local variable.
            && unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) } == 0;
        self.lock().clock = has_clock.then_some(clock);
        Entered(self)
    }

    /// The time so far.
    pub(super) fn get(&self) -> Duration {
        let state = self.lock();
        let now = state.clock.map_or(Duration::ZERO, |clock| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: writes a local variable. The thread is alive: it clears `clock` under the
            // lock that we hold.
            let error = unsafe { libc::clock_gettime(clock, &raw mut time) };
            debug_assert_eq!(error, 0, "the clock of a thread that is alive");
            Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
        });
        state.past + now
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Valid in every state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_duration(time: rustix::time::Timespec) -> Duration {
    // A thread's processor time is never negative.
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "no clocks of threads")]
    fn counts_a_running_and_an_ended_thread() {
        let time = CpuTime::default();
        let busy = || {
            let start = time.get();
            while time.get() < start + Duration::from_millis(5) {
                std::hint::spin_loop();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _entered = time.enter();
                busy();
            });
        });
        let after_first = time.get();
        assert!(after_first >= Duration::from_millis(5));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _entered = time.enter();
                busy();
            });
        });
        assert!(time.get() >= after_first + Duration::from_millis(5));
    }
}
