//! The packet buffer of the unit tests.

use std::rc::Rc;

use crate::PacketBuffer;

/// Bytes on the heap, charged like a slot of 2 KiB or what they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestBuffer(Rc<[u8]>);

impl TestBuffer {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl AsRef<[u8]> for TestBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PacketBuffer for TestBuffer {
    fn truesize(&self) -> usize {
        self.0.len().max(2048)
    }
}
