bitflags::bitflags! {
    /// How a receive call behaves: the flags of `recv(2)`, with Linux's values.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RecvFlags: u32 {
        /// Give the urgent byte, out of band. Never waits.
        const OOB = 0x01;
        /// Give bytes and leave them in the receive queue. Never offloaded: the program looks at them
        /// at once, and will copy them again.
        const PEEK = 0x02;
        /// Consume bytes without giving them: the buffer is not written, its length alone counts.
        const TRUNC = 0x20;
        /// Do not wait, whatever the socket's mode.
        const DONTWAIT = 0x40;
        /// Wait until the buffer is full: the low-water mark is its length. An end, an error, an
        /// interruption, a timeout or the urgent mark ends the call all the same, with what it has.
        const WAITALL = 0x100;
    }
}
