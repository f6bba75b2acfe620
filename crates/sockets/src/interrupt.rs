use std::{fmt, sync::Arc};

use crate::{Stack, core::Waiter, driver::current_waiter};

/// Interrupts the calls that one thread makes on a stack, as a signal would: what
/// [`Stack::interrupter`] gives.
///
/// A call that waits, or the next one that would, ends: a receive call with the bytes that it has,
/// any other, or a receive call that has none, with `Interrupted` (`EINTR`). Copies in flight are
/// waited for all the same. Calls that find what they want do not notice. One request ends one call.
///
/// ```no_run
/// # let stack: sockets::Stack = unimplemented!();
/// use std::io::{ErrorKind, Read};
///
/// let (tell, told) = std::sync::mpsc::channel();
/// let reader = std::thread::spawn({
///     let mut stream: sockets::TcpStream = unimplemented!();
///     move || {
///         tell.send(stack.interrupter()).unwrap();
///         let error = stream.read(&mut [0; 100]).unwrap_err();
///         assert_eq!(error.kind(), ErrorKind::Interrupted);
///     }
/// });
/// told.recv()?.interrupt();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Interrupter {
    stack: Stack,
    waiter: Arc<Waiter>,
}

impl Interrupter {
    /// For the calls of the calling thread.
    pub(crate) fn new(stack: &Stack) -> Self {
        Self { stack: stack.clone(), waiter: current_waiter() }
    }

    /// Interrupts a call. It takes no lock and allocates nothing, so a signal handler may do it.
    pub fn interrupt(&self) {
        self.waiter.interrupt();
        self.stack.shared().on_interruption();
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupter").finish_non_exhaustive()
    }
}
