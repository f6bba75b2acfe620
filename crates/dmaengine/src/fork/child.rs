//! Forked children, of tests. One that hangs is a failure, not a test without an end.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions},
};

/// Longer than any child takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// A child that was forked, in its parent.
#[must_use = "a child that is not waited for may have found everything wrong"]
#[derive(Debug)]
pub(crate) struct Child(OwnedFd);

/// Forks: the parent gets a child to wait for, and the child gets `None`.
///
/// # Panics
///
/// If the system has no more processes, or no pidfds (Linux 5.3).
///
/// # Safety
///
/// The child does what the C library allows after its `fork`, and ends with [`exit`]. Other threads
/// of the parent may be in the middle of anything.
pub(crate) unsafe fn fork() -> Option<Child> {
    // SAFETY: by the caller's promise.
    match unsafe { libc::fork() } {
        0 => None,
        pid => {
            let pid = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
            let pid = pid.unwrap_or_else(|| panic!("fork: {}", io::Error::last_os_error()));
            let child = rustix::process::pidfd_open(pid, PidfdFlags::empty());
            Some(Child(child.expect("a child that nobody has waited for")))
        }
    }
}

/// Ends a child, running nothing of what a process runs at its end.
pub(crate) fn exit(is_right: bool) -> ! {
    // SAFETY: always.
    unsafe { libc::_exit(if is_right { RIGHT } else { WRONG }) }
}

/// Neither is what a process that has lost its way would end with.
const RIGHT: i32 = 71;
const WRONG: i32 = 72;

impl Child {
    /// Whether the child found everything right.
    ///
    /// # Panics
    ///
    /// If it hangs, and then it is killed, or ends in another way than by [`exit`].
    pub(crate) fn join(self) -> bool {
        let deadline = Timespec::try_from(DEADLINE).expect("half a minute");
        let ended =
            rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&deadline));
        let hangs = ended != Ok(1);
        if hangs {
            // It may end at this moment.
            let _ = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
        }
        let id = WaitId::PidFd(self.0.as_fd());
        let status = rustix::process::waitid(id, WaitIdOptions::EXITED).expect("our own child");
        assert!(!hangs, "the child hangs ({ended:?})");
        match status.and_then(|status| status.exit_status()) {
            Some(RIGHT) => true,
            Some(WRONG) => false,
            _ => panic!("the child died: {status:?}"),
        }
    }
}

/// Whether `body` is true in a forked child. It may do there what the C library allows after its
/// `fork`, and must leave alone what other threads may be in the middle of.
///
/// # Panics
///
/// As for [`Child::join`].
pub fn in_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child calls `body` and ends, without coming back to the caller. It unwinds to
    // nobody: a panic ends it.
    match unsafe { fork() } {
        Some(child) => child.join(),
        None => {
            let body = std::panic::AssertUnwindSafe(body);
            exit(std::panic::catch_unwind(body).unwrap_or(false))
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_child_tells_what_it_found() {
        assert!(in_child(|| true));
        assert!(!in_child(|| false));
        assert!(!in_child(|| std::panic::resume_unwind(Box::new(()))));
    }

    #[test]
    #[should_panic(expected = "the child died")]
    fn a_child_that_dies_has_found_nothing() {
        let _ = in_child(|| std::process::abort());
    }
}
