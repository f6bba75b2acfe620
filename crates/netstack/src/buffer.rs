use std::ops::Range;

use crate::Charge;

/// A received frame. Clones share the memory, so cloning is cheap.
pub trait PacketBuffer: AsRef<[u8]> + Clone {
    /// The memory that the buffer holds, in bytes, whatever part of it is payload: what Linux calls
    /// an skb's truesize. The receive buffer of a socket is charged with it.
    fn truesize(&self) -> usize;
}

/// Bytes of a stream, in order, still in the frame they came in.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment<B> {
    /// The frame.
    pub buffer: B,
    /// Where in it the bytes are.
    pub range: Range<usize>,
    /// The sender asked for prompt delivery after the last of these bytes (PSH), or they are the
    /// last of the stream.
    pub push: bool,
    /// What to give to [`crate::Stack::release`] once the bytes are no longer needed.
    pub charge: Charge,
}

impl<B: AsRef<[u8]>> Segment<B> {
    /// The bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.buffer.as_ref().get(self.range.clone()).unwrap_or_default()
    }
}
