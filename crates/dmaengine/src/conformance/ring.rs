use std::time::Instant;

use super::{
    Suite,
    client::Client,
    samples::{Samples, declared},
};
use crate::{DmaChannel, Flags, OperationKind, Status, SubmitError};

impl Suite<'_> {
    /// What is submitted and not issued does not move and does not end, and a stop aborts it.
    pub fn nothing_before_the_doorbell(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        for kind in declared(&client) {
            let count = client.info().ring_size.min(3);
            let mut samples = Samples::new(&client, count);
            for slot in 0..count {
                match samples.submit(&mut client, kind, Flags::empty(), slot) {
                    Ok(_) => samples.expect_nothing(slot),
                    Err(SubmitError::RingFull) if slot > 0 => break,
                    Err(error) => panic!("{kind}: {error}"),
                }
                for _ in 0..50 {
                    assert_eq!(client.poll(), 0, "{kind} ended that was not issued");
                }
                // Looks at memory that is the operation's: only an engine that is found out by it
                // could be at it now.
                samples.check(&format!("{kind} that was not issued"));
            }
            for ended in client.terminate() {
                assert_eq!((ended.status, ended.bytes), (Status::Aborted, 0), "not issued");
            }
            client.works();
            samples.check(&format!("{kind} that was never issued"));
        }
        client.finish();
    }

    /// Space falls by what an operation takes, the same each time, until the ring is full and
    /// refuses the next; and all of it comes back.
    pub fn capacity(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        let info = client.info().clone();
        for kind in declared(&client) {
            let mut lengths = vec![client.fitting(64, info.ring_size)];
            // Several descriptors each, and a rest.
            let xfercap = info.xfercap.get();
            let long = client.aligned(xfercap.saturating_mul(2).saturating_add(1));
            if long <= 1 << 16 && info.descriptors(long) <= info.ring_size {
                lengths.push(long);
            }
            for len in lengths {
                fill_the_ring(&mut client, kind, len);
            }
        }
        client.finish();
    }

    /// More operations than 16 bits count, in bursts of changing size, all in flight at some time.
    pub fn wrap(&self, channel: Box<dyn DmaChannel>) {
        const OPERATIONS: usize = (1 << 16) + 1000;
        let mut client = Client::new(self, channel);
        let operations = OPERATIONS.max(3 * client.info().ring_size);
        let slots = client.space().min(256);
        let mut samples = Samples::of_len(&client, slots, client.fitting(64, slots));
        let mut idle: Vec<usize> = (0..slots).collect();
        let mut kinds = declared(&client).into_iter().cycle();
        let (mut submitted, mut ended) = (0, 0);
        let mut last_end = Instant::now();
        while ended < operations {
            for _ in 0..1 + submitted % 61 {
                let Some(slot) = idle.pop() else { break };
                // A copy every other time.
                let kind =
                    if submitted % 2 == 0 { Some(OperationKind::Memcpy) } else { kinds.next() };
                let kind = kind.expect("a cycle has no end");
                samples.clear(slot);
                match samples.submit(&mut client, kind, Flags::empty(), slot) {
                    Ok(_) => submitted += 1,
                    // Of operations that take more than one descriptor there is less room.
                    Err(SubmitError::RingFull) if client.in_flight() > 0 => {
                        idle.push(slot);
                        break;
                    }
                    Err(error) => panic!("operation {submitted}, {kind}: {error}"),
                }
            }
            client.issue();
            if client.poll() == 0 {
                client.check_deadline(last_end);
                std::thread::yield_now();
                continue;
            }
            last_end = Instant::now();
            for operation in client.take_ended() {
                assert_eq!(operation.status, Status::Success, "operation {}", operation.number);
                samples.check_slot(operation.tag, &format!("operation {}", operation.number));
                idle.push(operation.tag);
                ended += 1;
            }
        }
        client.wait_for_success();
        samples.check("many operations");
        client.finish();
    }
}

/// Fills the ring with operations of one kind and length, twice, as far as 4 MiB go.
fn fill_the_ring(client: &mut Client, kind: OperationKind, len: usize) {
    let slots = client.info().ring_size.min((4 << 20) / (2 * (len + 128)));
    let mut samples = Samples::of_len(client, slots, len);
    let mut expected = None;
    for _ in 0..2 {
        let mut count = 0;
        while count < slots && client.space() >= expected.unwrap_or(1) {
            let taken = match samples.submit(client, kind, Flags::empty(), count) {
                Ok(taken) => taken,
                Err(error) => {
                    panic!("{kind} number {count}, with {} left: {error}", client.space())
                }
            };
            assert_eq!(
                taken,
                *expected.get_or_insert(taken),
                "space taken by {kind} of {len} bytes"
            );
            count += 1;
        }
        if client.space() < expected.unwrap_or(1) {
            let refused = samples.submit(client, kind, Flags::empty(), 0);
            assert_eq!(refused, Err(SubmitError::RingFull), "{kind}, with {} left", client.space());
        }
        assert_eq!(client.wait_for_success().len(), count);
        samples.check(&format!("{kind}, as many as the ring holds"));
        (0..count).for_each(|slot| samples.clear(slot));
    }
}
