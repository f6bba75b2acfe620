use super::{
    Suite,
    client::Client,
    memory::Block,
    samples::{Samples, declared},
};
use crate::{Capabilities, DmaChannel, Flags, Operation, OperationKind, SubmitError};

impl Suite<'_> {
    /// An operation behind a fence sees everything that was submitted before it: results that it
    /// reads, sources that it overwrites, targets that it writes once more; behind one and behind
    /// several, in the same batch and in the next.
    ///
    /// A channel without [`FENCE`](Capabilities::FENCE) must refuse it.
    pub fn fences(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        if !client.info().capabilities.contains(Capabilities::FENCE) {
            for kind in declared(&client) {
                let mut samples = Samples::new(&client, 1);
                let refused = samples.submit(&mut client, kind, Flags::FENCE, 0);
                assert_eq!(refused, Err(SubmitError::UnsupportedFence), "{kind} with a fence");
                samples.check(&format!("{kind} that was refused"));
            }
            return client.finish();
        }
        for round in 0..8 {
            for len in [64, 4096, 1 << 16] {
                let len = client.fitting(len, 4);
                for batches in [false, true] {
                    let mut steps = Steps::new(&client, len, round, batches);
                    steps.reads_what_was_written(&mut client);
                    steps.overwrites_what_was_read(&mut client);
                    steps.writes_last(&mut client);
                    steps.reads_what_several_wrote(&mut client);
                }
            }
        }
        client.finish();
    }

    /// Every kind of operation with every combination of the flags that change nothing about what
    /// is done: all of them are reported, the last one of a batch and of a channel too.
    pub fn hints(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        let hints = [Flags::NO_STATUS, Flags::TO_CACHE, Flags::TO_MEMORY];
        for kind in declared(&client) {
            for chosen in 0..1 << hints.len() {
                let flags = hints.iter().enumerate().filter(|(bit, _)| chosen & 1 << bit != 0);
                let flags: Flags = flags.map(|(_, &flag)| flag).collect();
                // A long one, as engines may treat them otherwise.
                for len in [client.fitting(64, 4), client.fitting(1 << 16, 4)] {
                    let mut samples = Samples::of_len(&client, 3, len);
                    for slot in 0..client.info().ring_size.min(3) {
                        match samples.submit(&mut client, kind, flags, slot) {
                            Ok(_) => {}
                            Err(SubmitError::RingFull) if slot > 0 => break,
                            Err(error) => panic!("{kind} with {flags:?}: {error}"),
                        }
                    }
                    client.wait_for_success();
                    samples.check(&format!("{kind} with {flags:?}"));
                }
            }
        }
        client.finish();
    }
}

/// Copies that depend on each other.
struct Steps {
    a: Block,
    b: Block,
    c: Block,
    len: usize,
    /// Whether the doorbell rings after each.
    batches: bool,
}

impl Steps {
    fn new(client: &Client, len: usize, seed: u64, batches: bool) -> Self {
        let [a, b, c] = [0, 1, 2].map(|n| Block::random(client.arena(), len, 3 * seed + n));
        Self { a, b, c, len, batches }
    }

    /// Copies `len` bytes at `at` from one block to the other.
    fn copy(
        &self,
        client: &mut Client,
        [from, to]: [&Block; 2],
        at: usize,
        len: usize,
        flags: Flags,
    ) {
        let copy = Operation::Memcpy { source: from.at(at), target: to.at(at), len };
        self.submit(client, &copy, flags);
    }

    fn submit(&self, client: &mut Client, operation: &Operation<'_>, flags: Flags) {
        // A ring that is too small for all of them leaves fewer that a fence could order.
        if client.space() < client.info().descriptors(operation.len()) {
            client.wait_for_success();
        }
        // SAFETY: the blocks stay until `wait_for_success` has seen the end of all operations. Two
        // of them touch the same bytes only if a fence orders them.
        unsafe { client.submit(operation, flags, 0) };
        if self.batches {
            client.issue();
        }
    }

    fn finish(&mut self, client: &mut Client, what: &str) {
        client.wait_for_success();
        for block in [&self.a, &self.b, &self.c] {
            block.check(what);
        }
        // What was there must not be what the next steps are to leave.
        let seed = u64::from(self.a.expected(0..1)[0]);
        self.b.randomize(1000 + seed);
        self.c.randomize(2000 + seed);
    }

    /// A to B, then B to C.
    fn reads_what_was_written(&mut self, client: &mut Client) {
        let Self { a, b, c, len, .. } = self;
        let bytes = a.expected(0..*len).to_vec();
        b.expect(0, &bytes);
        c.expect(0, &bytes);
        self.copy(client, [&self.a, &self.b], 0, self.len, Flags::empty());
        self.copy(client, [&self.b, &self.c], 0, self.len, Flags::FENCE);
        self.finish(client, "a copy, behind a fence, of what the copy before it wrote");
    }

    /// B to C, then A to B.
    fn overwrites_what_was_read(&mut self, client: &mut Client) {
        let Self { a, b, c, len, .. } = self;
        c.expect(0, b.expected(0..*len));
        b.expect(0, a.expected(0..*len));
        self.copy(client, [&self.b, &self.c], 0, self.len, Flags::empty());
        self.copy(client, [&self.a, &self.b], 0, self.len, Flags::FENCE);
        self.finish(client, "a copy, behind a fence, over what the copy before it read");
    }

    /// A to C, then B to C.
    fn writes_last(&mut self, client: &mut Client) {
        let Self { b, c, len, .. } = self;
        c.expect(0, b.expected(0..*len));
        self.copy(client, [&self.a, &self.c], 0, self.len, Flags::empty());
        self.copy(client, [&self.b, &self.c], 0, self.len, Flags::FENCE);
        self.finish(client, "a copy, behind a fence, over what the copy before it wrote");
    }

    /// A to B in pieces, then B to C, and a fill of B at the end.
    fn reads_what_several_wrote(&mut self, client: &mut Client) {
        let unit = client.info().alignment.get();
        let pieces = (client.info().ring_size / 2).min(6).min(self.len / unit).max(1);
        let piece = (self.len / pieces).next_multiple_of(unit).min(self.len);
        let bytes = self.a.expected(0..self.len).to_vec();
        self.b.expect(0, &bytes);
        self.c.expect(0, &bytes);
        for at in (0..self.len).step_by(piece) {
            let len = piece.min(self.len - at);
            self.copy(client, [&self.a, &self.b], at, len, Flags::empty());
        }
        self.copy(client, [&self.b, &self.c], 0, self.len, Flags::FENCE);
        if client.can(OperationKind::Memset) {
            self.b.expect(0, &vec![0x11; self.len]);
            let pattern = 0x1111_1111_1111_1111;
            let fill = Operation::Memset { pattern, target: self.b.at(0), len: self.len };
            self.submit(client, &fill, Flags::FENCE);
        }
        self.finish(client, "a copy, behind a fence, of what several copies wrote");
    }
}
