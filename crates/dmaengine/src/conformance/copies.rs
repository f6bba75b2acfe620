use std::collections::BTreeSet;

use super::{Suite, client::Client, memory::Block};
use crate::{DmaChannel, Flags, Operation, Status};

/// No length above this is tried, in bytes.
const MAX_LEN: usize = (2 << 20) + 1;

impl Suite<'_> {
    /// Copies of every length around the borders of a cache line, a page, 2 MiB and XFERCAP, up to
    /// the longest that the ring holds, aligned and not.
    pub fn lengths_and_alignments(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        let mut pair = Pair::new(&client, MAX_LEN + 4096);
        for len in lengths(&client, MAX_LEN) {
            for (source, target) in
                [(0, 0), (1, 0), (0, 1), (7, 9), (63, 64), (64, 63), (4095, 4094)]
            {
                // Large copies are slow on a model: two of each must do.
                if len <= 3 * 4096 || (source, target) == (0, 0) || (source, target) == (7, 9) {
                    pair.copy(&mut client, source, target, len);
                }
            }
        }
        client.finish();
    }

    /// Copies that lie across the borders of pages and of 2 MiB in the address space, on either
    /// side.
    pub fn address_borders(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        // Long enough to have a 2 MiB border inside, with room on both sides.
        let mut pair = Pair::new(&client, (2 << 20) + 3 * 4096);
        for border in [4096, 2 << 20] {
            let [source_border, target_border] = [&pair.source, &pair.target].map(|block| {
                let start = block.at(0).addr();
                (start + 4096).next_multiple_of(border) - start
            });
            for before in [1, 8, 63, 64, 100, 4095] {
                for after in [1, 64, 1000] {
                    let (source, target) = (source_border - before, target_border - before);
                    let len = client.fitting(before + after, 1);
                    pair.copy(&mut client, source, 13, len);
                    pair.copy(&mut client, 13, target, len);
                    pair.copy(&mut client, source, target, len);
                }
            }
        }
        client.finish();
    }
}

/// Lengths around all borders that matter to the channel, at most `max`.
pub(super) fn lengths(client: &Client, max: usize) -> BTreeSet<usize> {
    let borders = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 8192, 1 << 16, 2 << 20];
    let info = client.info();
    let pieces = [1, 2, 3, info.ring_size].map(|count| info.xfercap.get().saturating_mul(count));
    borders
        .into_iter()
        .chain(pieces)
        .filter(|&border| border <= max)
        .flat_map(|border| [border - 1, border, border + 1])
        .map(|len| client.aligned(len))
        .filter(|&len| len > 0 && len <= max && info.descriptors(len) <= info.ring_size)
        .collect()
}

/// What is copied from and to.
struct Pair {
    source: Block,
    target: Block,
}

impl Pair {
    fn new(client: &Client, len: usize) -> Self {
        let arena = client.arena();
        Self { source: Block::random(arena, len, 1), target: Block::new(arena, len) }
    }

    /// Copies `len` bytes between these places, rounded up to what the channel takes, and checks
    /// all bytes of both blocks.
    #[track_caller]
    fn copy(&mut self, client: &mut Client, source: usize, target: usize, len: usize) {
        let Self { source: from, target: to } = self;
        let (source, target) = (client.aligned(source), client.aligned(target));
        let what = format!("a copy of {len} bytes from {source} to {target}");
        let copy = Operation::Memcpy { source: from.at(source), target: to.at(target), len };
        // SAFETY: both ranges lie in the blocks (the checks below would panic first), which stay
        // until `run` has seen the end of the copy.
        let status = unsafe {
            to.expect(target, from.expected(source..source + len));
            client.run(&copy, Flags::empty())
        };
        assert_eq!(status, Status::Success, "{what}");
        from.check(&what);
        to.check(&what);
        to.clear(target..target + len);
    }
}
