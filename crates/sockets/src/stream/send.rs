//! Sending.

use std::io;

use netstack::SendError;

use super::TcpStream;
use crate::{
    core::Key,
    errno::{self, Errno},
};

bitflags::bitflags! {
    /// How a send call behaves: the flags of `send(2)`, with Linux's values.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SendFlags: u32 {
        /// The last byte is urgent: the peer can read it out of band.
        const OOB = 0x01;
        /// Do not wait for room, whatever the socket's mode.
        const DONTWAIT = 0x40;
    }
}

impl TcpStream {
    /// Sends as many of `bytes` as there is room for, and waits until there is room for some.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room and the call must not wait, or not any longer; `BrokenPipe`
    /// after a shutdown for sending; `Interrupted` if the thread's
    /// [`Interrupter`](crate::Interrupter) said so; the connection's error, once.
    pub fn send(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut call = self.stack.call();
        let deadline = self.settings.write_timeout.deadline(call.now());
        let nonblocking = flags.contains(SendFlags::DONTWAIT) || self.settings.is_nonblocking();
        let mut tried_again = false;
        loop {
            let now = call.now();
            let stack = &mut call.core().stack;
            let sent = match flags.contains(SendFlags::OOB) {
                true => stack.send_urgent(now, self.id, bytes),
                false => stack.send(now, self.id, bytes),
            };
            match sent {
                Ok(taken) => {
                    call.core().transmit(now);
                    return Ok(taken);
                }
                Err(SendError::WouldBlock) => {}
                Err(SendError::ShutDown) => return Err(Errno::PIPE.into()),
                Err(SendError::Connection(error)) => return Err(errno::of_connection(error).into()),
            }
            call.core().check_link()?;
            if nonblocking && !tried_again {
                // Acknowledgments may have arrived that nobody has looked at.
                tried_again = true;
                call.turn();
                continue;
            }
            if nonblocking || deadline.is_some_and(|deadline| deadline <= now) {
                return Err(Errno::AGAIN.into());
            }
            if call.take_interruption() {
                return Err(Errno::INTR.into());
            }
            call.wait(Key::Socket(self.id), deadline);
        }
    }

    /// As [`send`](Self::send), and the last byte is urgent ([`SendFlags::OOB`]).
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn send_out_of_band(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes, SendFlags::OOB)
    }
}
