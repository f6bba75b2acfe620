use std::ops::Range;

use super::{Suite, client::Client, memory::Block};
use crate::{
    DmaChannel, Flags, Operation, OperationKind, Segment, SegmentMut, Status, SubmitError,
    random::SplitMix64,
};

/// The length of a copy, all pieces together, in bytes: odd, and more than a page.
const LEN: usize = 4999;

impl Suite<'_> {
    /// Copies between lists of every pair of lengths up to the most that the channel takes (a
    /// selection, if that is more than 16), cut at odd places, in memory that is in another order
    /// than the lists.
    ///
    /// A list that has more pieces than the ring has descriptors must be refused. So must all of
    /// them by a channel without [`MEMCPY_SG`](crate::Capabilities::MEMCPY_SG).
    pub fn scatter_gather(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        let mut random = SplitMix64::new(2);
        let mut lists = Lists::new(&client);
        if !client.can(OperationKind::MemcpySg) {
            let refusal = SubmitError::Unsupported { operation: OperationKind::MemcpySg };
            lists.copy(&mut client, &mut random, [1, 1], Some(refusal));
            return client.finish();
        }
        let counts = counts(client.info().max_sg);
        for &sources in &counts {
            for &targets in &counts {
                lists.copy(&mut client, &mut random, [sources, targets], None);
            }
        }
        client.finish();
    }
}

/// All numbers up to `max`, or the telling ones.
pub(super) fn counts(max: usize) -> Vec<usize> {
    if max <= 16 { (1..=max).collect() } else { vec![1, 2, 3, 8, max / 2, max - 1, max] }
}

struct Lists {
    source: Block,
    target: Block,
}

impl Lists {
    fn new(client: &Client) -> Self {
        // A gap of at least one unit before each piece.
        let gaps = client.aligned(100) * (client.info().max_sg + 1);
        let len = client.aligned(LEN) + gaps + client.aligned(1) * client.info().max_sg;
        let arena = client.arena();
        Self { source: Block::random(arena, len, 3), target: Block::new(arena, len) }
    }

    /// Copies between lists of these many pieces; `refusal` is what the channel must say to it.
    fn copy(
        &mut self,
        client: &mut Client,
        random: &mut SplitMix64,
        [sources, targets]: [usize; 2],
        refusal: Option<SubmitError>,
    ) {
        let unit = client.info().alignment.get();
        let units = client.fitting(LEN, 1) / unit;
        let units = units.max(sources).max(targets);
        let from = pieces(random, units, sources, unit);
        let to = pieces(random, units, targets, unit);
        let what = format!("a copy of {} bytes from {sources} to {targets} pieces", units * unit);
        let source_list: Vec<Segment> =
            from.iter().map(|piece| self.source.segment(piece)).collect();
        let target_list: Vec<SegmentMut> =
            to.iter().map(|piece| self.target.segment_mut(piece)).collect();
        let copy = Operation::MemcpySg { sources: &source_list, targets: &target_list };
        let refusal = refusal.or_else(|| client.info().check(&copy, Flags::empty()).err());
        if let Some(refusal) = refusal {
            // SAFETY: `segment` has found the pieces in the blocks, which stay until the caller's
            // `finish` has found the channel idle.
            unsafe { client.refuse(&copy, Flags::empty(), refusal) };
            return self.target.check(&what);
        }
        let mut bytes = from.iter().flat_map(|piece| self.source.expected(piece.clone()).to_vec());
        for piece in &to {
            let written: Vec<u8> = bytes.by_ref().take(piece.len()).collect();
            self.target.expect(piece.start, &written);
        }
        // SAFETY: as above.
        let status = unsafe { client.run(&copy, Flags::empty()) };
        assert_eq!(status, Status::Success, "{what}");
        self.source.check(&what);
        self.target.check(&what);
        to.into_iter().for_each(|piece| self.target.clear(piece));
    }
}

/// Cuts `units` at random into `count` pieces of at least one, and gives each a place in a block,
/// in an order of its own and with a gap before it.
fn pieces(random: &mut SplitMix64, units: usize, count: usize, unit: usize) -> Vec<Range<usize>> {
    let mut cuts: Vec<usize> = vec![0, units];
    while cuts.len() <= count {
        let cut = 1 + random.below(units);
        if !cuts.contains(&cut) {
            cuts.push(cut);
        }
    }
    cuts.sort_unstable();
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    let mut pieces = vec![0..0; count];
    let mut end = 0;
    for index in order {
        let start = end + (1 + random.below(90)).next_multiple_of(unit);
        end = start + (cuts[index + 1] - cuts[index]) * unit;
        pieces[index] = start..end;
    }
    pieces
}
