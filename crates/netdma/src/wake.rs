/// Why a receive takes no more bytes: what wakes its reader.
///
/// While a reader waits, bytes are copied to it as they come, and each of them is not worth a
/// wake-up. `tcp_dma_try_early_copy` had three rules for that, here the first three; the others are
/// `tcp_recvmsg`'s. Before the low-water mark is reached ([`RecvFlags::WAITALL`] makes it the whole
/// buffer) only those marked with † count.
///
/// [`RecvFlags::WAITALL`]: crate::RecvFlags::WAITALL
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeReason {
    /// The buffer is full: nothing more can be done for this reader. †
    BufferFull,
    /// The sender asked for prompt delivery (PSH), mostly because it has nothing more to send.
    Push,
    /// The socket holds more than half of its receive buffer. The reader is not as fast as the
    /// sender; it should begin while the window is still open.
    HalfFull,
    /// Nothing more is at hand. A sender that stops without PSH, which the original would have kept
    /// waiting for, and a call that found enough in the queue.
    Idle,
    /// The next byte is urgent. A read ends here, so that the program can see where it is. †
    UrgentMark,
    /// The stream is over: its end, an error, or a shutdown for reading. †
    StreamOver,
    /// The call gave up: it does not wait, its time is over, it was interrupted or cancelled. †
    Stopped,
}
