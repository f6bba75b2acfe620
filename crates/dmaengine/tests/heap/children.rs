//! Forked children that wait for their parent.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    process::abort,
};

/// Says which check of a child failed.
pub(crate) fn check(right: bool, what: &'static str) -> Result<(), &'static str> {
    if right { Ok(()) } else { Err(what) }
}

/// A child that was forked, in its parent.
pub(crate) struct Child {
    pid: libc::pid_t,
    reached: PipeReader,
    open: Option<PipeWriter>,
}

/// Where the child waits, in the child.
pub(crate) struct Gate {
    reached: Option<PipeWriter>,
    open: PipeReader,
}

impl Gate {
    /// Tells the parent that it is here, and waits until it may go on.
    pub(crate) fn pass(&mut self) {
        drop(self.reached.take());
        // It ends with the parent, too.
        if self.open.read(&mut [0]).is_err() {
            abort();
        }
    }
}

impl Child {
    /// Forks a child that does `body` and ends.
    pub(crate) fn fork(body: impl FnOnce(&mut Gate) -> Result<(), &'static str>) -> Self {
        let (reached, reached_by_child) = io::pipe().expect("files");
        let (open_in_child, open) = io::pipe().expect("files");
        // SAFETY: the child runs `body` and ends. It allocates, which the C library allows after its
        // own `fork`, and our heap, which is what is tested.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => {
                drop((reached, open));
                // SAFETY: sets a timer that ends the process, should it hang.
                unsafe { libc::alarm(60) };
                let mut gate = Gate { reached: Some(reached_by_child), open: open_in_child };
                let code = match body(&mut gate) {
                    Ok(()) => 0,
                    Err(what) => {
                        eprintln!("in the child: {what}");
                        1
                    }
                };
                // SAFETY: ends the process, running nothing.
                unsafe { libc::_exit(code) }
            }
            pid => Self { pid, reached, open: Some(open) },
        }
    }

    /// Waits until the child is at its gate, or has ended.
    pub(crate) fn wait_for_gate(&mut self) {
        let read = self.reached.read(&mut [0]).expect("a pipe");
        assert_eq!(read, 0, "nobody writes");
    }

    /// Lets the child pass.
    pub(crate) fn open_gate(&mut self) {
        // It may have died; `join` tells.
        let _ = self.open.take().map(|mut open| open.write_all(&[0]));
    }

    /// Waits for the child's end.
    ///
    /// # Panics
    ///
    /// If a check of it failed, or it died.
    pub(crate) fn join(self) {
        let mut status = 0;
        // SAFETY: writes a local variable.
        assert_eq!(unsafe { libc::waitpid(self.pid, &raw mut status, 0) }, self.pid);
        assert!(!libc::WIFSIGNALED(status), "killed by {}", libc::WTERMSIG(status));
        assert_eq!(libc::WEXITSTATUS(status), 0, "the child found something wrong");
    }
}
