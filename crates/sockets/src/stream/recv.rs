//! Receiving: what Linux's `recv(2)` does with its flags, and the waiting that `netdma` leaves out.

use std::io;

use dmaengine::lend;
use netdma::{Conditions, Destination, ReceiveId, RecvFlags, Request, Verdict};
use netstack::{Instant, SocketId};

use super::TcpStream;
use crate::{
    core::Key,
    driver::Call,
    errno::{self, Errno},
};

impl TcpStream {
    /// Receives into `buffer`, as [`flags`](RecvFlags) say, and returns how many bytes: 0 at the end
    /// of the stream.
    ///
    /// Without [`RecvFlags::WAITALL`] it returns when there are as many bytes as the
    /// [low-water mark](Self::set_rcvlowat) says, and it would sooner go on than wait for more: when
    /// `buffer` is full, the sender has pushed, the receive buffer is half full, or nothing more is
    /// at hand. A read also ends before an urgent byte. It returns only when no copy into `buffer`
    /// is in flight.
    ///
    /// As in Linux, a call with an empty buffer waits for something to read; reading through
    /// [`Read`](io::Read) does not.
    ///
    /// # Errors
    ///
    /// The error numbers are Linux's: `EAGAIN` (`WouldBlock`) if there is nothing and the call must
    /// not wait, or not any longer; `EINTR` (`Interrupted`) if the thread's
    /// [`Interrupter`](crate::Interrupter) said so; `EINVAL` if there is no urgent byte; the
    /// connection's error, once. What was received before an error is returned first.
    pub fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        if flags.contains(RecvFlags::OOB) {
            self.receive_urgent(buffer, flags)
        } else if flags.contains(RecvFlags::PEEK) {
            self.peek_with(buffer, flags)
        } else if flags.contains(RecvFlags::TRUNC) {
            self.receive(Destination::Nowhere(buffer.len()), flags)
        } else {
            lend(buffer, |target| self.receive(target.into(), flags))
        }
    }

    /// Gives bytes and leaves them to be read ([`RecvFlags::PEEK`]).
    ///
    /// # Errors
    ///
    /// As for [`recv`](Self::recv).
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv(buffer, RecvFlags::PEEK)
    }

    /// Receives the urgent byte ([`RecvFlags::OOB`]). Never waits.
    ///
    /// # Errors
    ///
    /// `EINVAL` (`InvalidInput`) if none has come or it was read already, `EAGAIN` (`WouldBlock`) if
    /// it is under way.
    pub fn recv_out_of_band(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv(buffer, RecvFlags::OOB)
    }

    /// Whether the next byte to read is the urgent one, or was, as it is left out (`sockatmark(3)`,
    /// `SIOCATMARK`).
    #[must_use]
    pub fn at_mark(&self) -> bool {
        self.stack.call().core().stack.is_at_mark(self.id)
    }

    /// How many bytes can be read without waiting, up to an urgent byte (`FIONREAD`, `SIOCINQ`).
    #[must_use]
    pub fn available(&self) -> usize {
        let mut call = self.stack.call();
        call.turn();
        call.core().stack.bytes_to_mark(self.id)
    }

    fn receive_urgent(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let mut call = self.stack.call();
        call.turn();
        let peek = flags.contains(RecvFlags::PEEK);
        let byte = call.core().stack.receive_urgent(self.id, peek).map_err(errno::of_urgent)?;
        Ok(match (byte, buffer.first_mut()) {
            (Some(byte), Some(place)) => {
                if !flags.contains(RecvFlags::TRUNC) {
                    *place = byte;
                }
                1
            }
            _ => 0,
        })
    }

    fn peek_with(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let (mut call, mut waiting) = self.begin_receive(flags)?;
        let request = self.request(&mut call, flags, waiting.may_wait);
        loop {
            let conditions = waiting.conditions(&mut call);
            match call.core().peek(self.id, buffer, request, conditions) {
                Verdict::Return(len) => return Ok(len),
                Verdict::Fail(error) => {
                    return Err(errno::of_recv(error, call.core().check_link()));
                }
                Verdict::Copying | Verdict::Wait => waiting.wait(&mut call, self.id),
            }
        }
    }

    /// Receives into `destination`. Returns only when no piece of it is out, or the engine is lost.
    fn receive(&self, destination: Destination, flags: RecvFlags) -> io::Result<usize> {
        let (mut call, mut waiting) = self.begin_receive(flags)?;
        let request = self.request(&mut call, flags, waiting.may_wait);
        let mut receive = Posted::new(call, self.id, destination, request);
        loop {
            let Posted { call, id, .. } = &mut receive;
            let conditions = waiting.conditions(call);
            match call.core().check(*id, conditions) {
                Verdict::Return(len) => return Ok(len),
                Verdict::Fail(error) => {
                    return Err(errno::of_recv(error, call.core().check_link()));
                }
                Verdict::Copying if call.core().offload.is_engine_lost() => {
                    return Err(io::Error::other("the copy engine cannot be stopped"));
                }
                Verdict::Copying => call.wait_for_copies(Key::Socket(self.id)),
                Verdict::Wait => waiting.wait(call, self.id),
            }
        }
    }

    fn begin_receive(&self, flags: RecvFlags) -> io::Result<(Call<'_>, Waiting)> {
        let mut call = self.stack.call();
        let may_wait = !flags.contains(RecvFlags::DONTWAIT) && !self.settings.is_nonblocking();
        if !may_wait && call.core().stack.receive_available(self.id) == 0 {
            // What the program does not wait for may be at hand.
            call.turn();
        }
        // Before the call reads past it, the handler of SIGURG gets the urgent byte.
        if call.core().stack.is_at_mark(self.id) && call.take_interruption() {
            return Err(if may_wait { Errno::INTR } else { Errno::AGAIN }.into());
        }
        let timeout = self.settings.read_timeout.get();
        let deadline = timeout.filter(|_| may_wait).map(|timeout| call.now() + timeout);
        Ok((call, Waiting { may_wait, deadline, interrupted: false }))
    }

    fn request(&self, call: &mut Call<'_>, flags: RecvFlags, may_wait: bool) -> Request {
        let low_water = call.core().stack.low_water(self.id);
        let waiting = if may_wait { netdma::Waiting::ForMore } else { netdma::Waiting::Never };
        Request { flags, low_water, copybreak: self.tcp_dma_copybreak(), waiting }
    }
}

/// How long a call waits.
struct Waiting {
    may_wait: bool,
    deadline: Option<Instant>,
    interrupted: bool,
}

impl Waiting {
    fn conditions(&self, call: &mut Call<'_>) -> Conditions {
        let may_wait = self.may_wait
            && self.deadline.is_none_or(|deadline| deadline > call.now())
            && call.core().check_link().is_ok();
        Conditions { may_wait, interrupted: self.interrupted }
    }

    /// Waits until something happened to `socket`, or the call is interrupted.
    fn wait(&mut self, call: &mut Call<'_>, socket: SocketId) {
        self.interrupted = call.take_interruption();
        if !self.interrupted {
            call.wait(Key::Socket(socket), self.deadline);
        }
    }
}

/// A receive call whose buffer is posted. Dropping it waits for the copies into the buffer, also
/// when the call unwinds.
struct Posted<'a> {
    call: Call<'a>,
    socket: SocketId,
    id: ReceiveId,
}

impl<'a> Posted<'a> {
    fn new(
        mut call: Call<'a>,
        socket: SocketId,
        destination: Destination,
        request: Request,
    ) -> Self {
        let now = call.now();
        let id = call.core().post(now, socket, destination, request);
        Self { call, socket, id }
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        while self.call.core().offload.withdraw(self.id).is_err() {
            if self.call.core().offload.is_engine_lost() {
                // Pieces of the buffer are out for good: `lend` ends the process.
                return;
            }
            self.call.wait_for_copies(Key::Socket(self.socket));
        }
        // The window may have opened.
        let now = self.call.now();
        self.call.core().transmit(now);
    }
}
