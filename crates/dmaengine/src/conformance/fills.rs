use super::{Suite, client::Client, copies::lengths, memory::Block};
use crate::{DmaChannel, Flags, Operation, OperationKind, Status, SubmitError};

impl Suite<'_> {
    /// Fills of many lengths and places, also such that cut the pattern short or that XFERCAP cuts
    /// into pieces. The pattern's first byte is the target's first, wherever that lies.
    ///
    /// A channel without [`MEMSET`](crate::Capabilities::MEMSET) must refuse them.
    pub fn fills(&self, channel: Box<dyn DmaChannel>) {
        const LEN: usize = 1 << 16;
        let mut client = Client::new(self, channel);
        let mut target = Block::new(client.arena(), LEN + 4096);
        if !client.can(OperationKind::Memset) {
            let len = client.fitting(64, 1);
            let fill = Operation::Memset { pattern: 1, target: target.at(0), len };
            let refusal = SubmitError::Unsupported { operation: OperationKind::Memset };
            // SAFETY: the block stays until `finish` has found the channel idle.
            unsafe { client.refuse(&fill, Flags::empty(), refusal) };
            client.finish();
            return target.check("a fill that was refused");
        }
        let patterns = [0, u64::MAX, 0x8877_6655_4433_2211, 0x00ff_0000_0000_0001];
        for (index, len) in lengths(&client, LEN).into_iter().enumerate() {
            for offset in [0, 1, 4, 8, 13, 60, 4095] {
                let at = client.aligned(offset).min(4096);
                let pattern = patterns[(index + offset) % patterns.len()];
                let what = format!("a fill of {len} bytes at {at} with {pattern:#x}");
                let bytes: Vec<u8> = pattern.to_le_bytes().into_iter().cycle().take(len).collect();
                target.expect(at, &bytes);
                let fill = Operation::Memset { pattern, target: target.at(at), len };
                // SAFETY: `expect` has found the range in the block, which stays until `run` has
                // seen the end of the fill.
                let status = unsafe { client.run(&fill, Flags::empty()) };
                assert_eq!(status, Status::Success, "{what}");
                target.check(&what);
                target.clear(at..at + len);
            }
        }
        client.finish();
    }
}
