/// The packet memory that all sockets hold together: Linux's `tcp_mem`, for what is received.
///
/// It is shared out as a switch shares its buffer, by dynamic thresholds (Choudhury and Hahne,
/// 1998): a socket may hold as much as is still free. So what `n` sockets leave unread ends at an
/// `n + 1`th part for each, and one part remains for connections that are read.
#[derive(Debug)]
pub(crate) struct ReceiveMemory {
    /// Bytes of truesize.
    limit: usize,
    /// The sum of what the sockets are charged with, in bytes of truesize.
    charged: usize,
}

impl ReceiveMemory {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, charged: 0 }
    }

    pub(crate) const fn charged(&self) -> usize {
        self.charged
    }

    pub(crate) const fn free(&self) -> usize {
        self.limit.saturating_sub(self.charged)
    }

    /// A socket that was `accounted` for is charged with `charged` bytes now.
    pub(crate) const fn account(&mut self, accounted: &mut usize, charged: usize) {
        self.charged = self.charged - *accounted + charged;
        *accounted = charged;
    }
}
