use super::Suite;
use crate::{
    ChannelInfo, DmaChannel,
    dmatest::{self, Operation, Params, Summary},
};

/// The buffers' length in bytes: dmatest's own, if the ring holds as much.
const LEN: usize = 16384;

impl Suite<'_> {
    /// Linux's dmatest: its patterns tell what was copied wrongly from what was copied too far. Each
    /// of its operations that the channel has, with the options that make a difference to a channel:
    /// waited for and polled for, one in flight and several, random places and fixed ones. Each run
    /// takes a channel from `fresh`.
    ///
    /// It goes through a [`Queue`](crate::Queue), as clients do.
    pub fn dmatest(&self, fresh: &mut dyn FnMut() -> Box<dyn DmaChannel>) {
        for operation in [Operation::Memcpy, Operation::Memset, Operation::Xor, Operation::Pq] {
            let channel = fresh();
            let info = channel.info().clone();
            drop(channel);
            if !info.capabilities.contains(operation.kind().capability()) {
                continue;
            }
            let usual = Params {
                operation,
                iterations: 10,
                threads_per_chan: 4,
                test_buf_size: buffer_len(&info),
                xor_sources: info.max_xor.min(3),
                pq_sources: info.max_pq.min(3),
                timeout: self.timeout,
                ..Params::default()
            };
            let alone = Params { threads_per_chan: 1, polled: true, seed: 2, ..usual.clone() };
            let whole = Params { norandom: true, iterations: 2, ..usual.clone() };
            // Of one length, at random places.
            let transfer_size = (usual.test_buf_size / 2).max(info.alignment.get());
            let fixed = Params { transfer_size, polled: true, seed: 3, ..usual.clone() };
            for params in [usual, alone, whole, fixed] {
                let summary = dmatest::run(fresh(), self.arena, &params, |_| ())
                    .unwrap_or_else(|error| panic!("dmatest of {}: {error}", operation.kind()));
                if let Some(failed) = summary.failed.first() {
                    let Summary { tests, failures, .. } = summary;
                    panic!("{failures} of {tests} tests: {}", summary.describe(failed));
                }
                assert!(!summary.stuck, "{summary}, and the channel is stuck");
            }
        }
    }
}

/// As long as an operation may be of which each piece takes two descriptors, and one more at the end.
fn buffer_len(info: &ChannelInfo) -> usize {
    let pieces = (info.ring_size.saturating_sub(1) / 2).max(1);
    let alignment = info.alignment.get();
    let most = LEN.min(info.xfercap.get().saturating_mul(pieces));
    (most / alignment * alignment).max(alignment)
}
