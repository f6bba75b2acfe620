//! Forked children.

use std::io;

/// A child that hangs is ended by the system after so many seconds.
const DEADLINE_S: u32 = 30;

/// A child, in its parent.
#[derive(Debug)]
#[must_use = "a child that is not waited for stays"]
pub(super) struct Child(libc::pid_t);

/// Forks. The child runs `body` and ends, with 0 if that is true.
///
/// # Safety
///
/// Other threads may be in the middle of anything, with locks that nobody will release in the child.
/// So `body` reads memory that no other thread writes at this moment, computes, and does nothing
/// else: it takes no lock and allocates nothing.
pub(super) unsafe fn fork(body: impl FnOnce() -> bool) -> io::Result<Child> {
    // SAFETY: by the caller's promise the child does what a signal handler may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: sets a timer; SIGALRM ends this process.
            unsafe { libc::alarm(DEADLINE_S) };
            let status = i32::from(!body());
            // SAFETY: ends the process, and runs nothing.
            unsafe { libc::_exit(status) }
        }
        child => Ok(Child(child)),
    }
}

/// Lets others run, the parent's threads for example.
pub(super) fn give_way() {
    // SAFETY: always.
    unsafe { libc::sched_yield() };
}

impl Child {
    /// Waits for its end. Returns whether it found everything right.
    ///
    /// # Errors
    ///
    /// How it died, if it did not come to its end.
    pub(super) fn wait(self) -> Result<bool, String> {
        let mut status = 0;
        loop {
            // SAFETY: our own child, which was not waited for; writes a local variable.
            if unsafe { libc::waitpid(self.0, &raw mut status, 0) } == self.0 {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(format!("waiting for a child: {error}"));
            }
        }
        if libc::WIFSIGNALED(status) {
            return Err(format!("a child was killed by signal {}", libc::WTERMSIG(status)));
        }
        Ok(libc::WEXITSTATUS(status) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_tells_what_it_found() {
        for found in [true, false] {
            // SAFETY: the child does nothing.
            let child = unsafe { fork(|| found) }.unwrap();
            assert_eq!(child.wait(), Ok(found));
        }
        // SAFETY: the child ends itself.
        let child = unsafe { fork(|| libc::raise(libc::SIGKILL) == 0) }.unwrap();
        assert_eq!(child.wait(), Err("a child was killed by signal 9".to_owned()));
    }
}
